//! Value with interval: the incumbent, the best single model, and every candidate, one below the other.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use pointsman_client::v1;

use super::plot::{self, Area, Axis, Margins};
use super::{round_score, short};
use crate::cli::tables::estimate;

const WIDTH: u32 = 880;
/// Height of a row, in pixels.
const ROW: u32 = 46;
const MARGINS: Margins = Margins(232, 190, 12, 54);

/// One row of the plot.
#[derive(Debug)]
struct Row<'a> {
    name: String,
    what: &'static str,
    value: &'a v1::Estimate,
    color: RGBColor,
}

/// The plot, or none where there is nothing to draw.
pub(super) fn plot(evaluations: &[v1::Evaluation]) -> anyhow::Result<Option<String>> {
    let rows = rows(evaluations);
    if rows.is_empty() {
        return Ok(None);
    }
    let ends = rows.iter().flat_map(|row| [Some(row.value.value), row.value.lower, row.value.upper]);
    let ends: Vec<f64> = ends.flatten().collect();
    let across = Axis::around(&ends, round_score, "mean score");
    let bands = f64::from(u32::try_from(rows.len())?);
    let down = Axis::of(0.0, bands, |_| String::new(), "").without_ticks();
    let height = ROW * u32::try_from(rows.len())? + u32::try_from(MARGINS.2 + MARGINS.3)?;
    let incumbent = evaluations.first().and_then(|found| found.incumbent.as_ref());
    let title = "Value with interval of the incumbent, the best single model and the candidates";
    plot::svg(title, (WIDTH, height), |area| draw(area, &rows, incumbent, (&across, &down))).map(Some)
}

fn rows(evaluations: &[v1::Evaluation]) -> Vec<Row<'_>> {
    let first = evaluations.first();
    let incumbent = first.and_then(|found| {
        Row::of(&found.incumbent_version, "runs now", found.incumbent.as_ref(), plot::INCUMBENT)
    });
    let single = first
        .and_then(|found| found.best_single.as_ref())
        .and_then(|single| Row::of(&single.model, "best single model", single.value.as_ref(), plot::SINGLE));
    let candidates = evaluations.iter().enumerate().filter_map(|(place, found)| {
        Row::of(&found.version, "candidate", found.doubly_robust.as_ref(), plot::candidate(place))
    });
    incumbent.into_iter().chain(single).chain(candidates).collect()
}

impl<'a> Row<'a> {
    fn of(name: &str, what: &'static str, value: Option<&'a v1::Estimate>, color: RGBColor) -> Option<Self> {
        let value = value.filter(|value| value.value.is_finite())?;
        Some(Self { name: short(name), what, value, color })
    }
}

fn draw(
    area: &Area<'_>,
    rows: &[Row<'_>],
    incumbent: Option<&v1::Estimate>,
    (across, down): (&Axis, &Axis),
) -> anyhow::Result<()> {
    let mut chart = plot::frame(area, across, down, MARGINS)?;
    let bands = f64::from(u32::try_from(rows.len())?);
    if let Some(incumbent) = incumbent {
        let at = across.at(incumbent.value);
        plot::dashes(&mut chart, &[(at, 0.0), (at, bands)], plot::INCUMBENT.stroke_width(1))?;
    }
    let right = i32::try_from(WIDTH)? - MARGINS.1;
    for (place, row) in (0_u32..).zip(rows) {
        let y = bands - f64::from(place) - 0.5;
        let (_, pixel) = chart.backend_coord(&(across.at(row.value.value), y));
        if let (Some(lower), Some(upper)) = (row.value.lower, row.value.upper) {
            let ends = [across.at(lower), across.at(upper)];
            plot::line(&mut chart, &ends.map(|end| (end, y)), row.color.stroke_width(3))?;
            for end in ends {
                let (x, _) = chart.backend_coord(&(end, y));
                let cap = PathElement::new(vec![(x, pixel - 5), (x, pixel + 5)], row.color.stroke_width(2));
                area.draw(&cap).map_err(plot::failed)?;
            }
        }
        plot::dot(&mut chart, (across.at(row.value.value), y), 6, row.color)?;
        let left = MARGINS.0 - 14;
        plot::put(area, row.name.clone(), (left, pixel - 9), plot::text(plot::INK, HPos::Right, VPos::Center))?;
        plot::put(
            area,
            row.what.to_owned(),
            (left, pixel + 9),
            plot::text(plot::MUTED, HPos::Right, VPos::Center),
        )?;
        let figures = estimate(Some(row.value));
        plot::put(area, figures, (right + 14, pixel), plot::text(plot::INK, HPos::Left, VPos::Center))?;
    }
    Ok(())
}
