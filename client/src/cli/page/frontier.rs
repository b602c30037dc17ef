//! What quality costs: every model alone, the incumbent, and each candidate with its frontier.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use pointsman_client::v1;

use super::labels::{Rect, along, place_all};
use super::plot::{self, Area, Axis, Margins};
use super::{round_money, round_score, short, usd_per_thousand};

const SIZE: (u32, u32) = (880, 460);
const MARGINS: Margins = Margins(58, 20, 34, 56);

/// How a point is drawn.
#[derive(Debug, Clone, Copy)]
enum Mark {
    Single,
    Incumbent,
    Candidate(RGBColor),
}

/// A named point of the plot.
#[derive(Debug)]
struct Point {
    name: String,
    cost: f64,
    value: f64,
    mark: Mark,
}

/// The plot, or none where there is nothing to draw.
pub(super) fn plot(evaluations: &[v1::Evaluation]) -> anyhow::Result<Option<String>> {
    let points = points(evaluations);
    if points.is_empty() {
        return Ok(None);
    }
    let curves: Vec<Vec<(f64, f64)>> = evaluations.iter().map(curve).collect();
    let all = || points.iter().map(|point| (point.cost, point.value)).chain(curves.iter().flatten().copied());
    let costs: Vec<f64> = all().map(|(cost, _)| cost).collect();
    let values: Vec<f64> = all().map(|(_, value)| value).collect();
    let across = Axis::wide(&costs, round_money, "US dollars for 1,000 requests");
    let down = Axis::around(&values, round_score, "mean score");
    let title = "Mean score over cost: single models, the incumbent, the candidates";
    plot::svg(title, SIZE, |area| draw(area, &points, &curves, (&across, &down))).map(Some)
}

fn points(evaluations: &[v1::Evaluation]) -> Vec<Point> {
    let point = |name: &str, nanos, value: Option<&v1::Estimate>, mark| {
        let value = value?.value;
        value.is_finite().then(|| Point { name: short(name), cost: usd_per_thousand(nanos), value, mark })
    };
    let mut points = Vec::new();
    // Singles and incumbent are measured on the same rows for every candidate.
    if let Some(first) = evaluations.first() {
        points.extend(first.singles.iter().filter_map(|single| {
            point(&single.model, single.cost_usd_nanos, single.value.as_ref(), Mark::Single)
        }));
        let name = &first.incumbent_version;
        points.extend(point(name, first.incumbent_cost_usd_nanos, first.incumbent.as_ref(), Mark::Incumbent));
    }
    points.extend(evaluations.iter().enumerate().filter_map(|(place, found)| {
        let mark = Mark::Candidate(plot::candidate(place));
        point(&found.version, found.cost_usd_nanos, found.doubly_robust.as_ref(), mark)
    }));
    points
}

/// The candidate's frontier by rising cost.
fn curve(found: &v1::Evaluation) -> Vec<(f64, f64)> {
    let mut curve: Vec<_> = found
        .frontier
        .iter()
        .filter_map(|point| Some((usd_per_thousand(point.cost_usd_nanos), point.value.as_ref()?.value)))
        .filter(|(_, value)| value.is_finite())
        .collect();
    curve.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    curve
}

fn draw(
    area: &Area<'_>,
    points: &[Point],
    curves: &[Vec<(f64, f64)>],
    (across, down): (&Axis, &Axis),
) -> anyhow::Result<()> {
    let mut chart = plot::frame(area, across, down, MARGINS)?;
    let at = |cost, value| (across.at(cost), down.at(value));
    let mut taken = Vec::new();
    for (place, curve) in curves.iter().enumerate() {
        let color = plot::candidate(place);
        let path: Vec<_> = curve.iter().map(|(cost, value)| at(*cost, *value)).collect();
        if path.len() > 1 {
            plot::line(&mut chart, &path, color.stroke_width(2))?;
        }
        let pixels: Vec<_> = path.iter().map(|at| chart.backend_coord(at)).collect();
        let lines = pixels.iter().zip(pixels.iter().skip(1)).flat_map(|(from, to)| along(*from, *to));
        taken.extend(lines.map(|point| Rect::around(point, 2)));
        taken.extend(pixels.iter().map(|point| Rect::around(*point, 4)));
        for at in path {
            plot::dot(&mut chart, at, 3, color)?;
        }
    }
    for point in points {
        let at = at(point.cost, point.value);
        match point.mark {
            Mark::Single => plot::ring(&mut chart, at, 4, plot::SINGLE)?,
            Mark::Incumbent => plot::diamond(area, chart.backend_coord(&at), 8, plot::INCUMBENT)?,
            Mark::Candidate(color) => plot::dot(&mut chart, at, 7, color)?,
        }
        taken.push(Rect::around(chart.backend_coord(&at), 8));
    }
    let (width, height) = area.dim_in_pixel();
    let bounds =
        Rect(MARGINS.0 + 2, MARGINS.2 - 6, i32::try_from(width)? - 4, i32::try_from(height)? - MARGINS.3 - 2);
    // Candidates and incumbent come last in the list and first to a label.
    let wanted: Vec<_> = points
        .iter()
        .rev()
        .map(|point| (chart.backend_coord(&at(point.cost, point.value)), point.name.as_str()))
        .collect();
    let places = place_all(bounds, &taken, &wanted);
    for (point, ((pixel, _), place)) in points.iter().rev().zip(wanted.iter().zip(places)) {
        let Some(place) = place else { continue };
        let color = match point.mark {
            Mark::Single => plot::MUTED,
            Mark::Incumbent => plot::INCUMBENT,
            Mark::Candidate(color) => color,
        };
        if let Some(end) = place.leader {
            let leader = PathElement::new(vec![*pixel, end], plot::SINGLE.stroke_width(1));
            area.draw(&leader).map_err(plot::failed)?;
        }
        plot::put(area, point.name.clone(), place.left, plot::text(color, HPos::Left, VPos::Center))?;
    }
    Ok(())
}
