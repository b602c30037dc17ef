//! What all plots share: colours, axes with round ticks, the frame.
//!
//! Colours are written into the drawing for a light page; [`DARK`] says what a dark page shows in their place, so each
//! colour stands for one role and is used for nothing else.

use std::fmt::Write as _;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// A drawing, or a part of it.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A frame with its two axes.
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// Text.
pub(super) const INK: RGBColor = RGBColor(0x1f, 0x29, 0x33);
/// Text of less weight.
pub(super) const MUTED: RGBColor = RGBColor(0x5f, 0x6b, 0x7a);
/// Lines of the grid.
const GRID: RGBColor = RGBColor(0xe3, 0xe7, 0xed);
/// What the others are compared with.
pub(super) const INCUMBENT: RGBColor = RGBColor(0x37, 0x41, 0x51);
/// Single models.
pub(super) const SINGLE: RGBColor = RGBColor(0x8a, 0x94, 0xa3);
/// The page.
pub(super) const PAGE: RGBColor = RGBColor(0xff, 0xff, 0xff);
/// Candidates, one after the other; begun anew after the last.
const CANDIDATES: [RGBColor; 6] = [
    RGBColor(0x25, 0x63, 0xc9),
    RGBColor(0xc2, 0x57, 0x0c),
    RGBColor(0x0f, 0x76, 0x6e),
    RGBColor(0x7c, 0x3a, 0xed),
    RGBColor(0xbe, 0x18, 0x5d),
    RGBColor(0x5b, 0x70, 0x10),
];
/// What a dark page shows in the place of each colour.
const DARK: [(RGBColor, &str); 12] = [
    (INK, "#e4e8ee"),
    (MUTED, "#9aa6b5"),
    (GRID, "#2c3440"),
    (INCUMBENT, "#d5dbe4"),
    (SINGLE, "#8793a3"),
    (PAGE, "#12161c"),
    (CANDIDATES[0], "#79aaff"),
    (CANDIDATES[1], "#ff9d5c"),
    (CANDIDATES[2], "#4fd1c0"),
    (CANDIDATES[3], "#b79bff"),
    (CANDIDATES[4], "#ff86b3"),
    (CANDIDATES[5], "#b9d05a"),
];
/// Size of all text as the library counts it; it draws 1.24 times smaller, so this is 13.7 pixels of the drawing.
pub(super) const TEXT: i32 = 17;

/// The colour of a candidate by its place.
pub(super) fn candidate(place: usize) -> RGBColor {
    CANDIDATES.iter().cycle().nth(place % CANDIDATES.len()).copied().unwrap_or(INK)
}

/// The rules that turn a plot dark.
pub(super) fn dark_rules() -> String {
    let mut rules = String::new();
    for (light, dark) in DARK {
        let light = hex(light);
        // Writing to a string does not fail.
        let _ = writeln!(
            rules,
            "  svg [fill=\"{light}\"] {{ fill: {dark}; }} svg [stroke=\"{light}\"] {{ stroke: {dark}; }}"
        );
    }
    rules
}

/// A colour as CSS and SVG write it.
pub(super) fn hex(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// Text of this colour, by the point that it is held at.
pub(super) fn text(color: RGBColor, across: HPos, down: VPos) -> TextStyle<'static> {
    ("sans-serif", TEXT).into_font().color(&color).pos(Pos::new(across, down))
}

/// Draws a plot of this size; `title` is what a screen reader says of it.
pub(super) fn svg(
    title: &str,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let mut drawn = String::new();
    {
        let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    let tag = format!("<svg role=\"img\" aria-label=\"{}\" ", super::escape(title));
    Ok(drawn.replacen("<svg ", &tag, 1))
}

/// A fault of the drawing library.
pub(super) fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a plot cannot be drawn: {error}")
}

/// A range of values, the ticks on it, and how they are written.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    is_log: bool,
    label: fn(f64) -> String,
    title: &'static str,
}

