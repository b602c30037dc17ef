//! From cases to values: plans, a model of the scores, estimates, the gate.

use pointsman_learner::evaluate::calibration::{Calibration, Prediction, calibration};
use pointsman_learner::evaluate::estimate::{Estimate, Estimates, Gain, Judged, Observed, Plan, estimate, gain};
use pointsman_learner::evaluate::gate::{Evidence, GateSettings, Verdict, judge};
use pointsman_learner::evaluate::plan::{Chance, Known, plan};
use pointsman_learner::evaluate::reward_model::{Design, Label, RewardModel, Ridge, fold_of, set_reward};
use pointsman_router::money::NanoUsd;
use pointsman_router::subset::Member;

use super::cases::{Case, Cases, Offer, grow};
use super::{EvaluationError, FrontierPoint, Single};

/// Parts that the scores are modelled in, each from the others.
const FOLDS: u8 = 5;
/// A model alone is valued from so many labels on.
const SINGLE_LABELS_MIN: u64 = 30;
/// A model alone is valued where it was on offer on so large a share of the rows.
const SINGLE_OFFERED_MIN: f64 = 0.5;
/// Weights of cost of the frontier beside zero, each twice the one before.
const FRONTIER_STEPS: u32 = 10;

/// All figures of an evaluation.
#[derive(Debug)]
pub(super) struct Valued {
    pub(super) estimates: Estimates,
    pub(super) on_policy: Estimates,
    pub(super) gain: Gain,
    pub(super) singles: Vec<Single>,
    pub(super) over_single: Option<Estimate>,
    pub(super) agreement: f64,
    pub(super) calibration: Option<Calibration>,
    pub(super) frontier: Vec<FrontierPoint>,
    pub(super) evidence: Evidence,
    pub(super) verdict: Verdict,
}

/// What is known at one case.
struct Here<'a> {
    case: &'a Case,
    /// What each model would have scored.
    scores: &'a [f64],
}

impl Known for Here<'_> {
    fn reward(&self, set: &[usize]) -> f64 {
        set_reward(self.scores, set, self.case.limits.answers)
    }

    fn cost(&self, set: &[usize]) -> f64 {
        let cost = |model: &usize| self.case.offers.iter().find(|o| o.model == *model).map_or(0.0, |o| o.cost_usd);
        set.iter().map(cost).sum()
    }

    fn was_possible(&self, set: &[usize]) -> bool {
        let alike = |other: &Vec<usize>| other.len() == set.len() && set.iter().all(|model| other.contains(model));
        self.case.possible.iter().any(alike)
    }
}

/// Values the candidate on its cases.
pub(super) fn value(cases: &Cases, delta: f64) -> Result<Valued, EvaluationError> {
    let scores = modelled(cases)?;
    let models = cases.models.len();
    let heres: Vec<Here<'_>> = cases
        .judged
        .iter()
        .zip(scores.chunks_exact(models.max(1)))
        .map(|(case, scores)| Here { case, scores })
        .collect();
    let rows: Vec<Judged> = heres.iter().map(judged).collect();
    let plans: Vec<Plan> = heres.iter().map(|here| plan(&here.case.chances, &here.case.drawn, here)).collect();
    let logged: Vec<Plan> = rows.iter().map(as_logged).collect();
    let (estimates, on_policy) = (estimate(&rows, &plans)?, estimate(&rows, &logged)?);
    let gain_of = gain(&rows, &plans, &logged)?;
    let (singles, best) = singles(cases, &heres, &rows)?;
    let over_single = match &best {
        Some(best) => Some(gain(&rows, &plans, best)?.reward),
        None => None,
    };
    let evidence = Evidence {
        rows: rows.len(),
        effective_sample_size: estimates.effective_sample_size,
        unsupported: estimates.unsupported,
        gain: gain_of,
        // Both by what calls were expected to cost, so that the difference is the choices' alone.
        cost_usd: mean(plans.iter().map(|plan| plan.cost)),
        ceiling_usd: mean(logged.iter().map(|plan| plan.cost)),
        over_single,
    };
    let verdict = judge(&evidence, &GateSettings { delta, ..GateSettings::default() });
    Ok(Valued {
        agreement: mean(
            heres.iter().map(|here| f64::from(u8::from(here.case.first == here.case.drawn.first().copied()))),
        ),
        calibration: calibration(&predictions(&heres)),
        frontier: frontier(&heres, &rows)?,
        estimates,
        on_policy,
        gain: gain_of,
        singles,
        over_single,
        evidence,
        verdict,
    })
}

/// What each model would have scored at each case, by regressions that have not seen it.
fn modelled(cases: &Cases) -> Result<Vec<f64>, EvaluationError> {
    let dims = cases.judged.front().map_or(0, |case| case.dense.len());
    let features: Vec<f32> = cases.judged.iter().flat_map(|case| case.dense.iter().copied()).collect();
    let folds: Vec<u8> = cases.judged.iter().map(|case| fold_of(case.prompt, 0, FOLDS)).collect();
    let mut labels = Vec::new();
    for (row, case) in (0_u32..).zip(&cases.judged) {
        // One call that was judged as the answer is judged as the model.
        let alone = match (case.drawn.as_slice(), case.labels.is_empty()) {
            ([only], true) => Some((*only, case.reward)),
            _ => None,
        };
        for (model, score) in case.labels.iter().copied().chain(alone) {
            #[expect(clippy::cast_possible_truncation, reason = "a score in [0, 1]")]
            let score = score as f32;
            labels.push(Label { row, model: u16::try_from(model).unwrap_or(u16::MAX), score, weight: 1.0 });
        }
    }
    let design = Design { features: &features, dims, folds: &folds };
    Ok(RewardModel::fit(&design, cases.models.len(), &labels, &Ridge::default())?.predict_all(&design))
}

