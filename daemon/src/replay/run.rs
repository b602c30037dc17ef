//! The runs of a replay: one per seed, row by row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pointsman_learner::rows::{Seen, TrainingRow};
use pointsman_router::breaker::Breaker;
use pointsman_router::check::check;
use pointsman_router::clock::Clock as _;
use pointsman_router::encode::Encoder;
use pointsman_router::features::Features;
use pointsman_router::ids::{ModelName, TaskType};
use pointsman_router::model::{Availability, Model, ModelCard, Pool};
use pointsman_router::money::NanoUsd;
use pointsman_router::pacing::{Offer, Pacer};
use pointsman_router::pipeline::{Ports, Router};
use pointsman_router::policy::{Ask, Contender, Objective};
use pointsman_router::progress::Unwatched;
use pointsman_router::request::{KindName, RouteRequest};
use pointsman_router::settings::Settings;
use pointsman_router::trace::Trace;
use xxhash_rust::xxh3::xxh3_64;

use super::book::{self, score};
use super::course::{Course, Plan};
use super::feedback::{Noise, Post, Verdict};
use super::figures::{Duel, Run, Yardsticks};
use super::mixture;
use super::pupil::{Known, Pupil};
use super::report::{self, Report};
use super::stand::{LatestPolicy, NoBudget, NoTraces, OnePool, RunPacer, RunSeeds};
use super::{ReplayArgs, Whose};
use crate::backends::recorded::RecordedBackend;
use crate::backends::recorded_rows::{Row, Rows};
use crate::clock::SystemClock;

/// Runs the policy, and the context-free yardstick beside it, over every seed.
pub(super) fn run(args: &ReplayArgs, rows: &Rows, warm: Option<&Rows>) -> anyhow::Result<Report> {
    let plan = Plan::new(args, rows)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (mut runs, mut context_free, mut yardsticks) = (Vec::new(), Vec::new(), Vec::new());
    let mut taught = Taught::default();
    for seed in args.first_seed..args.first_seed.saturating_add(args.seeds) {
        let course = Course::new(rows, warm, &plan, seed)?;
        let stage = Stage::new(args, warm, &course);
        runs.push(runtime.block_on(stage.one_run(args.policy, &mut taught))?);
        if args.policy != Whose::ContextFree {
            context_free.push(runtime.block_on(stage.one_run(Whose::ContextFree, &mut taught))?);
        }
        yardsticks.push(Yardsticks {
            seed,
            random: book::random(&course.routed),
            oracle: book::oracle(&course.routed),
            best_single: course.best_single,
        });
    }
    let phases = if plan.changes.any() { plan.changes.phases() } else { Vec::new() };
    let found = report::Findings {
        policy: args.policy,
        models: &rows.models,
        ceiling_usd: args.budget_per_request,
        phases: &phases,
        runs: &runs,
        yardsticks: &yardsticks,
        context_free: if args.policy == Whose::ContextFree { &runs } else { &context_free },
    };
    report::report(&found).context("nothing was routed")
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

/// Rows that were fed and that a pacer hears of, at most.
const OFFERED: usize = 384;

/// Policies that were fed the warm rows and nothing of a course, and are the same for every seed.
#[derive(Default)]
struct Taught(BTreeMap<Whose, Pupil>);

/// What the runs of one course stand on.
struct Stage<'a> {
    args: &'a ReplayArgs,
    warm: Option<&'a Rows>,
    course: &'a Course,
    noise: Noise,
    settings: Settings,
    pool: Arc<Pool>,
}

impl<'a> Stage<'a> {
    fn new(args: &'a ReplayArgs, warm: Option<&'a Rows>, course: &'a Course) -> Self {
        let noise = Noise::new(args, course.seed);
        Self { args, warm, course, noise, settings: settings(args), pool: Arc::new(pool_of(&course.routed)) }
    }

    fn rows(&self) -> &Rows {
        &self.course.routed
    }

