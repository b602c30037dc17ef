//! The peer benchmark: binary streams on which the learner runs alone.
//!
//! A stream has contexts, true probabilities of being right, coin flips of every model, and costs. The
//! learner sees context and costs, picks, and is told the coin of the model it picked, some rounds later
//! if so wanted. It is [`Online`] with the choice of its own policy, the very code that serves. Regret is
//! reckoned from the true probabilities, which the learner never sees.
//!
//! # Format, little-endian, nothing between the arrays
//!
//! | offset | type | field |
//! |---|---|---|
//! | 0 | 8 bytes | magic `CBSTRM01` |
//! | 8 | u32 | version, 1 |
//! | 12, 16, 20 | u32 | rounds T, inputs d, models K |
//! | 24 | f32 | what cost counts against being right |
//! | 28, 32, 40 | u32, u64, 24 bytes | flags, seed, reserved |
//! | 64 | f32 T·d, f32 T·K, u8 T·K, f32 T·K | contexts, probabilities, coins, costs |
//!
//! The constant input is the learner's own affair and not in the file. Nothing is allocated before the
//! header's numbers were held against the length of the file.

use std::collections::VecDeque;

use pointsman_router::bandit::{BanditSettings, Choice};
use pointsman_router::clock::Draw;
use pointsman_router::features::SchemaHash;
use pointsman_router::ids::ModelName;
use pointsman_router::inputs::{DENSE_MAX, Inputs};

use crate::online::{InputLesson, Online};

const MAGIC: &[u8; 8] = b"CBSTRM01";
const VERSION: u32 = 1;
/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// Inputs that the learner takes beside the constant.
#[expect(clippy::cast_possible_truncation, reason = "eighty")]
pub const INPUTS_MAX: u32 = DENSE_MAX as u32 - 1;
/// Models that a stream may have.
pub const MODELS_MAX: u32 = 256;

/// Why bytes are no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// They are something else altogether.
    #[error("this is no stream, it does not begin with CBSTRM01")]
    Foreign,
    /// They are of another version of the format.
    #[error("the stream has version {found} and this program reads {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
    /// The header asks for what no stream has.
    #[error(
        "the header says {rounds} rounds, {inputs} inputs, {models} models; a stream has at least one of each, at most {INPUTS_MAX} inputs and {MODELS_MAX} models"
    )]
    Header {
        /// Rounds.
        rounds: u32,
        /// Inputs.
        inputs: u32,
        /// Models.
        models: u32,
    },
    /// The length is not the one that the header gives.
    #[error("the header promises {expected} bytes and there are {found}")]
    Length {
        /// By the header.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// A number is none, a probability none or a coin none.
    #[error("round {round} has a number that cannot be")]
    Number {
        /// The round, from zero.
        round: usize,
    },
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Header {
    /// Rounds.
    pub rounds: u32,
    /// Inputs without the constant.
    pub inputs: u32,
    /// Models.
    pub models: u32,
    /// What cost counts against being right.
    pub cost_weight: f32,
}

impl Header {
    /// Reads a header, and holds it against the length of all there is.
    ///
    /// # Errors
    /// [`StreamError`] when this is no stream of that length.
    pub fn read(bytes: &[u8], length: u64) -> Result<Self, StreamError> {
        let Some((magic, rest)) = bytes.split_first_chunk::<8>().filter(|(magic, _)| *magic == MAGIC) else {
            return Err(StreamError::Foreign);
        };
        let too_short =
            StreamError::Length { expected: HEADER_BYTES as u64, found: (magic.len() + rest.len()) as u64 };
        let (words, _) = rest.as_chunks::<4>();
        let [version, rounds, inputs, models, weight, ..] = words else { return Err(too_short) };
        let [version, rounds, inputs, models] =
            [version, rounds, inputs, models].map(|word| u32::from_le_bytes(*word));
        let cost_weight = f32::from_le_bytes(*weight);
        if version != VERSION {
            return Err(StreamError::Version { found: version });
        }
        if rest.len() + magic.len() < HEADER_BYTES {
            return Err(too_short);
        }
        if rounds == 0 || inputs == 0 || inputs > INPUTS_MAX || models == 0 || models > MODELS_MAX {
            return Err(StreamError::Header { rounds, inputs, models });
        }
        if !cost_weight.is_finite() {
            return Err(StreamError::Number { round: 0 });
        }
        let header = Self { rounds, inputs, models, cost_weight };
        let expected = header.bytes();
        if expected != length {
            return Err(StreamError::Length { expected, found: length });
        }
        Ok(header)
    }

    /// Bytes of the whole stream.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let [rounds, inputs, models] = [self.rounds, self.inputs, self.models].map(u64::from);
        // At most 2^32 · (4 · 79 + 9 · 256): far from overflow.
        HEADER_BYTES as u64 + rounds * (4 * inputs + 9 * models)
    }
}

/// A stream.
#[derive(Debug, Clone)]
pub struct Stream {
    inputs: usize,
    models: usize,
    cost_weight: f64,
    contexts: Vec<f32>,
    probabilities: Vec<f32>,
    coins: Vec<u8>,
    costs: Vec<f32>,
}

