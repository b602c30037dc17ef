//! Pacing: the price of money that makes it last.
//!
//! A ceiling on spend becomes a weight on cost, the dual variable λ of the budget: with
//! u = q − (w + λ)·cost the policy itself finds out for which requests a dear model is worth its
//! money. λ is not nudged step by step: costs of models differ a hundredfold, and a step that fits
//! the cheap ones would take a thousand requests to answer a dear one. Instead it is solved for: the
//! least λ at which choosing by utility would, over the last few hundred requests with the qualities
//! and costs that were predicted for them, have kept the mean cost at the target (the empirical dual
//! problem, Agrawal & Devanur 2016). What was really spent closes the loop: the target is raised by
//! what was saved and lowered by what was overspent, to be made good over the next
//! [`HORIZON`] requests, and aims at a little credit ([`RESERVE`]).
//!
//! Beside the price stands a hard stop: no request is given more than what was earned and not spent, and
//! an overdraft of [`OVERDRAFT`] requests' worth, as far as cheaper models can serve it. Without the
//! overdraft a dear model's turn would come when there is credit and not when it pays: measured on
//! recorded outcomes, that costs most of what pacing by worth gains. What costs no more than the target is
//! never stopped, since it adds to no debt. Pacing is advice to the policy and a mask before the draw,
//! so propensities stay exact; it is no budget, whose hold is another thing ([`crate::hold`]).

use std::collections::VecDeque;
use std::fmt;

use crate::clock::Timestamp;
use crate::money::NanoUsd;

/// What pacing asks of one decision.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// λ: quality given up per dollar, beyond what the objective says.
    pub cost_weight_per_usd: f64,
    /// The most that a call may be expected to cost; `None`: no limit.
    pub cost_max: Option<NanoUsd>,
}

/// What a model was thought to be worth on a request, and to cost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Offer {
    /// The mean probability of being right.
    pub quality: f64,
    /// The expected cost of a call, in dollars.
    pub cost_usd: f64,
}

/// The port for pacing: asked before a decision, told what was on offer and what it came to.
pub trait Pacer: Send + Sync + fmt::Debug {
    /// What is asked of a decision at this moment.
    fn pace(&self, now: Timestamp) -> Pace;

    /// Takes in what could have been chosen, at which weight of cost beside λ.
    fn offered(&self, offers: &[Offer], cost_weight_per_usd: f64);

    /// Takes in what a request really cost.
    fn spent(&self, cost: NanoUsd, now: Timestamp);
}

/// No pacing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpaced;

impl Pacer for Unpaced {
    fn pace(&self, _: Timestamp) -> Pace {
        Pace::default()
    }

    fn offered(&self, _: &[Offer], _: f64) {}

    fn spent(&self, _: NanoUsd, _: Timestamp) {}
}

/// Requests over which a surplus or a debt is made good.
pub const HORIZON: f64 = 80.0;
/// Credit that is aimed at, in requests' worth.
pub const RESERVE: f64 = 8.0;
/// Credit beyond this, in requests' worth, is let go: what a quiet phase saved is not for the next to spend.
/// Without it a phase of 350 recorded requests spent up to 1.13 of its ceiling on what the two before had saved.
pub const CREDIT_MAX: f64 = 18.0;
/// Debt that one request may lead to, in requests' worth.
pub const OVERDRAFT: f64 = 8.0;
/// Requests whose offers are remembered.
const REMEMBERED: usize = 384;
/// λ is solved for again after so many requests.
const SOLVE_EVERY: u32 = 8;
/// λ is looked for up to this much, in quality per dollar: a micro-dollar then outweighs everything.
const WEIGHT_MAX: f64 = 1e8;
/// Below this, in quality per dollar, cost plays no part.
const WEIGHT_MIN: f64 = 1e-3;
/// Halvings of the logarithm of λ.
const HALVINGS: u32 = 30;

/// λ for a target of mean cost.
#[derive(Debug, Clone, Default)]
pub struct Dual {
    /// What was on offer to the last requests, and the weight of cost they had beside λ.
    seen: VecDeque<(Vec<Offer>, f64)>,
    since_solved: u32,
    weight: f64,
}

impl Dual {
    /// Remembers what a request could choose from.
    pub fn see(&mut self, offers: &[Offer], cost_weight_per_usd: f64) {
        let sound = |offer: &Offer| offer.quality.is_finite() && offer.cost_usd.is_finite();
        if offers.is_empty() || !offers.iter().all(sound) {
            return;
        }
        let mut kept = if self.seen.len() == REMEMBERED {
            self.seen.pop_front().unwrap_or_default()
        } else {
            Default::default()
        };
        kept.0.clear();
        kept.0.extend_from_slice(offers);
        kept.1 = cost_weight_per_usd;
        self.seen.push_back(kept);
        self.since_solved += 1;
    }

    /// λ for this target, in dollars a request; solved for again where enough was seen since.
    pub fn weight(&mut self, target_usd: f64) -> f64 {
        if self.since_solved >= SOLVE_EVERY || (self.weight == 0.0 && self.since_solved > 0) {
            self.weight = self.solve(target_usd);
            self.since_solved = 0;
        }
        self.weight
    }