    async fn one_run(&self, whose: Whose, taught: &mut Taught) -> anyhow::Result<Run> {
        let start = SystemClock.now();
        let Some(mut pupil) = self.pupil(whose, taught)? else {
            return Ok(Run { seconds: SystemClock.now().since(start).as_secs_f64(), ..self.mixture() });
        };
        let latest = Arc::new(LatestPolicy::new(pupil.snapshot().policy));
        let pacer = Arc::new(RunPacer::new(self.args.budget_per_request));
        self.offer_fed(&pupil, &*pacer)?;
        let router = self.router(&latest, &pacer);
        let mut run = Run::default();
        let mut post = Post::new(self.args.delay);
        let start = SystemClock.now();
        for (at, row) in self.rows().rows.iter().enumerate() {
            latest.publish(pupil.snapshot());
            let routed = router.route(self.request(row), &Unwatched).await;
            latest.publish(Pupil::stand_in());
            let trace = routed.map_err(|error| anyhow::anyhow!("row {}: {error}", row.id))?;
            self.note(&trace, row, &mut run);
            // Money is known at once; what was said of the answer comes by post.
            pupil.observe(&trace);
            if self.noise.comes(self.course.train.len() + at) {
                post.send(at, self.verdict(&trace, row, at));
            }
            while let Some(verdict) = post.arrived(at) {
                for (model, label) in &verdict.labels {
                    pupil.learn(&verdict.features, model, *label);
                }
            }
        }
        run.seconds = SystemClock.now().since(start).as_secs_f64();
        Ok(run)
    }

    /// The policy as it is before the first row is routed; `None` for one that is reckoned and not run.
    fn pupil(&self, whose: Whose, taught: &mut Taught) -> anyhow::Result<Option<Pupil>> {
        let alike = self.course.train.is_empty() && whose.learns_from_rows_alone();
        if let Some(pupil) = taught.0.get(&whose).filter(|_| alike) {
            return Ok(Some(pupil.clone()));
        }
        let schema = Encoder::new(self.settings.secret).schema();
        let Some(mut pupil) = Pupil::new(whose, &self.known(whose), schema) else { return Ok(None) };
        self.warm_up(&mut pupil)?;
        pupil.begin(self.course.seed)?;
        if alike {
            taught.0.insert(whose, pupil.clone());
        }
        Ok(Some(pupil))
    }

    fn known(&self, whose: Whose) -> Known {
        Known {
            pool: self.rows().models.iter().map(|name| ModelName::new(name)).collect(),
            best_single: ModelName::new(&self.course.best_single.name),
            scores: if whose == Whose::Oracle { book::true_scores(self.rows()) } else { Arc::default() },
        }
    }

    fn router(&self, latest: &Arc<LatestPolicy>, pacer: &Arc<RunPacer>) -> Router {
        let ports = Ports {
            clock: Arc::new(SystemClock),
            seeds: Arc::new(RunSeeds::new(self.course.seed)),
            pools: Arc::new(OnePool(Arc::clone(&self.pool))),
            policies: Arc::clone(latest) as _,
            ledger: Arc::new(NoBudget),
            pacer: Arc::clone(pacer) as _,
            traces: Arc::new(NoTraces),
        };
        Router::new(self.settings.clone(), ports)
    }

    /// Notes what a row came to.
    fn note(&self, trace: &Trace, row: &Row, run: &mut Run) {
        let score_of = |model: &ModelName| self.rows().model_index(model.as_str()).and_then(|i| score(row, i));
        let heaviest = trace.answer.as_ref().and_then(|answer| answer.heaviest());
        run.scores.push(heaviest.and_then(|c| score_of(&c.model)).unwrap_or(0.0));
        run.costs_usd.push(trace.bill.settled.usd());
        run.decide_us.push(trace.decide_us);
        for candidate in trace.decision.chosen() {
            *run.calls.entry(candidate.model.clone()).or_default() += 1.0;
        }
        run.duels.extend(self.duel(trace, row));
    }

    /// What was thought of the two models of this row, where there are two.
    fn duel(&self, trace: &Trace, row: &Row) -> Option<Duel> {
        let ([a, b], [Some(first), Some(second)]) = (self.rows().models.as_slice(), row.outcomes.as_slice())
        else {
            return None;
        };
        let quality = |name: &str| trace.decision.candidate(name).map(|c| c.quality);
        Some(Duel {
            lead: quality(b)? - quality(a)?,
            scores: [first.score, second.score],
            costs_usd: [first, second].map(|recorded| recorded.cost.unwrap_or_default().usd()),
        })
    }

    /// The recorded scores of the models that were called, as they are fed back.
    fn verdict(&self, trace: &Trace, row: &Row, at: usize) -> Verdict {
        let label = |model: &ModelName| {
            let place = self.rows().model_index(model.as_str())?;
            let label = self.noise.label(self.course.train.len() + at, place, score(row, place)?);
            Some((model.clone(), label))
        };
        let labels = trace.decision.chosen().filter_map(|candidate| label(&candidate.model)).collect();
        Verdict { features: Arc::clone(&trace.features), labels }
    }