/// One round, by model but for the context.
#[derive(Debug, Clone, Copy)]
pub struct Round<'a> {
    /// The inputs without the constant.
    pub context: &'a [f32],
    /// The true probabilities of being right.
    pub probabilities: &'a [f32],
    /// Whether each would be right: zero or one.
    pub coins: &'a [u8],
    /// What a call costs.
    pub costs: &'a [f32],
}

impl Round<'_> {
    /// The pseudo-regret of a pick.
    #[must_use]
    pub fn regret(&self, picked: usize, cost_weight: f64) -> f64 {
        let pairs = self.probabilities.iter().zip(self.costs);
        let mut utilities = pairs.map(|(p, c)| f64::from(*p) - cost_weight * f64::from(*c));
        let (best, own) =
            utilities.by_ref().enumerate().fold((f64::NEG_INFINITY, 0.0), |(best, own), (model, u)| {
                (best.max(u), if model == picked { u } else { own })
            });
        best - own
    }
}

impl Stream {
    /// Reads a stream.
    ///
    /// # Errors
    /// [`StreamError`] when the bytes are none.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, StreamError> {
        let header = Header::read(bytes, bytes.len() as u64)?;
        let [rounds, inputs, models] = [header.rounds, header.inputs, header.models].map(|n| n as usize);
        let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
        // The length was checked, so nothing is cut short.
        let mut take = |bytes: usize| {
            let (taken, left) = rest.split_at_checked(bytes).unwrap_or_default();
            rest = left;
            taken
        };
        let stream = Self {
            inputs,
            models,
            cost_weight: f64::from(header.cost_weight),
            contexts: floats(take(4 * rounds * inputs)),
            probabilities: floats(take(4 * rounds * models)),
            coins: take(rounds * models).to_vec(),
            costs: floats(take(4 * rounds * models)),
        };
        let sound = |round: &Round<'_>| {
            round.context.iter().chain(round.costs).all(|x| x.is_finite())
                && round.probabilities.iter().all(|p| (0.0..=1.0).contains(p))
                && round.coins.iter().all(|coin| *coin <= 1)
        };
        let unsound = stream.rounds().position(|round| !sound(&round));
        unsound.map_or(Ok(stream), |round| Err(StreamError::Number { round }))
    }

    /// The rounds in their order.
    pub fn rounds(&self) -> impl ExactSizeIterator<Item = Round<'_>> + Clone {
        let by_model = self.probabilities.chunks_exact(self.models).zip(self.coins.chunks_exact(self.models));
        let by_model = by_model.zip(self.costs.chunks_exact(self.models));
        self.contexts
            .chunks_exact(self.inputs)
            .zip(by_model)
            .map(|(context, ((probabilities, coins), costs))| Round { context, probabilities, coins, costs })
    }

    /// Inputs without the constant.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Models.
    #[must_use]
    pub fn models(&self) -> usize {
        self.models
    }

    /// What cost counts against being right.
    #[must_use]
    pub fn cost_weight(&self) -> f64 {
        self.cost_weight
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect()
}

/// What one run came to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Regret {
    /// Pseudo-regret of the rounds before the middle.
    pub first_half: f64,
    /// Of those from the middle on.
    pub second_half: f64,
    /// How often a head was loosened because it no longer fitted.
    pub resets: u64,
}

