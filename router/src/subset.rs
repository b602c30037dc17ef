//! Completing a set from its first model, by the predicted accuracy of the weighted vote.
//!
//! The first model is drawn; everything here is a pure function of it and of the mean scores, so for
//! every first pick the set is known and the set's propensity is exact. A set grows while the gain in
//! predicted accuracy is worth the price. Two votes never beat the better one of them, so a step
//! may add two members at once; otherwise no set would ever grow from one to three.
//!
//! # The predicted accuracy
//!
//! Members are taken as independent. Every pattern of right and wrong members is enumerated; the
//! right ones vote together with the sum of their weights ln(q(L−1)/(1−q)), L being the number of
//! plausible answers (Nitzan & Paroush 1982). The wrong ones, n of them, all give different answers
//! with probability Π(1 − i/(L−1)), i < n, and are else taken to meet in one answer, all of them:
//! exact for up to three members, pessimistic above. A tie is shared evenly.
//!
//! # Bounds
//!
//! At most [`CALLS_LIMIT`] members; each step looks at the few best of the others, so a growth costs
//! at most some thousand patterns. The first model is never left out, whatever it costs: it was
//! eligible by itself.

use crate::money::NanoUsd;
use crate::settings::CALLS_LIMIT;

/// A contender as the growth sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Member {
    /// The mean probability of being right.
    pub quality: f64,
    /// The expected price of a call, in probabilities of being right.
    pub price: f64,
    /// The most that its attempts can cost.
    pub worst_case: NanoUsd,
}

/// What ends a growth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Members at most; never more than [`CALLS_LIMIT`].
    pub calls_max: usize,
    /// What all worst cases together may cost.
    pub ceiling: NanoUsd,
    /// No further member once the predicted accuracy reaches this.
    pub quality_threshold: Option<f64>,
    /// How many distinct answers are plausible: the number of allowed labels, else about ten.
    pub answers: f64,
}

/// Others that one step looks at, for sets of up to three members and for larger ones.
const SHORTLIST_SMALL: usize = 6;
const SHORTLIST_LARGE: usize = 4;
/// Gains below this are rounding.
const GAIN_MIN: f64 = 1e-9;

/// The set that grows from this first model, as indices, the first one first.
#[must_use]
pub fn grow(first: usize, members: &[Member], limits: &Limits) -> Vec<usize> {
    let calls_max = limits.calls_max.min(CALLS_LIMIT as usize);
    let mut set = vec![first];
    let Some(start) = members.get(first).filter(|_| calls_max > 1) else { return set };
    let mut vote = Vote::new(limits.answers);
    vote.add(start.quality);
    let mut left = limits.ceiling.saturating_sub(start.worst_case);
    let mut accuracy = vote.accuracy();
    while set.len() < calls_max && limits.quality_threshold.is_none_or(|wanted| accuracy < wanted) {
        let others =
            shortlist(&set, members, left, if calls_max <= 3 { SHORTLIST_SMALL } else { SHORTLIST_LARGE });
        let Some(step) = best_step(&vote, &others, left, calls_max - set.len()) else { break };
        if step.gain - accuracy <= GAIN_MIN {
            break;
        }
        for (at, member) in step.added.into_iter().flatten() {
            set.push(at);
            vote.add(member.quality);
            left = left.saturating_sub(member.worst_case);
        }
        accuracy = vote.accuracy();
    }
    set
}

/// The first model and then those of the list, in its order, as far as calls and ceiling allow. One
/// that does not fit under the ceiling is passed over.
#[must_use]
pub fn listed(first: usize, order: &[usize], members: &[Member], limits: &Limits) -> Vec<usize> {
    let worst_case = |at: usize| members.get(at).map_or(NanoUsd::MAX, |m| m.worst_case);
    let mut set = vec![first];
    let mut left = limits.ceiling.saturating_sub(worst_case(first));
    for at in order {
        if set.len() >= limits.calls_max.min(CALLS_LIMIT as usize) {
            break;
        }
        if !set.contains(at) && worst_case(*at) <= left {
            set.push(*at);
            left = left.saturating_sub(worst_case(*at));
        }
    }
    set
}

