//! Ridge regression of what calls cost and take on the dense inputs, beyond what the size of a prompt
//! says.
//!
//! Of each model and each of ln(tokens out), ln(cost) and ln(latency): the target y and every input are
//! first freed of their line over s = ln(prompt bytes), as the online forecast draws it; then w minimises
//! Σ (ỹ − x̃·w)² + α‖w‖² (Frisch & Waugh 1933: the same w as with the line fitted beside it). The inputs
//! keep the scale that the encoder gave them, so what rarely varies is drawn to zero more. The moments
//! are added up in f64 by parts of the rows and the system is solved directly, so the bits do not depend
//! on the machine.
//!
//! What is not known (a zero in the row) is left out, never taken for a small number. How far a head may
//! be trusted is told by rows that were held out: it is multiplied by the factor that fits them best,
//! from nothing to whole. A head that helps nothing there, or had too few rows, stays without weights.

#![expect(clippy::indexing_slicing, reason = "moments of a number of variables that is fixed when they are made")]

use ndarray::ArrayView2;
use pointsman_router::expense::{Expense, LeanHead, ModelExpense};
use serde::{Deserialize, Serialize};

use super::sparse::{PARTS, side_by_side};
use crate::packed::solved;

/// What is forecast: tokens out, cost, latency.
pub const TARGETS: usize = 3;

/// What a call of one model on one row came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spent {
    /// The model's lane.
    pub lane: usize,
    /// The logarithms of tokens out, cost in nano-dollars and latency in microseconds, where they are known.
    pub logs: [Option<f64>; TARGETS],
}

/// The rows of a fit: their dense inputs without the constant, and beside each what it says.
#[derive(Debug, Clone, Copy)]
pub struct SpentRows<'a> {
    /// One row each.
    pub inputs: ArrayView2<'a, f32>,
    /// ln(prompt bytes), and the calls.
    pub calls: &'a [(f64, &'a [Spent])],
    /// The rows before this one are fitted first, and those from it on are held out.
    pub kept: usize,
}

/// On held-out rows: the share of the variance about the line over the size that a head explains.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Explained {
    /// Of ln(tokens out); absent where too few rows say.
    pub tokens_out: Option<f64>,
    /// Of ln(cost).
    pub cost: Option<f64>,
    /// Of ln(latency).
    pub latency: Option<f64>,
}

/// α.
const ALPHA: f64 = 4.0;
/// A head is fitted from so many rows on, and judged by so many.
const FITTED_MIN: f64 = 30.0;
const JUDGED_MIN: f64 = 10.0;
/// Held-out rows' worth of doubt about whether a head says anything.
const DOUBT_ROWS: f64 = 4.0;
/// What the online line adds to the spread of the sizes, so that a few calls make none.
const SLOPE_RIDGE: f64 = 8.0;

/// Fits the heads of so many lanes, and says what each explains.
#[must_use]
pub fn expense(rows: &SpentRows<'_>, lanes: usize) -> (Expense, Vec<Explained>) {
    let heads = lanes * TARGETS;
    let before = moments(rows, heads, |row| row < rows.kept);
    let first: Vec<Option<Line>> = before.iter().map(Line::fit).collect();
    let judged = judge(rows, &first);
    let after = moments(rows, heads, |row| row >= rows.kept);
    let all = before.into_iter().zip(&after).map(|(mut all, more)| {
        all.merge(more);
        all
    });
    let mut found = all.zip(&judged).map(|(all, judged)| finished(&all, judged));
    let (mut models, mut told) = (Vec::with_capacity(lanes), Vec::with_capacity(lanes));
    for _ in 0..lanes {
        let mut next = || found.next().unwrap_or_default();
        let ((tokens_out, t), (cost, c), (latency, l)) = (next(), next(), next());
        models.push(ModelExpense { tokens_out, cost, latency });
        told.push(Explained { tokens_out: t, cost: c, latency: l });
    }
    (Expense { models }, told)
}

