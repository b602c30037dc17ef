use std::sync::Arc;

use pointsman_router::hold::Hold;
use pointsman_router::trace::{Trace, TracePlace, TraceSink, TraceStatus};
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::*;
use crate::store::ledger::WindowRow;
use crate::store::traces::support::{START, charged, sample};
use crate::store::traces::{NewReport, Tally, TraceStoreSettings};

const HOLD: NanoUsd = NanoUsd::new(5_000);

struct Stores {
    folder: TempDir,
    traces: TraceStore,
    ledger: LedgerStore,
}

async fn stores(folder: TempDir) -> Stores {
    let (tell, _) = mpsc::unbounded_channel();
    let ledger = LedgerStore::open(&folder.path().join("ledger.db"), None).await.unwrap();
    let settings = TraceStoreSettings {
        floor: ledger.booked_through().await.unwrap(),
        linger: std::time::Duration::ZERO,
        ..TraceStoreSettings::default()
    };
    let traces = TraceStore::open(&folder.path().join("traces.db"), settings, tell).await.unwrap();
    Stores { folder, traces, ledger }
}

impl Stores {
    async fn new() -> Self {
        stores(tempfile::tempdir().unwrap()).await
    }

    fn push(&self, n: u32, status: TraceStatus) {
        let trace = sample(n);
        let hold = Hold { decision: trace.decision.id, amount: HOLD, charges: charged("", START) };
        let sink: Arc<dyn TraceSink> = Arc::new(self.traces.clone());
        TracePlace::reserve(&sink).unwrap().push(Arc::new(Trace { status, hold: Some(hold), ..trace }));
    }

    async fn end(&self, n: u32, cost: i64) {
        let decision = sample(n).decision.id;
        let hold = Some(Hold { decision, amount: HOLD, charges: charged("", START) });
        let body = ReportEnd { answer: None, cost: NanoUsd::new(cost), hold }.to_bytes();
        let (task, tally) = ("law".into(), Tally::default());
        let row = NewReport { decision, model: None, task, at: START, tally, body };
        self.traces.report(vec![row]).await.unwrap();
    }

    async fn window(&self) -> WindowRow {
        self.ledger.windows("b", 1).await.unwrap().remove(0)
    }

    async fn check(&self, (settled, unknown, overrun): (i64, i64, i64)) {
        let row = self.window().await;
        assert_eq!((row.settled.nanos(), row.unknown.nanos(), row.overrun.nanos()), (settled, unknown, overrun));
    }
}

#[tokio::test]
async fn a_decision_is_unknown_until_its_report_replaces_it() {
    let stores = Stores::new().await;
    stores.push(0, TraceStatus::Decided);
    stores.push(1, TraceStatus::Answered);
    stores.traces.flushed().await.unwrap();
    catch_up("b", &stores.traces, &stores.ledger, START).await.unwrap();
    stores.check((300, 5_000, 0)).await;
    stores.end(0, 7_000).await;
    stores.end(0, 1).await;
    for _ in 0..2 {
        catch_up("b", &stores.traces, &stores.ledger, START).await.unwrap();
        stores.check((7_300, 0, 2_000)).await;
    }
}

#[tokio::test]
async fn rows_that_were_caught_up_with_are_not_booked_when_they_are_told_of() {
    let stores = Stores::new().await;
    stores.push(0, TraceStatus::Answered);
    stores.traces.flushed().await.unwrap();
    let mark = catch_up("b", &stores.traces, &stores.ledger, START).await.unwrap();
    stores.push(1, TraceStatus::Answered);
    stores.traces.flushed().await.unwrap();
    let told = stores.traces.scan(0, 99).await.unwrap();
    assert_eq!(book("b", &stores.ledger, (mark, 2), &told, START).await, Ok(2));
    stores.check((600, 0, 0)).await;
}

#[tokio::test]
async fn absurd_costs_do_not_stop_the_books() {
    let stores = Stores::new().await;
    for n in 0..3 {
        stores.push(n, TraceStatus::Decided);
        stores.end(n, i64::MAX).await;
    }
    assert_eq!(catch_up("b", &stores.traces, &stores.ledger, START).await, Ok(6));
    let row = stores.window().await;
    assert_eq!((row.settled, row.spent()), (NanoUsd::MAX, NanoUsd::MAX));
    stores.push(3, TraceStatus::Answered);
    stores.traces.flushed().await.unwrap();
    assert_eq!(catch_up("b", &stores.traces, &stores.ledger, START).await, Ok(7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Pieces of booking in any cut, repeated, stale, and with crashes between them.
    #[test]
    fn every_row_is_booked_once(
        kinds in prop::collection::vec(0_u8..3, 1..30),
        steps in prop::collection::vec((0_u8..4, 0_u64..40, 0_u64..40), 0..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut stores = Stores::new().await;
            let (mut settled, mut unknown) = (0, 0);
            for (n, kind) in (0_u32..).zip(&kinds) {
                let answered = *kind == 0;
                stores.push(n, if answered { TraceStatus::Answered } else { TraceStatus::Decided });
                if *kind == 2 {
                    stores.end(n, 40).await;
                }
                settled += [300, 0, 40][usize::from(*kind)];
                unknown += [0, HOLD.nanos(), 0][usize::from(*kind)];
            }
            stores.traces.flushed().await.unwrap();
            let rows = stores.traces.scan(0, 999).await.unwrap();
            for (step, after, span) in steps {
                let mark = stores.ledger.booked_through().await.unwrap();
                let after = if step < 2 { mark } else { after };
                let through = (after + span).min(rows.len() as u64);
                if step == 3 {
                    stores = self::stores(stores.folder).await;
                } else if through >= after {
                    let after_book = book("b", &stores.ledger, (after, through), &rows, START).await.unwrap();
                    assert!(after_book == through || after_book == mark);
                }
            }
            catch_up("b", &stores.traces, &stores.ledger, START).await.unwrap();
            stores.check((settled, unknown, 0)).await;
        });
    }
}

#[test]
fn a_call_above_its_card_is_found() {
    let trace = sample(1);
    let cost = trace.attempts.iter().find(|attempt| attempt.model.as_str() == "large").unwrap().known_cost();
    assert!(cost > NanoUsd::ZERO);
    for (worst_case, found) in [(cost, 0), (NanoUsd::new(cost.nanos() - 1), 1)] {
        let mut decision = (*trace.decision).clone();
        for candidate in &mut decision.candidates {
            candidate.worst_case = if candidate.model.as_str() == "large" { worst_case } else { NanoUsd::MAX };
        }
        let trace = Arc::new(Trace { decision: Arc::new(decision), ..trace.clone() });
        let above = above_their_cards(&Committed::Trace { seq: 1, trace });
        assert_eq!(above.iter().filter(|(model, _)| model.as_str() == "large").count(), found);
        assert_eq!(above.len(), found);
    }
}