/// The predicted accuracy of the weighted vote of members with these qualities, of whom the first
/// [`CALLS_LIMIT`] count; zero for nobody.
#[must_use]
pub fn predicted_accuracy(qualities: &[f64], answers: f64) -> f64 {
    let mut vote = Vote::new(answers);
    qualities.iter().take(CALLS_LIMIT as usize).for_each(|quality| vote.add(*quality));
    vote.accuracy()
}

/// One member, or two, that a step would add.
struct Step {
    added: [Option<(usize, Member)>; 2],
    /// The accuracy after it, less the price of what it adds.
    gain: f64,
}

/// The few others that could join, best utility first.
fn shortlist(set: &[usize], members: &[Member], left: NanoUsd, size: usize) -> Vec<(usize, Member)> {
    let mut others: Vec<(usize, Member)> = members
        .iter()
        .copied()
        .enumerate()
        .filter(|(at, member)| !set.contains(at) && member.worst_case <= left)
        .collect();
    let utility = |m: &Member| m.quality - m.price;
    others.sort_by(|(i, a), (j, b)| utility(b).total_cmp(&utility(a)).then(i.cmp(j)));
    others.truncate(size);
    others
}

/// The step after which accuracy less price is highest; of equal ones the first, so the better.
fn best_step(vote: &Vote, others: &[(usize, Member)], left: NanoUsd, room: usize) -> Option<Step> {
    let mut best: Option<Step> = None;
    let mut offer = |step: Step| {
        if best.as_ref().is_none_or(|b| step.gain > b.gain + GAIN_MIN) {
            best = Some(step);
        }
    };
    for (i, one) in others.iter().enumerate() {
        let with_one = vote.with(one.1.quality);
        offer(Step { added: [Some(*one), None], gain: with_one.accuracy() - one.1.price });
        if room < 2 {
            continue;
        }
        for two in others.iter().skip(i + 1) {
            if one.1.worst_case.saturating_add(two.1.worst_case) <= left {
                let gain = with_one.accuracy_with(two.1.quality) - one.1.price - two.1.price;
                offer(Step { added: [Some(*one), Some(*two)], gain });
            }
        }
    }
    best
}

/// One pattern of right and wrong members.
#[derive(Debug, Clone, Copy)]
struct Pattern {
    probability: f64,
    /// The weight of those who are right.
    right: f64,
    /// The weight of all who are wrong.
    wrong_sum: f64,
    /// The weight of the heaviest who is wrong.
    wrong_max: f64,
    /// How many who are wrong have that weight.
    wrong_heaviest: f64,
    /// How many are wrong.
    wrong_count: f64,
    /// The probability that they all give different answers.
    apart: f64,
}

impl Pattern {
    /// With one more who is wrong.
    fn wrong(&self, probability: f64, weight: f64, wrong_answers: f64) -> Self {
        let above = weight - self.wrong_max;
        let (wrong_max, wrong_heaviest) = if above > GAIN_MIN {
            (weight, 1.0)
        } else if above > -GAIN_MIN {
            (self.wrong_max, self.wrong_heaviest + 1.0)
        } else {
            (self.wrong_max, self.wrong_heaviest)
        };
        Self {
            probability: self.probability * probability,
            right: self.right,
            wrong_sum: self.wrong_sum + weight,
            wrong_max,
            wrong_heaviest,
            wrong_count: self.wrong_count + 1.0,
            apart: self.apart * (1.0 - self.wrong_count / wrong_answers).max(0.0),
        }
    }

    /// The part of its probability in which the right answer wins.
    fn won(&self) -> f64 {
        let meet = beats(self.right, self.wrong_sum, 1.0);
        self.probability * (meet + self.apart * (beats(self.right, self.wrong_max, self.wrong_heaviest) - meet))
    }
}

