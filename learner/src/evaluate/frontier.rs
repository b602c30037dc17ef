//! What quality costs: the frontier of cost and quality, and what a router between two models recovers.
//!
//! - AIQ, the average improvement in quality (Hu et al. 2024, RouterBench): the area under the
//!   non-decreasing concave hull of cost-quality points, divided by the width of the range of costs.
//!   The hull is what mixtures of the points can reach.
//! - For two named models, a router that sends a share of calls to the strong one recovers a part of the
//!   gap between their means (RouteLLM, Ong et al. 2024). APGR is the mean part over all shares; random
//!   routing has one half. CPT(x) is the least share that recovers x of the gap.

/// A policy's mean cost and mean quality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Mean cost of a request.
    pub cost: f64,
    /// Mean quality of its answers.
    pub quality: f64,
}

/// The points that no mixture of others beats, by ascending cost and quality.
#[must_use]
pub fn hull(points: &[Point]) -> Vec<Point> {
    let mut sorted: Vec<Point> =
        points.iter().copied().filter(|p| p.cost.is_finite() && p.quality.is_finite()).collect();
    sorted.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(b.quality.total_cmp(&a.quality)));
    let mut hull: Vec<Point> = Vec::new();
    for point in sorted {
        if hull.last().is_some_and(|last| point.quality <= last.quality) {
            continue;
        }
        while let [.., before, last] = hull.as_slice() {
            let slope = |a: &Point, b: &Point| (b.quality - a.quality) / (b.cost - a.cost);
            if slope(before, last) > slope(before, &point) {
                break;
            }
            hull.pop();
        }
        hull.push(point);
    }
    hull
}

/// The average improvement in quality over the costs from `low` to `high`; before its first point the
/// frontier has no quality, after its last it stays. `None` without points or range.
#[must_use]
pub fn average_quality(points: &[Point], low: f64, high: f64) -> Option<f64> {
    let hull = hull(points);
    let last = hull.last()?;
    let width = high - low;
    if !(width > 0.0 && width.is_finite()) {
        return None;
    }
    let mut area = (high - last.cost.max(low)).max(0.0) * last.quality;
    for (a, b) in hull.iter().zip(hull.iter().skip(1)) {
        let (from, to) = (a.cost.max(low), b.cost.min(high));
        if from < to {
            let at = |cost: f64| a.quality + (b.quality - a.quality) * (cost - a.cost) / (b.cost - a.cost);
            area += (to - from) * 0.5 * (at(from) + at(to));
        }
    }
    Some(area / width)
}

/// What one row would score with either model, and how much the router wants the strong one there.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Rows are given to the strong model by descending wish.
    pub wish: f64,
    /// Score of the weak model.
    pub weak: f64,
    /// Score of the strong model.
    pub strong: f64,
}

/// What a ranking of rows recovers of the gap between two models, at every share of calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Share of calls to the strong model, and the part of the gap recovered; straight lines between.
    pub curve: Vec<(f64, f64)>,
}

impl Recovery {
    /// Ranks the rows by their wish; rows of equal wish are taken in any order alike. `None` where the
    /// strong model is not the better one, as there is no gap then.
    #[must_use]
    pub fn of(rows: &[Pair]) -> Option<Self> {
        let mut rows: Vec<Pair> = rows.to_vec();
        rows.sort_by(|a, b| b.wish.total_cmp(&a.wish));
        let gap: f64 = rows.iter().map(|row| row.strong - row.weak).sum();
        if rows.is_empty() || !(gap > 0.0 && gap.is_finite()) {
            return None;
        }
        let mut curve = vec![(0.0, 0.0)];
        let (mut calls, mut gained) = (0.0, 0.0);
        for alike in rows.chunk_by(|a, b| a.wish.total_cmp(&b.wish).is_eq()) {
            calls += alike.len() as f64;
            gained += alike.iter().map(|row| row.strong - row.weak).sum::<f64>();
            curve.push((calls / rows.len() as f64, gained / gap));
        }
        Some(Self { curve })
    }

    /// The average part of the gap recovered over all shares, APGR.
    #[must_use]
    pub fn average(&self) -> f64 {
        let steps = self.curve.iter().zip(self.curve.iter().skip(1));
        steps.map(|((x0, y0), (x1, y1))| (x1 - x0) * 0.5 * (y0 + y1)).sum()
    }

