//! What a policy would have done at a logged decision, from the sets that it could draw there.

use super::estimate::Plan;

/// One set that a policy may draw: its members, the first pick first, and with which probability.
/// Sets with the same members add up, in whatever order they come.
#[derive(Debug, Clone, PartialEq)]
pub struct Chance {
    /// The members, as indices of models.
    pub set: Vec<usize>,
    /// The probability of drawing it.
    pub probability: f64,
}

/// What is known of sets at one logged decision.
pub trait Known {
    /// The modelled reward of a set.
    fn reward(&self, set: &[usize]) -> f64;
    /// The modelled cost of a set.
    fn cost(&self, set: &[usize]) -> f64;
    /// Whether the log could have drawn it.
    fn was_possible(&self, set: &[usize]) -> bool;
}

/// The plan of a policy that draws from these chances where the log drew `logged`.
#[must_use]
pub fn plan(chances: &[Chance], logged: &[usize], known: &impl Known) -> Plan {
    let logged = sorted(logged);
    let mut plan = Plan { propensity: 0.0, reward: 0.0, cost: 0.0, unsupported: 0.0 };
    for Chance { set, probability } in chances.iter().filter(|chance| chance.probability > 0.0) {
        plan.reward += probability * known.reward(set);
        plan.cost += probability * known.cost(set);
        if sorted(set) == logged {
            plan.propensity += probability;
        } else if !known.was_possible(set) {
            plan.unsupported += probability;
        }
    }
    // Sums of many small probabilities may end a rounding above one.
    plan.propensity = plan.propensity.min(1.0);
    plan.unsupported = plan.unsupported.min(1.0);
    plan
}

fn sorted(set: &[usize]) -> Vec<usize> {
    let mut set = set.to_vec();
    set.sort_unstable();
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Model i scores i/10 and costs i; only sets without model 3 could be drawn.
    struct World;

    impl Known for World {
        fn reward(&self, set: &[usize]) -> f64 {
            set.iter().map(|at| *at as f64 / 10.0).sum()
        }

        fn cost(&self, set: &[usize]) -> f64 {
            set.iter().map(|at| *at as f64).sum()
        }

        fn was_possible(&self, set: &[usize]) -> bool {
            !set.contains(&3)
        }
    }

    #[test]
    fn equal_sets_add_up_and_impossible_ones_are_counted() {
        let chance = |set: &[usize], probability| Chance { set: set.to_vec(), probability };
        let chances = [chance(&[1, 2], 0.5), chance(&[2, 1], 0.2), chance(&[3], 0.3), chance(&[4], 0.0)];
        let found = plan(&chances, &[1, 2], &World);
        let expected = [0.7, 0.7 * 0.3 + 0.3 * 0.3, 0.7 * 3.0 + 0.3 * 3.0, 0.3];
        for (got, wanted) in [found.propensity, found.reward, found.cost, found.unsupported].iter().zip(expected) {
            assert!((got - wanted).abs() < 1e-12, "{found:?}");
        }
    }
}
