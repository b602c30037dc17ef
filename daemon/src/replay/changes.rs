//! What changes on the way: models that go, come, grow worse or change their price.
//!
//! Rows are counted from zero in the order in which they are routed. Of the entries of one model and
//! one kind, the one with the latest row that has been reached is in force, and of two with the same
//! row the one given last; so `--degrade m@100=0.2 --degrade m@200=0` is a fault that lasts a hundred
//! rows. A model that is first named by `--add` is absent before.

use std::collections::BTreeSet;

use pointsman_router::money::NanoUsd;

use super::args::{ADD, DEGRADE, DROP, REPRICE, ReplayArgs, ReplayError};
use super::at::At;
use crate::backends::recorded_rows::{Recorded, Row};

/// The changes of one model, each by row.
#[derive(Debug, Clone, Default)]
struct OfModel {
    present: Vec<(usize, bool)>,
    delta: Vec<(usize, f64)>,
    factor: Vec<(usize, f64)>,
}

/// All changes, by the model's place in the pool.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes(Vec<OfModel>);

impl Changes {
    /// The changes that the arguments name, of these models, on so many routed rows.
    ///
    /// # Errors
    /// [`ReplayError::UnknownModel`] and [`ReplayError::BeyondEnd`].
    pub(super) fn new(args: &ReplayArgs, models: &[String], rows: usize) -> Result<Self, ReplayError> {
        let place = |flag, at: &At| {
            let unknown = || ReplayError::UnknownModel { flag, model: at.model.clone(), known: models.to_vec() };
            let place = models.iter().position(|model| *model == at.model).ok_or_else(unknown)?;
            if at.row < rows {
                return Ok(place);
            }
            Err(ReplayError::BeyondEnd { flag, model: at.model.clone(), row: at.row, rows })
        };
        let mut all = vec![OfModel::default(); models.len()];
        for (flag, entries, present) in [(DROP, &args.drop, false), (ADD, &args.add, true)] {
            for at in entries {
                let of = all.get_mut(place(flag, at)?);
                of.into_iter().for_each(|of| of.present.push((at.row, present)));
            }
        }
        for of in &args.degrade {
            let at = all.get_mut(place(DEGRADE, &of.at)?);
            at.into_iter().for_each(|at| at.delta.push((of.at.row, of.value)));
        }
        for of in &args.reprice {
            let at = all.get_mut(place(REPRICE, &of.at)?);
            at.into_iter().for_each(|at| at.factor.push((of.at.row, of.value)));
        }
        Ok(Self(all))
    }

