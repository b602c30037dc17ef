//! What rows fill the learners with whose shapes are known: one row at a time, any number of them.
//!
//! A reading of all rows runs beside the adding up: chunks of rows go to a fixed number of parts, each
//! of which takes its share of every chunk, in order; so the sums do not depend on the machine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use pointsman_router::features::Features;
use pointsman_router::forest::Forest;
use pointsman_router::ids::ModelName;

use super::dense::Dense;
use super::sample::in_order;
use super::{Stage, TrainError, go_on};
use crate::fit::ridge::Labels;
use crate::fit::sparse::PARTS;
use crate::fit::trees::Counts;
use crate::rows::{Rows, TrainingRow};

/// What is filled row by row.
#[derive(Debug)]
pub(super) struct Shapes {
    /// ȳ of each lane.
    pub(super) means: Vec<f32>,
    /// Trees without leaves.
    pub(super) forest: Forest,
}

impl Shapes {
    /// What no row has filled.
    pub(super) fn counts(&self) -> Counts {
        Counts::new(&self.forest, self.means.len())
    }

    /// Takes in the dense inputs of a row, without the constant.
    pub(super) fn count(&self, counts: &mut Counts, dense: &[f32], labels: &Labels) {
        counts.add(&self.forest, dense, (labels, &self.means));
    }

    /// The trees with their leaves.
    pub(super) fn filled(&self, counts: &Counts) -> Forest {
        Forest { leaves: counts.leaves(), ..self.forest.clone() }
    }
}

/// The parts together, in their order.
pub(super) fn merged(parts: Vec<Counts>, shapes: &Shapes) -> Counts {
    let mut parts = parts.into_iter();
    let mut all = parts.next().unwrap_or_else(|| shapes.counts());
    parts.for_each(|part| all.merge(&part));
    all
}

/// Whom to tell how far the reading is, and between which shares of the whole it lies.
pub(super) struct Told<'a> {
    pub(super) tell: &'a mut dyn FnMut(Stage, f64) -> ControlFlow<()>,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) rows: u64,
}

/// Rows that go to the parts at once.
const CHUNK: usize = 1_024;
/// Chunks that wait for a part, at most.
const WAITING: usize = 2;

type Chunk = Arc<Vec<(Arc<Features>, Labels)>>;

/// What all judged rows fill the shapes with.
pub(super) fn of_all<R: Rows>(
    rows: &R,
    dense: &Dense<'_>,
    shapes: &Shapes,
    (models, told): (&[ModelName], Told<'_>),
) -> Result<Counts, TrainError<R::Error>> {
    let lanes: BTreeMap<&ModelName, usize> = models.iter().enumerate().map(|(lane, name)| (name, lane)).collect();
    std::thread::scope(|scope| {
        let (mut inlets, mut running) = (Vec::new(), Vec::new());
        for part in 0..PARTS {
            let (inlet, outlet) = sync_channel(WAITING);
            inlets.push(inlet);
            running.push(scope.spawn(move || work(&outlet, part, dense, shapes)));
        }
        let read = read(rows, &lanes, &inlets, told);
        drop(inlets);
        let mut parts = Vec::new();
        for thread in running {
            match thread.join() {
                Ok(part) => parts.push(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        read.map(|()| merged(parts, shapes))
    })
}

/// Every [`PARTS`]th row of what comes.
fn work(chunks: &Receiver<Chunk>, part: usize, dense: &Dense<'_>, shapes: &Shapes) -> Counts {
    let mut counts = shapes.counts();
    for chunk in chunks {
        let mine = || chunk.iter().skip(part).step_by(PARTS);
        let features: Vec<&Arc<Features>> = mine().map(|(features, _)| features).collect();
        let rows = dense.of_few(&features);
        for (row, (_, labels)) in rows.chunks_exact(dense.inputs()).zip(mine()) {
            shapes.count(&mut counts, row, labels);
        }
    }
    counts
}

fn read<R: Rows>(
    rows: &R,
    lanes: &BTreeMap<&ModelName, usize>,
    inlets: &[SyncSender<Chunk>],
    told: Told<'_>,
) -> Result<(), TrainError<R::Error>> {
    let send = |chunk: Vec<(Arc<Features>, Labels)>| {
        let chunk = Arc::new(chunk);
        // A part that is gone has panicked, which is told where it is joined.
        inlets.iter().for_each(|inlet| drop(inlet.send(Arc::clone(&chunk))));
    };
    let (mut chunk, mut read) = (Vec::with_capacity(CHUNK), 0_u64);
    for row in rows.read().map_err(TrainError::Rows)? {
        let row = row.map_err(TrainError::Rows)?;
        read += 1;
        let labels = labels(&row, lanes);
        if labels.is_empty() {
            continue;
        }
        chunk.push((row.features, labels));
        if chunk.len() == CHUNK {
            send(std::mem::replace(&mut chunk, Vec::with_capacity(CHUNK)));
            let share = (read as f64 / told.rows.max(1) as f64).min(1.0);
            go_on((told.tell)(Stage::FittingModels, told.from + (told.to - told.from) * share))?;
        }
    }
    send(chunk);
    Ok(())
}

fn labels(row: &TrainingRow, lanes: &BTreeMap<&ModelName, usize>) -> Labels {
    let judged = row.labels().filter_map(|(model, label)| Some((*lanes.get(model)?, label)));
    let mut labels = judged.collect();
    in_order(&mut labels);
    labels
}
