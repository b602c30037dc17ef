//! How honest probabilities are: expected calibration error, Brier score, and the bins between.

/// Bins of the expected calibration error.
pub const BINS: usize = 15;

/// A prediction and what came of it, both in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The predicted probability of being right.
    pub probability: f64,
    /// One for right, zero for wrong, or a score between.
    pub score: f64,
}

/// Predictions of about one probability.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// How many.
    pub count: u64,
    /// Their mean probability; zero for none.
    pub probability: f64,
    /// Their mean score; zero for none.
    pub score: f64,
}

/// How honest some predictions are.
#[derive(Debug, Clone, PartialEq)]
pub struct Calibration {
    /// Expected calibration error: the mean over predictions of their bin's |probability − score|.
    pub expected_error: f64,
    /// Mean squared difference of probability and score.
    pub brier: f64,
    /// [`BINS`] bins of equal width; the upper end of each belongs to the next, but for the last.
    pub bins: Vec<Bin>,
}

/// Measures predictions; those that are no numbers are left out, `None` when none is left.
#[must_use]
pub fn calibration(predictions: &[Prediction]) -> Option<Calibration> {
    let mut bins = vec![Bin::default(); BINS];
    let (mut count, mut squares) = (0_u64, 0.0);
    for Prediction { probability, score } in predictions {
        if !(probability.is_finite() && score.is_finite()) {
            continue;
        }
        let probability = probability.clamp(0.0, 1.0);
        count += 1;
        squares += (probability - score).powi(2);
        if let Some(bin) = bins.get_mut(bin_of(probability)) {
            bin.count += 1;
            bin.probability += probability;
            bin.score += score;
        }
    }
    let mut apart = 0.0;
    for bin in bins.iter_mut().filter(|bin| bin.count > 0) {
        apart += (bin.probability - bin.score).abs();
        bin.probability /= bin.count as f64;
        bin.score /= bin.count as f64;
    }
    let all = count as f64;
    (count > 0).then(|| Calibration { expected_error: apart / all, brier: squares / all, bins })
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a probability times fifteen, held to the bins that there are"
)]
fn bin_of(probability: f64) -> usize {
    ((probability * BINS as f64) as usize).min(BINS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(f64, f64)], expected_error: f64, brier: f64) {
        let predictions: Vec<Prediction> = pairs
            .iter()
            .map(|(probability, score)| Prediction { probability: *probability, score: *score })
            .collect();
        let found = calibration(&predictions).unwrap();
        assert!((found.expected_error - expected_error).abs() < 1e-12, "{found:?}");
        assert!((found.brier - brier).abs() < 1e-12, "{found:?}");
        assert_eq!(found.bins.iter().map(|bin| bin.count).sum::<u64>(), pairs.len() as u64);
    }

    #[test]
    fn closed_forms() {
        check(&[(1.0, 1.0), (0.0, 0.0)], 0.0, 0.0);
        check(&[(1.0, 0.0), (0.0, 1.0)], 1.0, 1.0);
        // A fair coin that is called one: perfectly calibrated, and still a Brier score of a quarter.
        check(&[(0.5, 0.0), (0.5, 1.0)], 0.0, 0.25);
        // Two bins: .9 against .5 with two predictions, .1 against 0 with one.
        check(&[(0.9, 1.0), (0.9, 0.0), (0.1, 0.0)], (2.0 * 0.4 + 0.1) / 3.0, (0.01 + 0.81 + 0.01) / 3.0);
        check(&[(0.7, 0.4)], 0.3, 0.09);
    }

    #[test]
    fn the_ends_have_their_bins_and_nonsense_is_left_out() {
        assert_eq!((bin_of(0.0), bin_of(1.0), bin_of(0.999_999)), (0, BINS - 1, BINS - 1));
        assert_eq!(bin_of(7.0 / 15.0), 7);
        let nonsense = Prediction { probability: f64::NAN, score: 1.0 };
        assert_eq!(calibration(&[nonsense]), None);
        assert_eq!(calibration(&[]), None);
    }
}
