//! Many logs, each evaluated as the daemon would, against the truth.

use pointsman_learner::evaluate::estimate::{self, Estimates, Gain, Judged, Observed, Plan};
use pointsman_learner::evaluate::gate::{Evidence, GateSettings, judge};
use pointsman_learner::evaluate::reward_model::{Design, Label, RewardModel, Ridge};
use pointsman_router::clock::Draw;

use crate::Options;
use crate::features::DIMS;
use crate::policies::Candidate;
use crate::world::World;

/// What was counted over all logs for one candidate.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) value: f64,
    /// True gain over the logging policy.
    pub(crate) gain: f64,
    /// True cost relative to that of the logging policy.
    pub(crate) cost_ratio: f64,
    /// Shares of runs in which the two-sided 95 % interval covers the truth.
    pub(crate) covers_value: f64,
    pub(crate) covers_gain: f64,
    pub(crate) snips_covers: f64,
    /// Share of runs in which the gate opens.
    pub(crate) promoted: f64,
    /// Share of runs in which the gain's lower bound is above zero, whatever else the gate asks.
    pub(crate) shown_better: f64,
    /// Share of runs in which each of the other conditions failed: sample, cost, best single.
    pub(crate) refused: [f64; 3],
    /// Means over runs.
    pub(crate) effective_sample_size: f64,
    pub(crate) standard_error: f64,
    pub(crate) gain_error: f64,
    /// The spread of the estimates over runs: what the standard error should be.
    pub(crate) spread: f64,
    mean: f64,
}

/// A log with everything that its evaluation needs, reused from run to run.
pub(crate) struct Log<'a> {
    world: &'a World,
    picks: &'a [f64],
    /// Cumulative picks, row after row.
    cumulative: Vec<f64>,
    counts: Vec<u16>,
    labels: Vec<Label>,
    drawn: Vec<(u32, u16)>,
    modelled: Vec<f64>,
    /// Per row, the modelled reward and cost under the logging policy.
    running: Vec<(f64, f64)>,
    rows: Vec<Judged>,
}

