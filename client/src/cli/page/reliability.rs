//! Reliability: predicted probabilities beside what came true, and how many predictions there were of each.

use plotters::prelude::*;
use pointsman_client::v1;

use super::plot::{self, Area, Axis, Margins};

const SIZE: (u32, u32) = (420, 400);
const MARGINS: Margins = Margins(44, 14, 34, 56);
/// Radius of the dot of the fullest bin, in pixels.
const RADIUS_MAX: f64 = 10.0;
/// Radius below which a dot is not seen, in pixels.
const RADIUS_MIN: f64 = 3.0;

/// The plot, or none where nothing was predicted.
pub(super) fn plot(calibration: &v1::Calibration, color: RGBColor) -> anyhow::Result<Option<String>> {
    if calibration.bins.is_empty() {
        return Ok(None);
    }
    let across = Axis::of(0.0, 1.0, tenths, "predicted probability of being right");
    let down = Axis::of(0.0, 1.0, tenths, "right in truth");
    let title = "Predicted probabilities beside what came true";
    plot::svg(title, SIZE, |area| draw(area, &calibration.bins, color, (&across, &down))).map(Some)
}

fn tenths(value: f64) -> String {
    format!("{value:.1}")
}

fn draw(
    area: &Area<'_>,
    bins: &[v1::ReliabilityBin],
    color: RGBColor,
    (across, down): (&Axis, &Axis),
) -> anyhow::Result<()> {
    let mut chart = plot::frame(area, across, down, MARGINS)?;
    plot::dashes(&mut chart, &[(0.0, 0.0), (1.0, 1.0)], plot::MUTED.stroke_width(1))?;
    let path: Vec<_> = bins.iter().map(|bin| (bin.predicted_mean, bin.right_mean)).collect();
    plot::line(&mut chart, &path, color.stroke_width(2))?;
    let most = bins.iter().map(|bin| bin.rows).max().unwrap_or(0);
    for (bin, at) in bins.iter().zip(path) {
        plot::dot(&mut chart, at, radius(bin.rows, most), color)?;
    }
    Ok(())
}

/// The area of a dot is as its share of the fullest bin.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a radius of a few pixels")]
fn radius(rows: u64, most: u64) -> i32 {
    let share = rows as f64 / most.max(1) as f64;
    (share.sqrt() * RADIUS_MAX).max(RADIUS_MIN).round() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_grow_with_their_bins() {
        let check = |rows, most, expected| assert_eq!(radius(rows, most), expected);
        check(100, 100, 10);
        check(25, 100, 5);
        check(1, 1_000_000, 3);
        check(0, 0, 3);
    }
}