impl Axis {
    /// An axis that holds all values with some room, in equal steps; in equal ratios where they differ much.
    pub(super) fn around(values: &[f64], label: fn(f64) -> String, title: &'static str) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
        if least > most {
            return Self::of(0.0, 1.0, label, title);
        }
        let room = (most - least).max(most.abs() * 0.02).max(1e-9) * 0.08;
        Self::of(least - room, most + room, label, title)
    }

    /// An axis in equal ratios where all values are above zero and differ by more than ten, else as [`around`](Self::around).
    pub(super) fn wide(values: &[f64], label: fn(f64) -> String, title: &'static str) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
        if !(least > 0.0 && most > 10.0 * least) {
            let axis = Self::around(values, label, title);
            // What cannot be below zero has no room there.
            return if least >= 0.0 { Self::of(axis.low.max(0.0), axis.high, label, title) } else { axis };
        }
        let (low, high) = (least.log10(), most.log10());
        let room = (high - low) * 0.08;
        let (low, high) = (low - room, high + room);
        let ticks = ratio_ticks(low, high);
        Self { low, high, ticks, is_log: true, label, title }
    }

    /// An axis from one value to another.
    pub(super) fn of(low: f64, high: f64, label: fn(f64) -> String, title: &'static str) -> Self {
        Self { low, high, ticks: step_ticks(low, high), is_log: false, label, title }
    }

    /// The same without ticks.
    pub(super) fn without_ticks(self) -> Self {
        Self { ticks: Vec::new(), ..self }
    }

    /// Where a value lies on it.
    pub(super) fn at(&self, value: f64) -> f64 {
        if self.is_log { value.log10() } else { value }
    }
}

/// About five ticks in steps of 1, 2 or 5 times a power of ten.
fn step_ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let ten = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * ten).find(|step| *step >= raw).unwrap_or(raw);
    let first = (low / step).ceil();
    (0..20).map(|count| (first + f64::from(count)) * step).take_while(|tick| *tick <= high).collect()
}