/// All patterns of some members.
#[derive(Debug, Clone)]
struct Vote {
    patterns: Vec<Pattern>,
    /// L − 1.
    wrong_answers: f64,
}

/// Below this a member casts as good as no vote.
const WEIGHT_MIN: f64 = 1e-6;

impl Vote {
    fn new(answers: f64) -> Self {
        let nobody = Pattern {
            probability: 1.0,
            right: 0.0,
            wrong_sum: 0.0,
            wrong_max: 0.0,
            wrong_heaviest: 0.0,
            wrong_count: 0.0,
            apart: 1.0,
        };
        Self { patterns: vec![nobody], wrong_answers: (answers - 1.0).max(1.0) }
    }

    /// The probability held within [.001, .999], and the weight made of it.
    fn weigh(&self, quality: f64) -> (f64, f64) {
        let q = if quality.is_nan() { 0.0 } else { quality }.clamp(0.001, 0.999);
        (q, (q * self.wrong_answers / (1.0 - q)).ln().max(WEIGHT_MIN))
    }

    fn extended(&self, quality: f64) -> impl Iterator<Item = Pattern> {
        let (q, weight) = self.weigh(quality);
        self.patterns.iter().flat_map(move |p| {
            [
                Pattern { probability: p.probability * q, right: p.right + weight, ..*p },
                p.wrong(1.0 - q, weight, self.wrong_answers),
            ]
        })
    }

    fn with(&self, quality: f64) -> Self {
        let mut patterns = Vec::with_capacity(2 * self.patterns.len());
        patterns.extend(self.extended(quality));
        Self { patterns, wrong_answers: self.wrong_answers }
    }

    fn add(&mut self, quality: f64) {
        *self = self.with(quality);
    }

    fn accuracy(&self) -> f64 {
        self.patterns.iter().map(Pattern::won).sum()
    }

    fn accuracy_with(&self, quality: f64) -> f64 {
        self.extended(quality).map(|p| p.won()).sum()
    }
}

