//! What the online state keeps to notice change: one alarm and one watch per lane, two watches per model
//! that was called, and the last alerts.

use std::collections::{BTreeMap, VecDeque};

use pointsman_router::ids::ModelName;

use crate::drift::{Alarm, Alert, Moved, Watch, Watched};

/// Alerts that are kept.
pub const ALERTS_MAX: usize = 64;

/// Tests of change and what they said.
#[derive(Debug, Clone, Default)]
pub(super) struct Changes {
    /// By lane.
    pub(super) lanes: Vec<(Alarm, Watch)>,
    /// Of cost and of latency.
    pub(super) calls: BTreeMap<ModelName, [Watch; 2]>,
    /// Oldest first, [`ALERTS_MAX`] at most.
    pub(super) alerts: VecDeque<Alert>,
    /// Alerts there ever were.
    pub(super) alerts_total: u64,
}

/// A label beside what had been predicted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    /// Its ledger sequence.
    pub(super) seq: u64,
    /// What was found.
    pub(super) label: f64,
    /// The quality that a policy would have reckoned with.
    pub(super) predicted: f64,
}

impl Changes {
    /// Takes in a first label; true when the head is to be loosened, which is only where there are alarms.
    pub(super) fn label(&mut self, (lane, model): (usize, &ModelName), found: Found, alarms: bool) -> bool {
        if self.lanes.len() <= lane {
            self.lanes.resize(lane + 1, Default::default());
        }
        let Some((alarm, watch)) = self.lanes.get_mut(lane) else { return false };
        let mut moved = watch.quality(found.label, found.predicted);
        let rings = alarms && alarm.observe(found.label, found.predicted);
        if rings {
            // Nobody's head is loosened without being told of; and the head that was watched is no more.
            moved = moved.or_else(|| watch.suspected());
            *watch = Watch::default();
        }
        self.note(model, Watched::Quality, found.seq, moved);
        rings
    }

    /// The lanes whose alarm has rung.
    pub(super) fn changed(&self) -> impl Iterator<Item = usize> {
        self.lanes.iter().enumerate().filter(|(_, (alarm, _))| alarm.resets > 0).map(|(lane, _)| lane)
    }

    /// Takes in a logarithm of cost or latency; true when the forecast is to begin anew.
    pub(super) fn call(
        &mut self,
        model: &ModelName,
        what: Watched,
        seq: u64,
        (found, forecast): (f64, (f64, f64)),
    ) -> bool {
        let [cost, latency] = self.calls.entry(model.clone()).or_default();
        let watch = if what == Watched::Cost { cost } else { latency };
        let moved = watch.logarithm(found, forecast);
        let raised = moved.map(|m| Moved { before: libm::exp(m.before), after: libm::exp(m.after), ..m });
        self.note(model, what, seq, raised);
        moved.is_some()
    }

    fn note(&mut self, model: &ModelName, what: Watched, at_seq: u64, moved: Option<Moved>) {
        let Some(Moved { direction, before, after }) = moved else { return };
        if self.alerts.len() >= ALERTS_MAX {
            self.alerts.pop_front();
        }
        self.alerts.push_back(Alert { model: model.clone(), what, direction, at_seq, before, after });
        self.alerts_total += 1;
    }
}