    /// The least λ at which the mean cost is at most the target; the largest there is where none does it.
    #[must_use]
    pub fn solve(&self, target_usd: f64) -> f64 {
        if self.mean_cost(0.0) <= target_usd {
            return 0.0;
        }
        let (mut low, mut high) = (WEIGHT_MIN.ln(), WEIGHT_MAX.ln());
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if self.mean_cost(middle.exp()) > target_usd {
                low = middle;
            } else {
                high = middle;
            }
        }
        high.exp()
    }

    /// What choosing by utility would have cost on average.
    fn mean_cost(&self, weight: f64) -> f64 {
        let cost_of = |(offers, own): &(Vec<Offer>, f64)| {
            let utility = |offer: &Offer| offer.quality - (own + weight) * offer.cost_usd;
            let better =
                |a: &&Offer, b: &&Offer| utility(a).total_cmp(&utility(b)).then(b.cost_usd.total_cmp(&a.cost_usd));
            offers.iter().max_by(better).map_or(0.0, |offer| offer.cost_usd)
        };
        self.seen.iter().map(cost_of).sum::<f64>() / self.seen.len().max(1) as f64
    }
}

/// Keeps the mean cost of a request at a target, open-ended.
#[derive(Debug, Clone)]
pub struct MeanCost {
    target_usd: f64,
    dual: Dual,
    /// Earned and not spent, in dollars; below zero: overspent.
    credit_usd: f64,
}

impl MeanCost {
    /// Paces to this mean cost of a request.
    #[must_use]
    pub fn new(target: NanoUsd) -> Self {
        Self { target_usd: target.usd().max(0.0), dual: Dual::default(), credit_usd: 0.0 }
    }

    /// What is asked of the next decision.
    pub fn pace(&mut self) -> Pace {
        let surplus = self.credit_usd - RESERVE * self.target_usd;
        let target = (self.target_usd + surplus / HORIZON).max(0.0);
        let earned = (self.credit_usd + OVERDRAFT * self.target_usd).max(self.target_usd);
        Pace {
            cost_weight_per_usd: self.dual.weight(target),
            cost_max: Some(NanoUsd::from_usd(earned).unwrap_or(NanoUsd::MAX)),
        }
    }

    /// λ as it was solved for last.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.dual.weight
    }

    /// Remembers what a request could choose from.
    pub fn offered(&mut self, offers: &[Offer], cost_weight_per_usd: f64) {
        self.dual.see(offers, cost_weight_per_usd);
    }

    /// Earns one request's worth and takes off what it cost.
    pub fn spent(&mut self, cost: NanoUsd) {
        let credit = self.credit_usd + self.target_usd - cost.usd();
        self.credit_usd = credit.min(CREDIT_MAX * self.target_usd);
    }
}

/// Spreads what is left of a window over the requests that it is still going to see.
///
/// How many those are is the rate at which requests came, averaged over some two hundred of them, times
/// the time that is left. There is no hard stop beside it: the window's own budget is one.
#[derive(Debug, Clone, Default)]
pub struct WindowShare {
    dual: Dual,
    last: Option<Timestamp>,
    /// Mean time between requests, in seconds; zero before the second one.
    gap_s: f64,
}

/// Requests over which the rate is averaged.
const RATE_REQUESTS: f64 = 200.0;

impl WindowShare {
    /// What is asked of the next decision of a window with this much left, which ends then.
    pub fn pace(&mut self, left: NanoUsd, ends: Timestamp, now: Timestamp) -> Pace {
        let expected = if self.gap_s > 0.0 { ends.since(now).as_secs_f64() / self.gap_s } else { 0.0 };
        let target = left.usd().max(0.0) / expected.max(1.0);
        Pace { cost_weight_per_usd: self.dual.weight(target), cost_max: None }
    }

    /// Remembers what a request could choose from.
    pub fn offered(&mut self, offers: &[Offer], cost_weight_per_usd: f64) {
        self.dual.see(offers, cost_weight_per_usd);
    }

    /// A request has ended.
    pub fn ended(&mut self, now: Timestamp) {
        if let Some(last) = self.last.replace(now) {
            let gap = now.since(last).as_secs_f64();
            self.gap_s = if self.gap_s > 0.0 { self.gap_s + (gap - self.gap_s) / RATE_REQUESTS } else { gap };
        }
    }

    /// λ as it was solved for last.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.dual.weight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Draw;

    fn offer(quality: f64, cost_usd: f64) -> Offer {
        Offer { quality, cost_usd }
    }

    /// A cheap, a middling and a dear model whose worth differs from request to request.
    fn offers(draw: &mut Draw) -> Vec<Offer> {
        let mut quality = |low: f64, high: f64| low + (high - low) * draw.uniform();
        vec![offer(quality(0.5, 0.8), 2e-5), offer(quality(0.6, 0.9), 4e-4), offer(quality(0.6, 1.0), 1.5e-2)]
    }