    /// The least share of calls that recovers this part of the gap, CPT; `None` if no share does.
    #[must_use]
    pub fn calls_for(&self, part: f64) -> Option<f64> {
        if part <= 0.0 {
            return Some(0.0);
        }
        let mut steps = self.curve.iter().zip(self.curve.iter().skip(1));
        let ((x0, y0), (x1, y1)) = steps.find(|(_, (_, y1))| *y1 >= part)?;
        Some(x0 + (x1 - x0) * (part - y0) / (y1 - y0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(pairs: &[(f64, f64)]) -> Vec<Point> {
        pairs.iter().map(|(cost, quality)| Point { cost: *cost, quality: *quality }).collect()
    }

    #[test]
    fn the_hull_leaves_out_what_a_mixture_beats() {
        let given = points(&[(4.0, 0.8), (1.0, 0.2), (2.0, 0.7), (3.0, 0.7), (2.5, 0.6), (5.0, 0.75), (1.0, 0.1)]);
        assert_eq!(hull(&given), points(&[(1.0, 0.2), (2.0, 0.7), (4.0, 0.8)]));
        // Three in a line: the middle one is a mixture of the others.
        assert_eq!(hull(&points(&[(0.0, 0.0), (1.0, 0.5), (2.0, 1.0)])).len(), 2);
    }

    #[test]
    fn the_average_quality_is_the_area() {
        let check = |given: &[(f64, f64)], low, high, expected: Option<f64>| {
            let got = average_quality(&points(given), low, high);
            assert!(got.zip(expected).map_or(got == expected, |(g, e)| (g - e).abs() < 1e-12), "{got:?}");
        };
        check(&[(0.0, 0.4), (1.0, 0.8)], 0.0, 1.0, Some(0.6));
        check(&[(0.0, 0.4), (1.0, 0.8)], 0.0, 2.0, Some(0.7));
        check(&[(0.0, 0.4), (1.0, 0.8)], 0.5, 1.0, Some(0.7));
        check(&[(1.0, 0.5)], 0.0, 2.0, Some(0.25));
        check(&[(1.0, 0.5)], 1.0, 1.0, None);
        check(&[], 0.0, 1.0, None);
    }

    fn recovery(rows: &[(f64, f64, f64)]) -> Option<Recovery> {
        let rows: Vec<Pair> =
            rows.iter().map(|(wish, weak, strong)| Pair { wish: *wish, weak: *weak, strong: *strong }).collect();
        Recovery::of(&rows)
    }

    #[test]
    fn perfect_inverse_and_random_routers_have_closed_forms() {
        // One row in four gains: a perfect ranking recovers all with a quarter of the calls.
        let gains = [1.0, 0.0, 0.0, 0.0];
        let ranked = |wishes: [f64; 4]| {
            let rows: Vec<_> = wishes.iter().zip(gains).map(|(wish, gain)| (*wish, 0.0, gain)).collect();
            recovery(&rows).unwrap()
        };
        let perfect = ranked([4.0, 3.0, 2.0, 1.0]);
        assert!((perfect.average() - (0.125 + 0.75)).abs() < 1e-12);
        assert_eq!(perfect.calls_for(0.5), Some(0.125));
        assert_eq!(perfect.calls_for(1.0), Some(0.25));
        let inverse = ranked([1.0, 2.0, 3.0, 4.0]);
        assert!((inverse.average() - 0.125).abs() < 1e-12);
        let blind = ranked([1.0; 4]);
        assert!((blind.average() - 0.5).abs() < 1e-12);
        assert_eq!(blind.calls_for(0.8), Some(0.8));
        assert_eq!(blind.calls_for(1.1), None);
        assert_eq!(blind.calls_for(0.0), Some(0.0));
    }

    #[test]
    fn a_curve_may_rise_above_the_strong_model_and_no_gap_is_none() {
        // The strong model loses on the second row: stopping before it recovers twice the gap.
        let above = recovery(&[(3.0, 0.0, 1.0), (2.0, 0.0, 1.0), (1.0, 1.0, 0.0)]).unwrap();
        assert_eq!(above.curve.last(), Some(&(1.0, 1.0)));
        assert!((above.curve[2].1 - 2.0).abs() < 1e-12);
        assert_eq!(recovery(&[(1.0, 0.5, 0.5)]), None);
        assert_eq!(recovery(&[]), None);
    }
}