/// Runs the learner over a stream. Feedback on a round arrives when `delay` further rounds were decided.
#[must_use]
pub fn play(stream: &Stream, settings: BanditSettings, seed: u64, delay: usize) -> Regret {
    let mut learner = Online::new(settings, SchemaHash(0));
    let names: Vec<ModelName> = (0..stream.models).map(|i| ModelName::from(format!("model-{i}"))).collect();
    let mut draw = Draw::from_seed(seed);
    let mut inputs = Inputs { dense: vec![1.0; 1 + stream.inputs], sparse: Vec::new() };
    let mut waiting: VecDeque<(Round<'_>, usize)> = VecDeque::with_capacity(delay + 1);
    let mut regret = Regret::default();
    let middle = stream.rounds().len() / 2;
    for (t, round) in stream.rounds().enumerate() {
        set_context(&mut inputs, round.context);
        let heads = learner.heads();
        let prices = round.costs.iter().map(|cost| stream.cost_weight * f64::from(*cost));
        let lanes = names.iter().map(|name| heads.lane(name.as_str()));
        let choices = lanes.zip(prices).map(|(lane, price)| Choice { lane, offset: 0.0, price, barred: false });
        let estimates = learner.bandit().estimates(&inputs, choices);
        let picked = draw.index(estimates.iter().map(|e| e.pick)).unwrap_or(0);
        let half = if t < middle { &mut regret.first_half } else { &mut regret.second_half };
        *half += round.regret(picked, stream.cost_weight);
        waiting.push_back((round, picked));
        if waiting.len() > delay
            && let Some((round, picked)) = waiting.pop_front()
            && let (Some(model), Some(coin)) = (names.get(picked), round.coins.get(picked))
        {
            set_context(&mut inputs, round.context);
            let new = Some(f64::from(*coin));
            learner
                .teach_inputs(t as u64 + 1, &InputLesson { inputs: &inputs, offset: 0.0, model, old: None, new });
        }
    }
    regret.resets = names.iter().map(|name| learner.resets(name.as_str())).sum();
    regret
}

/// The constant stays in front.
fn set_context(inputs: &mut Inputs, context: &[f32]) {
    if let Some((_, rest)) = inputs.dense.split_first_mut() {
        rest.copy_from_slice(context);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A small stream: two models, one of them right when the first input is positive.
    #[expect(clippy::cast_possible_truncation, reason = "small numbers of a test")]
    fn bytes(rounds: u32) -> Vec<u8> {
        let mut draw = Draw::from_seed(8);
        let mut out = MAGIC.to_vec();
        [VERSION, rounds, 3, 2].iter().for_each(|word| out.extend(word.to_le_bytes()));
        out.extend(0.5_f32.to_le_bytes());
        out.resize(HEADER_BYTES, 0);
        let contexts: Vec<[f32; 3]> = (0..rounds).map(|_| [(); 3].map(|()| draw.uniform() as f32 - 0.5)).collect();
        let probabilities: Vec<[f32; 2]> =
            contexts.iter().map(|x| if x[0] > 0.0 { [0.9, 0.2] } else { [0.1, 0.2] }).collect();
        contexts.iter().flatten().for_each(|x| out.extend(x.to_le_bytes()));
        probabilities.iter().flatten().for_each(|p| out.extend(p.to_le_bytes()));
        out.extend(probabilities.iter().flatten().map(|p| u8::from(draw.uniform() < f64::from(*p))));
        (0..rounds).for_each(|_| [0.1_f32, 0.02].iter().for_each(|c| out.extend(c.to_le_bytes())));
        out
    }

    #[test]
    fn a_stream_is_read_and_learned() {
        let stream = Stream::from_bytes(&bytes(3_000)).unwrap();
        assert_eq!((stream.rounds().len(), stream.inputs(), stream.models()), (3_000, 3, 2));
        let round = stream.rounds().next().unwrap();
        let best = if round.context[0] > 0.0 { 0 } else { 1 };
        assert!(round.regret(best, stream.cost_weight()).abs() < 1e-9);
        assert!(round.regret(1 - best, stream.cost_weight()) > 0.05);
        let settings = BanditSettings::dense(4);
        let regret = play(&stream, settings, 1, 0);
        // Either model alone: .31 and .06 a round, for one half of the rounds each.
        assert!(regret.first_half > 0.0 && regret.second_half < 60.0, "{regret:?}");
        assert_eq!(regret, play(&stream, settings, 1, 0));
        assert_ne!(regret, play(&stream, settings, 2, 0));
        let late = play(&stream, settings, 1, 500);
        assert!(late.first_half > regret.first_half, "{late:?}");
        // Feedback that never comes teaches nothing.
        assert!(play(&stream, settings, 1, 5_000).second_half > 150.0);
    }

    #[test]
    fn what_is_no_stream_is_told_apart() {
        #[track_caller]
        fn check(change: impl FnOnce(&mut Vec<u8>), expected: StreamError) {
            let mut changed = bytes(5);
            change(&mut changed);
            assert_eq!(Stream::from_bytes(&changed).map(|_| ()), Err(expected));
        }
        let length = 64 + 5 * (12 + 18);
        let header = |rounds, inputs, models| StreamError::Header { rounds, inputs, models };
        check(|b| b[0] = b'X', StreamError::Foreign);
        check(|b| b.truncate(5), StreamError::Foreign);
        check(|b| b.truncate(40), StreamError::Length { expected: 64, found: 40 });
        check(|b| b.truncate(20), StreamError::Length { expected: 64, found: 20 });
        check(|b| b[8] = 2, StreamError::Version { found: 2 });
        check(|b| b[12..16].fill(0), header(0, 3, 2));
        check(|b| b[16] = 80, header(5, 80, 2));
        check(|b| b[20..24].fill(0xff), header(5, 3, u32::MAX));
        check(
            |b| b[12..16].fill(0xff),
            StreamError::Length { expected: 64 + u64::from(u32::MAX) * 30, found: length },
        );
        check(|b| b.truncate(b.len() - 1), StreamError::Length { expected: length, found: length - 1 });
        check(|b| b.push(0), StreamError::Length { expected: length, found: length + 1 });
        check(|b| b[64..68].copy_from_slice(&f32::NAN.to_le_bytes()), StreamError::Number { round: 0 });
        check(|b| b[64 + 60 + 40] = 7, StreamError::Number { round: 0 });
        check(|b| b[64 + 60 + 8..][..4].copy_from_slice(&1.5_f32.to_le_bytes()), StreamError::Number { round: 1 });
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_reader(tail in prop::collection::vec(any::<u8>(), 0..200), keep in 0_usize..70) {
            let mut bytes = bytes(5);
            bytes.truncate(keep);
            bytes.extend(tail);
            let _ = Stream::from_bytes(&bytes);
        }
    }
}