/// Count and second moments of the variables 1, s, each input, y: a packed lower triangle.
#[derive(Debug, Clone)]
struct Moments {
    variables: usize,
    triangle: Vec<f64>,
}

impl Moments {
    fn new(inputs: usize) -> Self {
        let variables = inputs + 3;
        Self { variables, triangle: vec![0.0; variables * (variables + 1) / 2] }
    }

    fn add(&mut self, row: &[f64]) {
        let mut rest = self.triangle.as_mut_slice();
        for (i, x) in row.iter().enumerate() {
            let (line, below) = rest.split_at_mut(i + 1);
            line.iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
            rest = below;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.triangle.iter_mut().zip(&other.triangle).for_each(|(sum, more)| *sum += more);
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        let (i, j) = (i.max(j), i.min(j));
        self.triangle[i * (i + 1) / 2 + j]
    }

    fn count(&self) -> f64 {
        self.at(0, 0)
    }

    fn mean(&self, i: usize) -> f64 {
        self.at(i, 0) / self.count()
    }

    /// Σ of the product of two variables about their means.
    fn about(&self, i: usize, j: usize) -> f64 {
        self.at(i, j) - self.at(i, 0) * self.mean(j)
    }
}

/// The moments of every head, over the rows that are wanted.
fn moments(rows: &SpentRows<'_>, heads: usize, wanted: impl Fn(usize) -> bool + Sync) -> Vec<Moments> {
    let part = |first: usize| {
        let mut sums = vec![Moments::new(rows.inputs.ncols()); heads];
        let mut variables = Vec::with_capacity(rows.inputs.ncols() + 3);
        let mine = rows.inputs.rows().into_iter().zip(rows.calls).enumerate().skip(first).step_by(PARTS);
        for (_, (inputs, (size, spent))) in mine.filter(|(row, _)| wanted(*row)) {
            for (head, log) in spoken(spent) {
                variables.clear();
                variables.extend([1.0, *size]);
                variables.extend(inputs.iter().map(|x| f64::from(*x)));
                variables.push(log);
                if let Some(sums) = sums.get_mut(head) {
                    sums.add(&variables);
                }
            }
        }
        sums
    };
    let mut parts = side_by_side(part).into_iter();
    let mut all = parts.next().unwrap_or_default();
    parts.for_each(|part| all.iter_mut().zip(&part).for_each(|(sum, more)| sum.merge(more)));
    all
}

/// What a row says of which head.
fn spoken(spent: &[Spent]) -> impl Iterator<Item = (usize, f64)> {
    spent.iter().flat_map(|of| {
        of.logs.iter().enumerate().filter_map(|(target, log)| Some((of.lane * TARGETS + target, (*log)?)))
    })
}

/// The line of y over the size, and the weights beside it.
#[derive(Debug, Clone)]
struct Line {
    /// Mean and slope of y.
    level: f64,
    slope: f64,
    /// The mean size.
    size: f64,
    /// The weights, and the line of what they say.
    weights: Vec<f64>,
    lean_level: f64,
    lean_slope: f64,
}

impl Line {
    /// `None` where too few rows say.
    fn fit(sums: &Moments) -> Option<Self> {
        if sums.count() < FITTED_MIN {
            return None;
        }
        let (inputs, y) = (sums.variables - 3, sums.variables - 1);
        let spread = sums.about(1, 1);
        let slope = |of: usize| sums.about(of, 1) / (spread + SLOPE_RIDGE);
        let slopes: Vec<f64> = (2..sums.variables).map(slope).collect();
        let y_slope = slope(y);
        // Σ of the product of two variables freed of their lines.
        let freed = |i: usize, j: usize| {
            let (a, b) = (slopes[i - 2], slopes[j - 2]);
            sums.about(i, j) - a * sums.about(j, 1) - b * sums.about(i, 1) + a * b * spread
        };
        let mut triangle = Vec::with_capacity(inputs * (inputs + 1) / 2);
        for i in 0..inputs {
            triangle.extend((0..i).map(|j| freed(i + 2, j + 2)));
            triangle.push(freed(i + 2, i + 2).max(0.0) + ALPHA);
        }
        let weights = solved(triangle, (2..y).map(|i| freed(i, y)).collect());
        let size = sums.mean(1);
        let sum = |of: &dyn Fn(usize) -> f64| weights.iter().enumerate().map(|(i, w)| w * of(i)).sum::<f64>();
        let (lean_level, lean_slope) = (sum(&|i| sums.mean(i + 2)), sum(&|i| slopes[i]));
        Some(Self { level: sums.mean(y), slope: y_slope, size, weights, lean_level, lean_slope })
    }