    /// The run of the best mixture of two fixed models: expectations, nothing drawn.
    fn mixture(&self) -> Run {
        let ceiling = self.args.budget_per_request.unwrap_or(f64::INFINITY);
        let Some((best, rows)) = mixture::best(self.rows(), ceiling) else { return Run::default() };
        let mut calls: BTreeMap<ModelName, f64> = BTreeMap::new();
        for (model, share) in best.models.into_iter().zip([best.share, 1.0 - best.share]) {
            if let Some(name) = self.rows().models.get(model).filter(|_| share > 0.0) {
                *calls.entry(ModelName::new(name)).or_default() += share * rows.len() as f64;
            }
        }
        let (scores, costs_usd) = rows.into_iter().unzip();
        Run { scores, costs_usd, calls, ..Run::default() }
    }

    /// Feeds the warm rows, and then those to train on, as logs in which every model was called.
    fn warm_up(&self, pupil: &mut Pupil) -> anyhow::Result<()> {
        let encoder = Encoder::new(self.settings.secret);
        if let Some(warm) = self.warm {
            for row in &warm.rows {
                self.feed(pupil, &encoder, (&warm.models, row), |_, score| score)?;
            }
        }
        for (at, row) in self.course.train.iter().enumerate() {
            let label = |model, score| self.noise.label(at, model, score);
            self.feed(pupil, &encoder, (&self.rows().models, row), label)?;
        }
        Ok(())
    }

    fn feed(
        &self,
        pupil: &mut Pupil,
        encoder: &Encoder,
        (models, row): (&[String], &Row),
        label: impl Fn(usize, f64) -> f64,
    ) -> anyhow::Result<()> {
        let features = Arc::new(self.features(encoder, row)?);
        let outcomes = models.iter().zip(&row.outcomes).enumerate();
        let seen = outcomes.filter_map(|(i, (model, recorded))| {
            let recorded = recorded.as_ref()?;
            Some(Seen {
                model: ModelName::new(model),
                label: Some(label(i, recorded.score)),
                tokens_out: recorded.tokens_out.unwrap_or(0),
                cost: recorded.cost.unwrap_or(NanoUsd::ZERO),
                latency: Duration::ZERO,
            })
        });
        let key = xxh3_64(row.id.as_bytes());
        pupil.feed(TrainingRow { key, features, task: None, seen: seen.collect(), logged: None });
        Ok(())
    }

    /// Tells the pacer what the last of the rows that were fed would have had on offer.
    fn offer_fed(&self, pupil: &Pupil, pacer: &dyn Pacer) -> anyhow::Result<()> {
        if self.args.budget_per_request.is_none() {
            return Ok(());
        }
        let encoder = Encoder::new(self.settings.secret);
        let fed = self.warm.map_or(&[][..], |warm| &warm.rows).iter().chain(&self.course.train);
        let fed: Vec<&Row> = fed.collect();
        let (snapshot, task) = (pupil.snapshot(), TaskType::new("simple_query"));
        for row in fed.iter().skip(fed.len().saturating_sub(OFFERED)) {
            let features = self.features(&encoder, row)?;
            let projected = &snapshot.policy.project(&features);
            let contenders: Vec<Contender> = self
                .pool
                .models()
                .iter()
                .map(|model| Contender {
                    name: model.name().clone(),
                    forecast: snapshot.forecast(&model.card, (&features, projected), None),
                    barred: false,
                })
                .collect();
            let objective = Objective { cost_weight_per_usd: self.args.cost_weight };
            let (features, task, contenders) = (&features, &task, contenders.as_slice());
            let ask = Ask { features, projected, task, objective, caller_ref: None, contenders };
            let scored = snapshot.policy.score(&ask);
            let offers = scored.estimates.iter().zip(contenders);
            let offers: Vec<Offer> =
                offers.map(|(e, c)| Offer { quality: e.quality, cost_usd: c.forecast.cost.usd() }).collect();
            pacer.offered(&offers, self.args.cost_weight);
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
        if self.args.show_task {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_name_is_brought_into_the_alphabet() {
        assert_eq!(task_type("Computer Science"), "computer-science");
    }
}