/// Ticks at 1, 2 and 5 times the powers of ten, fewer where the range is wide; between logarithms.
fn ratio_ticks(low: f64, high: f64) -> Vec<f64> {
    let times: &[f64] = match high - low {
        range if range < 1.8 => &[1.0, 2.0, 5.0],
        range if range < 3.5 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let mut ticks = Vec::new();
    let mut power = low.floor();
    while power <= high && ticks.len() < 40 {
        ticks.extend(times.iter().map(|times| times * 10f64.powf(power)));
        power += 1.0;
    }
    ticks.retain(|tick| (low..=high).contains(&tick.log10()));
    ticks
}

/// Room around the frame, in pixels: left, right, above, below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Margins(pub(super) i32, pub(super) i32, pub(super) i32, pub(super) i32);

/// The frame: the grid, the ticks' labels and the titles of the axes.
pub(super) fn frame<'a, 'b>(
    area: &'a Area<'b>,
    across: &Axis,
    down: &Axis,
    margins: Margins,
) -> anyhow::Result<Chart<'a, 'b>> {
    let Margins(left, right, above, below) = margins;
    let mut chart = ChartBuilder::on(area)
        .margin_left(left)
        .margin_right(right)
        .margin_top(above)
        .margin_bottom(below)
        .build_cartesian_2d(across.low..across.high, down.low..down.high)
        .map_err(failed)?;
    for tick in &across.ticks {
        let at = across.at(*tick);
        line(&mut chart, &[(at, down.low), (at, down.high)], GRID.stroke_width(1))?;
        let (x, y) = chart.backend_coord(&(at, down.low));
        put(area, (across.label)(*tick), (x, y + 7), text(MUTED, HPos::Center, VPos::Top))?;
    }
    for tick in &down.ticks {
        let at = down.at(*tick);
        line(&mut chart, &[(across.low, at), (across.high, at)], GRID.stroke_width(1))?;
        let (x, y) = chart.backend_coord(&(across.low, at));
        put(area, (down.label)(*tick), (x - 8, y), text(MUTED, HPos::Right, VPos::Center))?;
    }
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (i32::try_from(width)?, i32::try_from(height)?);
    let middle = (left + width - right) / 2;
    put(area, across.title.to_owned(), (middle, height - 4), text(INK, HPos::Center, VPos::Bottom))?;
    put(area, down.title.to_owned(), (4, 2), text(INK, HPos::Left, VPos::Top))?;
    Ok(chart)
}

/// Text on the whole drawing.
pub(super) fn put(area: &Area<'_>, what: String, at: (i32, i32), style: TextStyle<'static>) -> anyhow::Result<()> {
    if what.is_empty() {
        return Ok(());
    }
    area.draw(&Text::new(what, at, style)).map_err(failed)
}

/// A line in the frame.
pub(super) fn line(chart: &mut Chart<'_, '_>, points: &[(f64, f64)], style: ShapeStyle) -> anyhow::Result<()> {
    let path = PathElement::new(points.to_vec(), style);
    chart.draw_series(std::iter::once(path)).map(drop).map_err(failed)
}

/// A dashed line in the frame.
pub(super) fn dashes(chart: &mut Chart<'_, '_>, points: &[(f64, f64)], style: ShapeStyle) -> anyhow::Result<()> {
    let path = DashedPathElement::new(points.to_vec(), 5, 4, style);
    chart.draw_series(std::iter::once(path)).map(drop).map_err(failed)
}

/// A filled circle, with a rim of the page's colour so that neighbours stay apart.
pub(super) fn dot(chart: &mut Chart<'_, '_>, at: (f64, f64), radius: i32, color: RGBColor) -> anyhow::Result<()> {
    let rim = Circle::new(at, radius + 1, PAGE.filled());
    let dot = Circle::new(at, radius, color.filled());
    chart.draw_series([rim, dot]).map(drop).map_err(failed)
}

/// A circle that is not filled.
pub(super) fn ring(chart: &mut Chart<'_, '_>, at: (f64, f64), radius: i32, color: RGBColor) -> anyhow::Result<()> {
    let inside = Circle::new(at, radius, PAGE.filled());
    let rim = Circle::new(at, radius, color.stroke_width(2));
    chart.draw_series([inside, rim]).map(drop).map_err(failed)
}

/// A filled diamond.
pub(super) fn diamond(area: &Area<'_>, (x, y): (i32, i32), radius: i32, color: RGBColor) -> anyhow::Result<()> {
    let corners = vec![(x - radius, y), (x, y - radius), (x + radius, y), (x, y + radius)];
    area.draw(&Polygon::new(corners, color.filled())).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let check = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        };
        check(step_ticks(0.69, 0.78), &[0.7, 0.72, 0.74, 0.76, 0.78]);
        check(step_ticks(0.0, 1.0), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        check(ratio_ticks(-1.1, 0.4), &[0.1, 0.2, 0.5, 1.0, 2.0]);
        check(ratio_ticks(-1.0, 1.9), &[0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
    }

    #[test]
    fn axes_hold_what_they_are_made_of() {
        let label = |value: f64| value.to_string();
        for values in [&[][..], &[0.5], &[0.0, 0.0], &[f64::NAN, 3.0, 1.0], &[0.001, 5.0], &[0.0, 5.0]] {
            for axis in [Axis::around(values, label, ""), Axis::wide(values, label, "")] {
                assert!(axis.low < axis.high, "{values:?}: {axis:?}");
                for value in values.iter().filter(|value| value.is_finite()) {
                    assert!((axis.low..=axis.high).contains(&axis.at(*value)), "{values:?}: {axis:?}");
                }
            }
        }
    }

    #[test]
    fn every_colour_has_its_dark_one() {
        let rules = dark_rules();
        for color in CANDIDATES.into_iter().chain([INK, MUTED, GRID, INCUMBENT, SINGLE, PAGE]) {
            assert!(rules.contains(&format!("[fill=\"{}\"]", hex(color))), "{color:?}");
        }
        assert_eq!(candidate(0), candidate(CANDIDATES.len()));
    }
}
