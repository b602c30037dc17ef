//! How long learning takes, beside what it may: 65 dense inputs (64 and the constant), no sparse ones.
//!
//! `update`: one label for one of twelve models; at most 5 µs. `round`: decide among eight models and learn one
//! label, as `pointsmand streams` does; at most 10 µs, which is 100,000 rounds a second on one thread.

#![allow(missing_docs, reason = "criterion's macro makes public items without documentation")]
#![expect(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "a bench over tables of its own")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman_learner::online::{InputLesson, Online};
use pointsman_router::bandit::{BanditSettings, Choice};
use pointsman_router::clock::Draw;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::ModelName;
use pointsman_router::inputs::Inputs;

const DENSE: usize = 65;

/// A learner, the names of its models, and contexts of length one.
struct Stand {
    learner: Online,
    names: Vec<ModelName>,
    contexts: Vec<Inputs>,
    draw: Draw,
    seq: u64,
}

impl Stand {
    /// With every model somewhat known.
    fn new(models: usize) -> Self {
        let mut draw = Draw::from_seed(1);
        let context = |_| Inputs {
            dense: (0..DENSE).map(|i| if i == 0 { 1.0 } else { 0.43 * (draw.uniform() as f32 - 0.5) }).collect(),
            sparse: Vec::new(),
        };
        let contexts = (0..256).map(context).collect();
        let names = (0..models).map(|i| ModelName::from(format!("model-{i:02}"))).collect();
        let learner = Online::new(BanditSettings::dense(DENSE), SchemaHash(0));
        let mut stand = Self { learner, names, contexts, draw, seq: 0 };
        (0..200 * models).for_each(|i| stand.learn(i % models));
        stand
    }

    fn learn(&mut self, model: usize) {
        self.seq += 1;
        let inputs = &self.contexts[self.seq as usize % self.contexts.len()];
        let new = Some(f64::from(u8::from(self.draw.uniform() < 0.6)));
        let lesson = InputLesson { inputs, offset: 0.0, model: &self.names[model], old: None, new };
        self.learner.teach_inputs(self.seq, &lesson);
    }

    fn decide(&mut self) -> usize {
        let inputs = &self.contexts[self.seq as usize % self.contexts.len()];
        let heads = self.learner.heads();
        let lanes = self.names.iter().map(|name| heads.lane(name.as_str()));
        let choices = lanes.map(|lane| Choice { lane, offset: 0.0, price: 0.05, barred: false });
        let estimates = self.learner.bandit().estimates(inputs, choices);
        self.draw.index(estimates.iter().map(|e| e.pick)).unwrap_or(0)
    }
}

fn learning(c: &mut Criterion) {
    let mut stand = Stand::new(12);
    c.bench_function("update", |b| {
        b.iter(|| {
            let model = stand.seq as usize % 12;
            stand.learn(black_box(model));
        });
    });
    let mut stand = Stand::new(8);
    c.bench_function("round", |b| {
        b.iter(|| {
            let picked = stand.decide();
            stand.learn(black_box(picked));
        });
    });
}

criterion_group!(benches, learning);
criterion_main!(benches);
