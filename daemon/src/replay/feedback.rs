//! Which feedback comes back, when, and how true it is.
//!
//! All of it is drawn by the seed of the run and the row's place in its order, never by what was
//! chosen: two policies on one course get the same feedback on the same choice.

use std::collections::VecDeque;
use std::sync::Arc;

use pointsman_router::clock::Draw;
use pointsman_router::features::Features;
use pointsman_router::ids::ModelName;

use super::args::ReplayArgs;

/// How much feedback comes and how much of it is wrong.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    seed: u64,
    feedback_rate: f64,
    flip_rate: f64,
}

impl Noise {
    pub(super) fn new(args: &ReplayArgs, seed: u64) -> Self {
        Self { seed, feedback_rate: args.feedback_rate, flip_rate: args.flip_rate }
    }

    /// Whether the row at this place of the order brings feedback.
    pub(super) fn comes(&self, at: usize) -> bool {
        self.feedback_rate >= 1.0 || self.draw(at, 0) < self.feedback_rate
    }

    /// What is said of a model, by its place in the pool, that scored x on the row at this place.
    pub(super) fn label(&self, at: usize, model: usize, x: f64) -> f64 {
        if self.flip_rate > 0.0 && self.draw(at, 1 + model as u64) < self.flip_rate { 1.0 - x } else { x }
    }

    fn draw(&self, at: usize, what: u64) -> f64 {
        let run = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let row = (at as u64).wrapping_mul(0xD134_2543_DE82_EF95);
        Draw::from_seed(run ^ row.rotate_left(17) ^ what.wrapping_mul(0xA24B_AED4_963E_E407)).uniform()
    }
}

/// What one row teaches.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) features: Arc<Features>,
    /// One label per judged model.
    pub(super) labels: Vec<(ModelName, f64)>,
}

/// Feedback that is on its way.
#[derive(Debug)]
pub(super) struct Post {
    delay: usize,
    waiting: VecDeque<(usize, Verdict)>,
}

impl Post {
    /// The post that is so many rows late.
    pub(super) fn new(delay: usize) -> Self {
        Self { delay, waiting: VecDeque::new() }
    }

    /// Sends what the routed row at this place teaches.
    pub(super) fn send(&mut self, at: usize, verdict: Verdict) {
        self.waiting.push_back((at, verdict));
    }

    /// What has arrived once the row at this place was decided, in the order in which it was sent; to be
    /// asked until there is no more.
    pub(super) fn arrived(&mut self, at: usize) -> Option<Verdict> {
        let due = self.waiting.front().is_some_and(|(sent, _)| sent.saturating_add(self.delay) <= at);
        if due { self.waiting.pop_front().map(|(_, verdict)| verdict) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use pointsman_router::features::SchemaHash;

    use super::super::testing::args;
    use super::*;

    fn noise(flags: &[&str], seed: u64) -> Noise {
        Noise::new(&args(flags), seed)
    }

    #[test]
    fn shares_are_kept_and_seeds_repeat() {
        let some = noise(&["--feedback-rate", "0.3", "--flip-rate", "0.1"], 4);
        let share = |hit: &dyn Fn(usize) -> bool| (0..20_000).filter(|at| hit(*at)).count() as f64 / 20_000.0;
        assert!((share(&|at| some.comes(at)) - 0.3).abs() < 0.01);
        assert!((share(&|at| some.label(at, 3, 1.0) < 0.5) - 0.1).abs() < 0.01);
        // One model's labels say nothing of another's, one seed's nothing of another's.
        let both = share(&|at| some.label(at, 3, 1.0) < 0.5 && some.label(at, 4, 0.0) > 0.5);
        assert!((both - 0.01).abs() < 0.004, "{both}");
        let other = noise(&["--feedback-rate", "0.3"], 5);
        assert!((share(&|at| some.comes(at) && other.comes(at)) - 0.09).abs() < 0.01);
        assert!((0..99).all(|at| some.comes(at) == noise(&["--feedback-rate", "0.3"], 4).comes(at)));
    }

    #[test]
    fn without_noise_everything_comes_as_it_is() {
        let none = noise(&[], 1);
        let is = |label: f64, x: f64| (label - x).abs() < 1e-12;
        assert!((0..99).all(|at| none.comes(at) && is(none.label(at, 0, 0.25), 0.25)));
        let all = noise(&["--feedback-rate", "0", "--flip-rate", "1"], 1);
        assert!((0..99).all(|at| !all.comes(at) && is(all.label(at, 0, 0.25), 0.75)));
    }

    #[test]
    fn the_post_is_late_by_its_delay() {
        let features = Arc::new(Features {
            text: Vec::new(),
            surface: [0.0; 8],
            tags: Vec::new(),
            sketch: Vec::new(),
            prompt_bytes: 1,
            schema: SchemaHash(0),
        });
        for delay in [0, 1, 3] {
            let mut post = Post::new(delay);
            let mut learned = Vec::new();
            for at in 0..9 {
                let labels = vec![(ModelName::from(format!("m{at}")), 1.0)];
                post.send(at, Verdict { features: Arc::clone(&features), labels });
                while let Some(verdict) = post.arrived(at) {
                    learned.push((at, verdict.labels[0].0.to_string()));
                }
            }
            assert_eq!(learned, (delay..9).map(|at| (at, format!("m{}", at - delay))).collect::<Vec<_>>());
        }
    }
}