/// 1 for more weight, an even share for as much as each of the rivals; nothing for no weight at all.
fn beats(right: f64, wrong: f64, rivals: f64) -> f64 {
    if right > wrong + GAIN_MIN {
        1.0
    } else if right > wrong - GAIN_MIN && right > 0.0 {
        1.0 / (1.0 + rivals)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Draw;

    fn member(quality: f64, price: f64) -> Member {
        Member { quality, price, worst_case: NanoUsd::new(10) }
    }

    fn limits(calls_max: usize) -> Limits {
        Limits { calls_max, ceiling: NanoUsd::MAX, quality_threshold: None, answers: 10.0 }
    }

    /// Independent members who, when wrong, give any wrong answer alike; ties are broken by a coin.
    fn monte_carlo(qualities: &[f64], answers: usize, draws: u32) -> f64 {
        let mut draw = Draw::from_seed(11);
        let mut right = 0_u32;
        for _ in 0..draws {
            let mut scores = vec![0.0_f64; answers];
            for q in qualities {
                let said =
                    if draw.uniform() < *q { 0 } else { 1 + draw.index((1..answers).map(|_| 1.0)).unwrap() };
                scores[said] +=
                    (q * (answers - 1) as f64 / (1.0 - q)).ln().max(WEIGHT_MIN) + 1e-12 * draw.uniform();
            }
            right += u32::from(scores[1..].iter().all(|s| *s < scores[0]));
        }
        f64::from(right) / f64::from(draws)
    }

    #[test]
    fn the_prediction_is_exact_for_three_and_pessimistic_for_more() {
        for qualities in
            [&[0.7][..], &[0.7, 0.7], &[0.8, 0.6], &[0.6, 0.6, 0.6], &[0.9, 0.6, 0.55], &[0.5, 0.4, 0.3]]
        {
            for answers in [2_usize, 4, 10] {
                let (got, expected) =
                    (predicted_accuracy(qualities, answers as f64), monte_carlo(qualities, answers, 200_000));
                assert!((got - expected).abs() < 4e-3, "{qualities:?} {answers}: {got} {expected}");
            }
        }
        for qualities in [&[0.6; 5][..], &[0.8, 0.7, 0.6, 0.5], &[0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.5, 0.6]] {
            for answers in [2_usize, 4, 10] {
                let (got, expected) =
                    (predicted_accuracy(qualities, answers as f64), monte_carlo(qualities, answers, 50_000));
                assert!(
                    got < expected + 8e-3 && got > expected - 0.13,
                    "{qualities:?} {answers}: {got} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_set_grows_from_one_to_three_past_two_that_gain_nothing() {
        let members = [member(0.6, 0.0), member(0.6, 0.0), member(0.6, 0.0), member(0.3, 0.0)];
        assert_eq!(grow(0, &members, &limits(1)), [0]);
        assert_eq!(grow(0, &members, &limits(2)), [0]);
        assert_eq!(grow(0, &members, &limits(3)), [0, 1, 2]);
        // The same, but the gain is less than two more calls cost.
        let dear = members.map(|m| member(m.quality, 0.2));
        assert_eq!(grow(0, &dear, &limits(3)), [0]);
    }

    #[test]
    fn a_weak_first_pick_calls_in_a_better_one() {
        let members = [member(0.3, 0.0), member(0.9, 0.05), member(0.8, 0.0)];
        assert_eq!(grow(0, &members, &limits(2)), [0, 1]);
    }

    #[test]
    fn growth_ends_at_the_threshold_and_at_the_ceiling() {
        let members = [member(0.7, 0.0); 8];
        let reached = Limits { quality_threshold: Some(0.69), ..limits(8) };
        assert_eq!(grow(2, &members, &reached), [2]);
        let poor = Limits { ceiling: NanoUsd::new(39), ..limits(8) };
        assert_eq!(grow(2, &members, &poor).len(), 3);
        assert_eq!(listed(2, &[5, 2, 1, 0], &members, &poor), [2, 5, 1]);
        assert_eq!(listed(2, &[5, 2, 1, 0], &members, &limits(2)), [2, 5]);
        assert_eq!(grow(9, &members, &limits(3)), [9], "an unknown first pick is left alone");
    }

    proptest! {
        #[test]
        fn every_growth_is_worth_its_price(
            pairs in prop::collection::vec((0.0..=1.0_f64, 0.0..0.3_f64, 0_i64..100), 1..14),
            calls_max in 1_usize..12,
            ceiling in 50_i64..500,
        ) {
            let members: Vec<Member> =
                pairs.iter().map(|(quality, price, w)| Member { quality: *quality, price: *price, worst_case: NanoUsd::new(*w) }).collect();
            let limits = Limits { ceiling: NanoUsd::new(ceiling), ..limits(calls_max) };
            for first in 0..members.len() {
                let set = grow(first, &members, &limits);
                prop_assert_eq!(set[0], first);
                prop_assert!(set.len() <= calls_max.min(CALLS_LIMIT as usize));
                let mut unique = set.clone();
                unique.sort_unstable();
                unique.dedup();
                prop_assert_eq!(unique.len(), set.len());
                let worst: NanoUsd = set.iter().map(|i| members[*i].worst_case).sum();
                prop_assert!(set.len() == 1 || worst.nanos() <= ceiling);
                let value = |set: &[usize]| {
                    let qualities: Vec<f64> = set.iter().map(|i| members[*i].quality).collect();
                    predicted_accuracy(&qualities, 10.0) - set.iter().map(|i| members[*i].price).sum::<f64>()
                };
                prop_assert!(set.len() == 1 || value(&set) > value(&set[..1]));
                prop_assert_eq!(grow(first, &members, &limits), set);
            }
        }
    }
}