fn judged(here: &Here<'_>) -> Judged {
    let case = here.case;
    Judged {
        cluster: case.seq,
        propensity: case.propensity,
        weight: 1.0,
        reward: Observed { seen: case.reward, modelled: here.reward(&case.drawn) },
        cost: Observed { seen: case.cost_usd, modelled: here.cost(&case.drawn) },
    }
}

/// The plan whose value is what was seen, row by row, and no model of it.
fn as_logged(row: &Judged) -> Plan {
    Plan { propensity: row.propensity, reward: row.reward.modelled, cost: row.cost.modelled, unsupported: 0.0 }
}

/// Every model that was on offer and judged often enough, the best first, and the plans of the best.
fn singles(
    cases: &Cases,
    heres: &[Here<'_>],
    rows: &[Judged],
) -> Result<(Vec<Single>, Option<Vec<Plan>>), EvaluationError> {
    let mut found = Vec::new();
    for (place, model) in cases.models.iter().enumerate() {
        let labels = heres.iter().filter(|here| here.case.labels.iter().any(|(m, _)| *m == place)).count() as u64;
        let offered = heres.iter().filter(|here| is_offered(here.case, place)).count() as f64;
        if labels < SINGLE_LABELS_MIN || offered < SINGLE_OFFERED_MIN * heres.len() as f64 {
            continue;
        }
        let plans: Vec<Plan> = heres.iter().zip(rows).map(|(here, row)| alone(here, row, place)).collect();
        let estimates = estimate(rows, &plans)?;
        let cost_usd = mean(plans.iter().map(|plan| plan.cost));
        found.push((
            Single { model: model.clone(), value: estimates.doubly_robust, cost_usd, rows: labels },
            plans,
        ));
    }
    found.sort_by(|a, b| b.0.value.value.total_cmp(&a.0.value.value));
    let (singles, mut plans): (Vec<Single>, Vec<Vec<Plan>>) = found.into_iter().unzip();
    let best = if plans.is_empty() { None } else { Some(plans.swap_remove(0)) };
    Ok((singles, best))
}

fn is_offered(case: &Case, model: usize) -> bool {
    case.offers.iter().any(|offer| offer.model == model && !offer.barred)
}

/// One model alone; where it was not on offer, what was done there.
fn alone(here: &Here<'_>, row: &Judged, model: usize) -> Plan {
    if !is_offered(here.case, model) {
        return as_logged(row);
    }
    plan(&[Chance { set: vec![model], probability: 1.0 }], &here.case.drawn, here)
}

/// What the candidate said of judged models, beside what came true.
fn predictions(heres: &[Here<'_>]) -> Vec<Prediction> {
    let of = |case: &Case| {
        let said = |(model, score): &(usize, f64)| {
            let offer = case.offers.iter().find(|offer| offer.model == *model)?;
            Some(Prediction { probability: offer.quality, score: *score })
        };
        case.labels.iter().filter_map(said).collect::<Vec<_>>()
    };
    heres.iter().flat_map(|here| of(here.case)).collect()
}

/// The candidate at rising weights of cost, choosing by its mean scores. The largest weight makes a
/// call of the dearest model as dear as a right answer is worth.
fn frontier(heres: &[Here<'_>], rows: &[Judged]) -> Result<Vec<FrontierPoint>, EvaluationError> {
    let dearest = |case: &Case| case.offers.iter().map(|offer| offer.cost_usd).fold(0.0, f64::max);
    let scale = mean(heres.iter().map(|here| dearest(here.case)));
    let steps = (0..FRONTIER_STEPS).rev().filter(|_| scale > 0.0);
    let weights = steps.map(|step| 1.0 / scale / f64::from(1_u32 << step));
    let mut points = Vec::new();
    for weight_per_usd in std::iter::once(0.0).chain(weights) {
        let plans: Vec<Plan> = heres.iter().map(|here| at_weight(here, weight_per_usd)).collect();
        let value = estimate(rows, &plans)?.doubly_robust;
        points.push(FrontierPoint { weight_per_usd, cost_usd: mean(plans.iter().map(|plan| plan.cost)), value });
    }
    Ok(points)
}

fn at_weight(here: &Here<'_>, weight_per_usd: f64) -> Plan {
    let able: Vec<&Offer> = here.case.offers.iter().filter(|offer| !offer.barred).collect();
    let utility = |offer: &Offer| offer.quality - weight_per_usd * offer.cost_usd;
    let better = |a: &Offer, b: &Offer| {
        utility(a).total_cmp(&utility(b)).then(b.cost_usd.total_cmp(&a.cost_usd)).then(b.model.cmp(&a.model))
    };
    let Some(first) = (0..able.len()).max_by(|a, b| match (able.get(*a), able.get(*b)) {
        (Some(a), Some(b)) => better(a, b),
        (None, _) | (_, None) => std::cmp::Ordering::Equal,
    }) else {
        return plan(&[], &here.case.drawn, here);
    };
    let members: Vec<Member> = able
        .iter()
        .map(|offer| Member {
            quality: offer.quality,
            price: weight_per_usd * offer.cost_usd,
            worst_case: NanoUsd::ZERO,
        })
        .collect();
    let set =
        grow(first, &members, &here.case.limits).iter().filter_map(|i| able.get(*i)).map(|o| o.model).collect();
    plan(&[Chance { set, probability: 1.0 }], &here.case.drawn, here)
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = values.fold((0.0_f64, 0.0), |(n, sum), value| (n + 1.0, sum + value));
    sum / n.max(1.0)
}
