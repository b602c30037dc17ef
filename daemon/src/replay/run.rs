//! The runs of a replay: one per seed, row by row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pointsman_learner::online::Call;
use pointsman_router::breaker::Breaker;
use pointsman_router::check::check;
use pointsman_router::clock::{Clock as _, Draw};
use pointsman_router::encode::Encoder;
use pointsman_router::features::Features;
use pointsman_router::ids::ModelName;
use pointsman_router::model::{Availability, Model, ModelCard, Pool};
use pointsman_router::money::NanoUsd;
use pointsman_router::pacing::Unpaced;
use pointsman_router::pipeline::{Ports, Router};
use pointsman_router::progress::Unwatched;
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::settings::Settings;
use pointsman_router::trace::Trace;

use super::book::{self, score};
use super::pupil::{Known, Pupil};
use super::report::{self, Report, Run};
use super::stand::{LatestPolicy, NoBudget, NoTraces, OnePool, RunSeeds};
use super::{ReplayArgs, Whose};
use crate::backends::recorded::RecordedBackend;
use crate::backends::recorded_rows::{Row, Rows};
use crate::clock::SystemClock;

/// Runs the policy, and the context-free yardstick beside it, over every seed.
pub(super) fn run(args: &ReplayArgs, rows: Rows, warm: Option<Rows>) -> anyhow::Result<Report> {
    let best_single = book::best_single(&rows, warm.as_ref()).context("no row has a recorded score")?;
    let rows = Arc::new(rows);
    let desk = Desk {
        known: Known {
            pool: rows.models.iter().map(|name| ModelName::new(name)).collect(),
            best_single: ModelName::new(&best_single.name),
            scores: book::true_scores(&rows),
        },
        settings: settings(args),
        pool: Arc::new(pool_of(&rows)),
        show_task: args.show_task,
        warm,
        rows,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let all = |whose| -> anyhow::Result<Vec<Run>> {
        (0..args.seeds).map(|seed| runtime.block_on(desk.one_run(whose, seed))).collect()
    };
    let runs = all(args.policy)?;
    let context_free = match args.policy {
        Whose::ContextFree => None,
        Whose::Rules | Whose::Bandit | Whose::BestSingle | Whose::Random | Whose::Oracle => {
            Some(all(Whose::ContextFree)?)
        }
    };
    Ok(report::report(&report::Findings {
        policy: args.policy,
        rows: &desk.rows,
        best_single,
        runs: &runs,
        context_free: context_free.as_deref().unwrap_or(&runs),
    }))
}

fn settings(args: &ReplayArgs) -> Settings {
    Settings {
        answer_value: None,
        cost_weight_per_usd: Some(args.cost_weight),
        calls_max_by_task: BTreeMap::new(),
        calls_max_default: args.calls,
        attempts_max: 1,
        ..Settings::default()
    }
}

/// What every run stands on.
struct Desk {
    known: Known,
    settings: Settings,
    pool: Arc<Pool>,
    show_task: bool,
    warm: Option<Rows>,
    rows: Arc<Rows>,
}

impl Desk {
    async fn one_run(&self, whose: Whose, seed: u64) -> anyhow::Result<Run> {
        let mut pupil = Pupil::new(whose, &self.known, Encoder::new(self.settings.secret).schema());
        self.warm_up(&mut pupil)?;
        let latest = Arc::new(LatestPolicy::new(pupil.snapshot().policy));
        let ports = Ports {
            clock: Arc::new(SystemClock),
            seeds: Arc::new(RunSeeds::new(seed)),
            pools: Arc::new(OnePool(Arc::clone(&self.pool))),
            policies: Arc::clone(&latest) as _,
            ledger: Arc::new(NoBudget),
            pacer: Arc::new(Unpaced),
            traces: Arc::new(NoTraces),
        };
        let router = Router::new(self.settings.clone(), ports);
        let mut run = Run::default();
        let start = SystemClock.now();
        for at in order(self.rows.rows.len(), seed) {
            let Some(row) = self.rows.rows.get(at) else { continue };
            latest.publish(pupil.snapshot());
            let routed = router.route(self.request(row), &Unwatched).await;
            latest.publish(Pupil::stand_in());
            match routed {
                Ok(trace) => self.take_in(&trace, row, &mut pupil, &mut run),
                Err(error) => anyhow::bail!("row {}: {error}", row.id),
            }
        }
        run.seconds = SystemClock.now().since(start).as_secs_f64();
        Ok(run)
    }

    /// Notes what a row came to and feeds back the recorded scores of the models that were called.
    fn take_in(&self, trace: &Trace, row: &Row, pupil: &mut Pupil, run: &mut Run) {
        let score_of = |model: &ModelName| self.rows.model_index(model.as_str()).and_then(|i| score(row, i));
        let heaviest = trace.answer.as_ref().and_then(|answer| answer.heaviest());
        run.scores.push(heaviest.and_then(|c| score_of(&c.model)).unwrap_or(0.0));
        run.costs_usd.push(trace.bill.settled.usd());
        run.decide_us.push(trace.decide_us);
        pupil.observe(trace);
        for candidate in trace.decision.chosen() {
            *run.calls.entry(candidate.model.clone()).or_default() += 1;
            if let Some(score) = score_of(&candidate.model) {
                pupil.learn(&trace.features, &candidate.model, score);
            }
        }
    }

    /// Feeds the warm rows as logs in which every model was called.
    fn warm_up(&self, pupil: &mut Pupil) -> anyhow::Result<()> {
        let Some(warm) = &self.warm else { return Ok(()) };
        let encoder = Encoder::new(self.settings.secret);
        for row in &warm.rows {
            let features = self.features(&encoder, row)?;
            for (i, model) in warm.models.iter().enumerate() {
                if let Some(recorded) = row.outcomes.get(i).and_then(Option::as_ref) {
                    let model = &ModelName::new(model);
                    pupil.learn(&features, model, recorded.score);
                    pupil.observe_call(&Call {
                        model,
                        prompt_bytes: features.prompt_bytes,
                        tokens_out: recorded.tokens_out.unwrap_or(0),
                        cost: recorded.cost.unwrap_or(NanoUsd::ZERO),
                        latency: Duration::ZERO,
                    });
                }
            }
        }
        Ok(())
    }

    fn features(&self, encoder: &Encoder, row: &Row) -> anyhow::Result<Features> {
        let request = check(self.request(row), &self.settings, &self.pool)
            .with_context(|| format!("row {} is no request", row.id))?;
        Ok(encoder.encode(&request))
    }

    fn request(&self, row: &Row) -> RouteRequest {
        let has_answers = row.outcomes.iter().flatten().any(|recorded| recorded.answer.is_some());
        let mut request = RouteRequest {
            prompt: row.prompt.clone(),
            kind: if has_answers { KindName::Label } else { KindName::Text },
            caller_ref: row.id.clone(),
            ..RouteRequest::default()
        };
        if self.show_task {
            request.task_type = task_type(&row.task);
            request.tags.insert("task".to_owned(), row.task.chars().take(64).collect());
        }
        request
    }
}

/// A pool of the recorded models.
fn pool_of(rows: &Arc<Rows>) -> Pool {
    let backend = Arc::new(RecordedBackend::new(Arc::clone(rows)));
    let model = |card: ModelCard| Model {
        breaker: Arc::new(Breaker::new(card.name.as_str())),
        card: Arc::new(card),
        backend: Arc::clone(&backend) as _,
        availability: Availability::Available,
    };
    Pool::new(backend.cards("recorded").into_iter().map(model).collect())
}

/// A recorded task name in the alphabet of task types.
fn task_type(task: &str) -> String {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    task.to_lowercase().chars().map(|c| if fits(c) { c } else { '-' }).take(64).collect()
}

/// The rows in a seeded random order (Fisher-Yates).
fn order(rows: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut draw = Draw::from_seed(seed ^ 0x0DDB_A110);
    for i in (1..rows).rev() {
        // Multiply-shift: the bias of 2^-64 · rows is none at this size.
        #[expect(clippy::cast_possible_truncation, reason = "the product's upper half is at most i")]
        let j = ((u128::from(draw.next_u64()) * (i as u128 + 1)) >> 64) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_permutation_that_its_seed_repeats() {
        let mut once = order(1_000, 3);
        assert_eq!(once, order(1_000, 3));
        assert_ne!(once, order(1_000, 4));
        once.sort_unstable();
        assert_eq!(once, (0..1_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_task_name_is_brought_into_the_alphabet() {
        assert_eq!(task_type("Computer Science"), "computer-science");
    }
}