impl<'a> Log<'a> {
    pub(crate) fn new(world: &'a World, picks: &'a [f64]) -> Self {
        let mut cumulative = picks.to_vec();
        for row in cumulative.chunks_exact_mut(world.models) {
            let mut sum = 0.0;
            for cell in row {
                sum += *cell;
                *cell = sum;
            }
        }
        Self {
            world,
            picks,
            cumulative,
            counts: Vec::new(),
            labels: Vec::new(),
            drawn: Vec::new(),
            modelled: Vec::new(),
            running: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Draws decisions and fits the reward models.
    pub(crate) fn fill(&mut self, decisions: usize, seed: u64) -> anyhow::Result<()> {
        let World { models, scores, costs, forecasts, .. } = self.world;
        let models = *models;
        let mut draw = Draw::from_seed(seed);
        self.counts.clear();
        self.counts.resize(scores.len(), 0);
        self.drawn.clear();
        for _ in 0..decisions {
            let row = (draw.next_u64() % self.world.rows as u64) as usize;
            let chances = &self.cumulative[row * models..(row + 1) * models];
            let at = draw.uniform() * chances[models - 1];
            let model = chances.iter().position(|sum| at < *sum).unwrap_or(models - 1);
            self.counts[row * models + model] += 1;
            self.drawn.push((row as u32, model as u16));
        }
        // Equal draws have equal labels here, so they count as one label of their weight.
        self.labels.clear();
        self.labels.extend(self.counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(at, count)| {
            Label {
                row: (at / models) as u32,
                model: (at % models) as u16,
                score: scores[at] as f32,
                weight: f32::from(*count),
            }
        }));
        let design = Design { features: &self.world.features, dims: DIMS, folds: &self.world.folds };
        self.modelled = RewardModel::fit(&design, models, &self.labels, &Ridge::default())?.predict_all(&design);
        let expected = |(picks, modelled): (&[f64], &[f64])| {
            let mean = |of: &[f64]| picks.iter().zip(of).map(|(p, x)| p * x).sum::<f64>();
            (mean(modelled), mean(forecasts))
        };
        self.running =
            self.picks.chunks_exact(models).zip(self.modelled.chunks_exact(models)).map(expected).collect();
        self.rows.clear();
        // Every decision is a draw of its own: the truth is the value over the recorded rows.
        self.rows.extend((0..).zip(&self.drawn).map(|(cluster, (row, model))| {
            let at = *row as usize * models + usize::from(*model);
            Judged {
                cluster,
                propensity: self.picks[at],
                weight: 1.0,
                reward: Observed { seen: scores[at], modelled: self.modelled[at] },
                cost: Observed { seen: costs[at], modelled: forecasts[usize::from(*model)] },
            }
        }));
        Ok(())
    }

    /// What the logging policy itself would have done.
    fn running(&self) -> Vec<Plan> {
        let plan = |((row, _), judged): (&(u32, u16), &Judged)| {
            let (reward, cost) = self.running[*row as usize];
            Plan { propensity: judged.propensity, reward, cost, unsupported: 0.0 }
        };
        self.drawn.iter().zip(&self.rows).map(plan).collect()
    }

    /// What a policy that picks one model per row would have done.
    fn plans(&self, choice: impl Fn(usize) -> u16) -> Vec<Plan> {
        let plan = |(row, model): &(u32, u16)| {
            let chosen = choice(*row as usize);
            Plan {
                propensity: if chosen == *model { 1.0 } else { 0.0 },
                reward: self.modelled[*row as usize * self.world.models + usize::from(chosen)],
                cost: self.world.forecasts[usize::from(chosen)],
                unsupported: 0.0,
            }
        };
        self.drawn.iter().map(plan).collect()
    }

    /// The evidence for each candidate, the logging policy being the running one.
    pub(crate) fn evidence(
        &self,
        candidates: &[Candidate],
        single: u16,
    ) -> anyhow::Result<Vec<(Estimates, Evidence)>> {
        let running = self.running();
        let ceiling_usd = self.rows.iter().map(|row| row.cost.seen).sum::<f64>() / self.rows.len() as f64;
        let single = self.plans(|_| single);
        let judge_one = |candidate: &Candidate| {
            let plans = self.plans(|row| candidate.choice[row]);
            let found = estimate::estimate(&self.rows, &plans)?;
            let Gain { reward: over_single, .. } = estimate::gain(&self.rows, &plans, &single)?;
            let evidence = Evidence {
                rows: self.rows.len(),
                effective_sample_size: found.effective_sample_size,
                unsupported: found.unsupported,
                gain: estimate::gain(&self.rows, &plans, &running)?,
                cost_usd: found.cost.value,
                ceiling_usd,
                over_single: Some(over_single),
            };
            Ok((found, evidence))
        };
        candidates.iter().map(judge_one).collect()
    }
}

/// Draws and evaluates `runs` logs.
pub(crate) fn simulate(
    world: &World,
    picks: &[f64],
    candidates: &[Candidate],
    single: u16,
    options: &Options,
) -> anyhow::Result<Vec<Tally>> {
    let value = world.mean_under(picks, &world.scores);
    let cost = world.mean_under(picks, &world.costs).max(f64::MIN_POSITIVE);
    let truth = |candidate: &Candidate| {
        let own = world.mean_at(&candidate.choice, &world.scores);
        let cost_ratio = world.mean_at(&candidate.choice, &world.costs) / cost;
        Tally { value: own, gain: own - value, cost_ratio, ..Tally::default() }
    };
    let mut tallies: Vec<Tally> = candidates.iter().map(truth).collect();
    let mut log = Log::new(world, picks);
    for run in 0..options.runs {
        log.fill(options.decisions, 1_000 + run)?;
        for (tally, (found, evidence)) in tallies.iter_mut().zip(log.evidence(candidates, single)?) {
            tally.add(&found, &evidence);
        }
    }
    for tally in &mut tallies {
        tally.finish(options.runs as f64);
    }
    Ok(tallies)
}

impl Tally {
    fn add(&mut self, found: &Estimates, evidence: &Evidence) {
        let one_if = |is_so: bool| f64::from(u8::from(is_so));
        let covers = |(lower, upper): (f64, f64), truth: f64| one_if((lower..=upper).contains(&truth));
        let settings = GateSettings::default();
        self.covers_value += covers(found.doubly_robust.interval(), self.value);
        self.snips_covers += covers(found.snips.interval(), self.value);
        self.covers_gain += covers(evidence.gain.reward.interval(), self.gain);
        self.promoted += one_if(judge(evidence, &settings).passes());
        self.shown_better += one_if(evidence.gain.reward.lower(settings.delta) > 0.0);
        let is_dear = evidence.cost_usd > evidence.ceiling_usd * (1.0 + settings.cost_tolerance);
        let is_below = evidence.over_single.is_some_and(|over| over.value < -over.standard_error);
        let is_small = evidence.effective_sample_size < settings.effective_sample_size_min;
        for (count, is_so) in self.refused.iter_mut().zip([is_small, is_dear, is_below]) {
            *count += one_if(is_so);
        }
        self.effective_sample_size += found.effective_sample_size;
        self.standard_error += found.doubly_robust.standard_error;
        self.gain_error += evidence.gain.reward.standard_error;
        self.mean += found.doubly_robust.value - self.value;
        self.spread += (found.doubly_robust.value - self.value).powi(2);
    }

    fn finish(&mut self, runs: f64) {
        let [small, dear, below] = &mut self.refused;
        let sums = [
            &mut self.covers_value,
            &mut self.covers_gain,
            &mut self.snips_covers,
            &mut self.promoted,
            &mut self.shown_better,
            &mut self.effective_sample_size,
            &mut self.standard_error,
            &mut self.gain_error,
            &mut self.mean,
            &mut self.spread,
            small,
            dear,
            below,
        ];
        for sum in sums {
            *sum /= runs;
        }
        self.spread = (self.spread - self.mean * self.mean).max(0.0).sqrt();
    }
}