    /// y less its line, and the lean: what the weights say less its line.
    fn apart(&self, size: f64, inputs: impl Iterator<Item = f64>, y: f64) -> (f64, f64) {
        let said: f64 = self.weights.iter().zip(inputs).map(|(w, x)| w * x).sum();
        let beyond = size - self.size;
        (y - self.level - self.slope * beyond, said - self.lean_level - self.lean_slope * beyond)
    }
}

/// Of held-out pairs of what was left of y and of the lean: count, sums, sums of products.
#[derive(Debug, Clone, Copy, Default)]
struct Judged {
    n: f64,
    sums: [f64; 2],
    products: [f64; 3],
}

impl Judged {
    fn add(&mut self, (rest, lean): (f64, f64)) {
        self.n += 1.0;
        self.sums = [self.sums[0] + rest, self.sums[1] + lean];
        let [rr, rl, ll] = self.products;
        self.products = [rr + rest * rest, rl + rest * lean, ll + lean * lean];
    }

    /// The factor of the lean, and the share of the variance that it explains. About the means: a level that
    /// moved since is the online line's to follow.
    fn verdict(&self) -> Option<(f64, f64)> {
        let ([r, l], [rr, rl, ll]) = (self.sums, self.products);
        let (rr, rl, ll) = (rr - r * r / self.n, rl - r * l / self.n, ll - l * l / self.n);
        if self.n < JUDGED_MIN || rr <= 0.0 || ll <= 0.0 {
            return None;
        }
        let factor = (rl / (ll + DOUBT_ROWS * rr / self.n)).clamp(0.0, 1.0);
        Some((factor, (2.0 * factor * rl - factor * factor * ll) / rr))
    }
}

fn judge(rows: &SpentRows<'_>, lines: &[Option<Line>]) -> Vec<Judged> {
    let mut judged = vec![Judged::default(); lines.len()];
    for (inputs, (size, spent)) in rows.inputs.rows().into_iter().zip(rows.calls).skip(rows.kept) {
        for (head, log) in spoken(spent) {
            if let (Some(Some(line)), Some(judged)) = (lines.get(head), judged.get_mut(head)) {
                judged.add(line.apart(*size, inputs.iter().map(|x| f64::from(*x)), log));
            }
        }
    }
    judged
}

/// The head of all rows, as far as those that were held out trust it; and what it explains of them.
fn finished(all: &Moments, judged: &Judged) -> (LeanHead, Option<f64>) {
    let Some((factor, explained)) = judged.verdict() else { return (LeanHead::default(), None) };
    let Some(line) = Line::fit(all).filter(|_| factor > 0.0) else { return (LeanHead::default(), Some(0.0)) };
    let constant = line.lean_slope * line.size - line.lean_level;
    let weights = std::iter::once(&constant).chain(&line.weights).map(|w| narrow(factor * w)).collect();
    (LeanHead { weights, slope: narrow(factor * line.lean_slope) }, Some(explained))
}

#[expect(clippy::cast_possible_truncation, reason = "reckoned in f64, stored as f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

#[cfg(test)]
mod tests;