    /// The rows at which something changes, and the first; ascending.
    pub(super) fn phases(&self) -> Vec<usize> {
        let rows = self.0.iter().flat_map(|of| {
            let present = of.present.iter().map(|(row, _)| *row);
            present.chain(of.delta.iter().chain(&of.factor).map(|(row, _)| *row))
        });
        rows.chain([0]).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether anything changes at all.
    pub(super) fn any(&self) -> bool {
        self.0.iter().any(|of| !(of.present.is_empty() && of.delta.is_empty() && of.factor.is_empty()))
    }

    /// The row as it would have been recorded at this place of the order.
    pub(super) fn apply(&self, mut row: Row, at: usize) -> Row {
        for (of, outcome) in self.0.iter().zip(&mut row.outcomes) {
            let first_comes = of.present.iter().min_by_key(|(row, _)| *row).is_some_and(|(_, present)| *present);
            if !in_force(&of.present, at).unwrap_or(!first_comes) {
                *outcome = None;
            }
            if let Some(recorded) = outcome {
                alter(recorded, in_force(&of.delta, at), in_force(&of.factor, at));
            }
        }
        row
    }
}

/// The entry with the latest row that has been reached, the last of equals.
fn in_force<T: Copy>(entries: &[(usize, T)], at: usize) -> Option<T> {
    let reached = entries.iter().filter(|(row, _)| *row <= at);
    reached.max_by_key(|(row, _)| *row).map(|(_, value)| *value)
}

fn alter(recorded: &mut Recorded, delta: Option<f64>, factor: Option<f64>) {
    if let Some(delta) = delta {
        recorded.score = (recorded.score - delta).clamp(0.0, 1.0);
    }
    if let Some((factor, cost)) = factor.zip(recorded.cost) {
        // A float to integer cast saturates, so no factor wraps.
        #[expect(clippy::cast_possible_truncation, reason = "rounded, and held at the end of the range")]
        let nanos = (cost.nanos() as f64 * factor).round() as i64;
        recorded.cost = Some(NanoUsd::new(nanos));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{args, recorded};
    use super::*;

    fn changes(flags: &[&str], rows: usize) -> Result<Changes, ReplayError> {
        Changes::new(&args(flags), &["a".to_owned(), "b".to_owned()], rows)
    }

    fn row() -> Row {
        let outcomes = vec![Some(recorded(0.75, 1_000)), Some(recorded(0.5, 3))];
        Row { id: "1".to_owned(), task: String::new(), prompt: "p".to_owned(), gold: None, outcomes }
    }

    /// Score and cost of model a at each of six rows; `None` where it is gone.
    fn check(flags: &[&str], expected: [Option<(f64, i64)>; 6]) {
        let changes = changes(flags, 6).unwrap();
        for (at, expected) in expected.into_iter().enumerate() {
            let now = changes.apply(row(), at);
            let a = now.outcomes[0].as_ref().map(|a| (a.score, a.cost.unwrap().nanos()));
            assert_eq!(a, expected, "{flags:?} at {at}");
            assert_eq!(now.outcomes[1], row().outcomes[1], "the other is as it was");
        }
    }

    #[test]
    fn the_latest_entry_is_in_force() {
        let (same, low) = (Some((0.75, 1_000)), Some((0.25, 1_000)));
        check(&[], [same; 6]);
        check(&["--degrade", "a@4=0", "--degrade", "a@2=0.5"], [same, same, low, low, same, same]);
        let clamped = Some((0.0, 1_000));
        check(&["--degrade", "a@0=0.8", "--degrade", "a@3=-2"], [clamped, clamped, clamped, TOP, TOP, TOP]);
        let dear = Some((0.75, 10_500));
        check(&["--reprice", "a@1=10.5", "--reprice", "a@3=1"], [same, dear, dear, same, same, same]);
        check(&["--reprice", "a@2=3", "--reprice", "a@2=10.5"], [same, same, dear, dear, dear, dear]);
    }

    const TOP: Option<(f64, i64)> = Some((1.0, 1_000));

    #[test]
    fn models_go_and_come() {
        let same = Some((0.75, 1_000));
        check(&["--drop", "a@2"], [same, same, None, None, None, None]);
        check(&["--add", "a@2"], [None, None, same, same, same, same]);
        check(&["--drop", "a@1", "--add", "a@3"], [same, None, None, same, same, same]);
        check(&["--add", "a@1", "--drop", "a@3"], [None, same, same, None, None, None]);
    }

    #[test]
    fn phases_begin_where_something_changes() {
        assert_eq!(changes(&[], 9).unwrap().phases(), [0]);
        assert!(!changes(&[], 9).unwrap().any());
        let all = ["--drop", "a@5", "--degrade", "b@2=0.1", "--reprice", "b@5=2", "--add", "b@1"];
        assert_eq!(changes(&all, 9).unwrap().phases(), [0, 1, 2, 5]);
        assert!(changes(&all, 9).unwrap().any());
    }

    #[test]
    fn changes_that_cannot_come_are_refused() {
        for flag in ["--drop", "--add", "--degrade", "--reprice"] {
            let value = if flag == "--degrade" || flag == "--reprice" { "=1" } else { "" };
            let of = |what: &str| changes(&[flag, &format!("{what}{value}")], 6).unwrap_err();
            assert!(matches!(of("c@1"), ReplayError::UnknownModel { flag: f, .. } if f == flag));
            assert!(matches!(of("a@6"), ReplayError::BeyondEnd { flag: f, row: 6, rows: 6, .. } if f == flag));
        }
    }
}