    fn best(offers: &[Offer], weight: f64) -> Offer {
        let utility = |o: &Offer| o.quality - weight * o.cost_usd;
        *offers.iter().max_by(|a, b| utility(a).total_cmp(&utility(b))).unwrap()
    }

    #[test]
    fn the_weight_is_the_least_that_meets_the_target() {
        let mut draw = Draw::from_seed(1);
        let mut dual = Dual::default();
        let seen: Vec<Vec<Offer>> = (0..200).map(|_| offers(&mut draw)).collect();
        seen.iter().for_each(|offers| dual.see(offers, 0.0));
        let mean = |weight: f64| seen.iter().map(|o| best(o, weight).cost_usd).sum::<f64>() / 200.0;
        for target in [5e-5, 3e-4, 1e-3, 5e-3] {
            let weight = dual.solve(target);
            assert!(mean(weight) <= target && mean(weight * 0.999) > target * 0.9, "{target}: {weight}");
            // Nothing much cheaper in weight does it: a dense search agrees.
            let least = (0..4_000).map(|i| 10_f64.powf(f64::from(i) / 400.0 - 2.0)).find(|w| mean(*w) <= target);
            assert!((weight / least.unwrap()).ln().abs() < 0.01, "{target}: {weight} {least:?}");
        }
        assert!(dual.solve(1.0).abs() < 1e-12, "a target that binds nobody has no price");
        assert!(dual.solve(0.0) > 1e7, "a target that nobody meets has the highest");
    }

    /// Spends by utility under pacing; mean cost and mean quality over `rounds`.
    fn run(target: f64, rounds: u32, real: impl Fn(&Offer, &mut Draw) -> f64) -> (f64, f64) {
        let mut draw = Draw::from_seed(7);
        let mut pacer = MeanCost::new(NanoUsd::from_usd(target).unwrap());
        let (mut cost, mut quality) = (0.0, 0.0);
        for _ in 0..rounds {
            let pace = pacer.pace();
            let all = offers(&mut draw);
            let cap = pace.cost_max.unwrap().usd().max(2e-5);
            let able: Vec<Offer> = all.iter().copied().filter(|o| o.cost_usd <= cap).collect();
            let chosen = best(&able, pace.cost_weight_per_usd);
            pacer.offered(&all, 0.0);
            let spent = real(&chosen, &mut draw);
            pacer.spent(NanoUsd::from_usd(spent).unwrap());
            (cost, quality) = (cost + spent, quality + chosen.quality);
        }
        (cost / f64::from(rounds), quality / f64::from(rounds))
    }

    #[test]
    fn the_mean_cost_meets_its_target_from_below() {
        let exact = |o: &Offer, _: &mut Draw| o.cost_usd;
        let mut last = 0.0;
        for target in [5e-5, 2.3e-4, 1.9e-3, 5e-3] {
            let (cost, quality) = run(target, 1_500, exact);
            // Where one call costs eight requests' worth, some of what was saved is let go.
            assert!(cost <= 1.001 * target && cost > 0.87 * target, "{target}: {cost}");
            assert!(quality > last, "money buys quality: {quality} {last}");
            last = quality;
        }
    }

    #[test]
    fn a_window_lasts_to_its_end() {
        let (mut draw, mut share) = (Draw::from_seed(3), WindowShare::default());
        let (hour, mut left) = (Timestamp::from_micros(3_600_000_000), 1.0);
        let mut at_half = 0.0;
        for second in 0..3_600_i64 {
            let now = Timestamp::from_micros(second * 1_000_000);
            let all = offers(&mut draw);
            let pace = share.pace(NanoUsd::from_usd(left).unwrap(), hour, now);
            let chosen = best(&all, pace.cost_weight_per_usd);
            share.offered(&all, 0.0);
            share.ended(now);
            left -= chosen.cost_usd;
            at_half = if second == 1_800 { left } else { at_half };
        }
        assert!((0.4..0.6).contains(&at_half), "half of it is left at half time: {at_half}");
        // The window's own budget is the hard stop; without it the last requests may end a little beyond.
        assert!((-0.005..0.08).contains(&left), "and hardly anything at the end: {left}");
    }

    #[test]
    fn costs_that_were_foretold_wrongly_are_made_good() {
        let dearer = |o: &Offer, draw: &mut Draw| 1.6 * o.cost_usd * (0.5 + draw.uniform());
        let (cost, _) = run(1e-3, 3_000, dearer);
        assert!(cost < 1.02e-3 && cost > 0.9e-3, "{cost}");
    }

    #[test]
    fn what_is_no_number_is_not_remembered() {
        let mut dual = Dual::default();
        dual.see(&[offer(f64::NAN, 1.0)], 0.0);
        dual.see(&[offer(0.5, f64::INFINITY)], 0.0);
        dual.see(&[], 0.0);
        assert!(dual.seen.is_empty() && dual.weight(0.1).abs() < 1e-12);
        for _ in 0..2 * REMEMBERED {
            dual.see(&[offer(0.5, 1.0)], 0.0);
        }
        assert_eq!(dual.seen.len(), REMEMBERED);
    }
}
