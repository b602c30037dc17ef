use pointsman_proto::v1::AttemptStatus as Ended;
use pointsman_router::request::KindName;
use proptest::prelude::*;

use super::*;
use crate::learning::tests::{HOLD, School, lesson, payer};
use crate::store::traces::support::{START, charged, limit_pages};

const MINUTES_10: Duration = Duration::from_secs(600);

fn said(model: &str, answer: &str, cost: Option<i64>) -> v1::ReportedOutcome {
    v1::ReportedOutcome {
        model: model.to_owned(),
        status: Ended::Ok.into(),
        answer: answer.to_owned(),
        tokens_in: 3,
        tokens_out: 5,
        cost_usd_nanos: cost,
        latency_us: Some(1_500),
        ..Default::default()
    }
}

fn request(id: DecisionId, outcomes: Vec<v1::ReportedOutcome>, last: bool) -> v1::ReportOutcomesRequest {
    v1::ReportOutcomesRequest { decision_id: id.to_string(), outcomes, r#final: last }
}

/// Decision 2 waits for its report; `small` is more trusted than `large` and priced by its caller.
async fn decided(school: &School, change: impl FnOnce(Trace) -> Trace) -> DecisionId {
    let trace = lesson(2);
    let hold = school.budget.hold(trace.decision.id, HOLD, payer(&trace), START).await.unwrap();
    let trace = change(Trace { hold: Some(hold.clone()), ..trace });
    if trace.hold.is_some() {
        school.reports.expect(&trace, trace.at.plus(MINUTES_10));
    } else {
        school.budget.settle(&hold, Bill::default());
    }
    school.push(trace)
}

async fn tell(
    school: &School,
    id: DecisionId,
    outcomes: Vec<v1::ReportedOutcome>,
    last: bool,
) -> Result<Standing, ReportError> {
    school.reports.report(request(id, outcomes, last), &View::All).await
}

fn value(standing: &Standing) -> Option<&str> {
    standing.answer.as_ref().and_then(|answer| answer.value.as_deref())
}

/// Spent and held in memory, settled and unknown in the file.
async fn check_money(school: &School, (spent, held): (i64, i64), (settled, unknown): (i64, i64)) {
    school.rest().await;
    let status = school.budget.status(START);
    assert_eq!((status.spent.nanos(), status.held.nanos()), (spent, held));
    let row = school.ledger.windows("all", 1).await.unwrap().remove(0);
    assert_eq!((row.settled.nanos(), row.unknown.nanos()), (settled, unknown));
}

/// The trace as it is shown.
async fn whole(school: &School, id: DecisionId) -> Arc<Trace> {
    let Lookup::Found((_, trace)) = school.traces.committed(id).await.unwrap() else { panic!("is gone") };
    with_reports(&school.traces, trace).await.unwrap()
}

fn faults(refused: Result<Standing, ReportError>) -> Vec<String> {
    match refused {
        Err(ReportError::BadRequest(bad)) => bad.faults.iter().map(|fault| fault.field.clone()).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn parts_add_up_and_the_first_of_each_model_stands() {
    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    let first = tell(&school, id, vec![said("large", "a", None)], false).await.unwrap();
    assert_eq!(first.acks, [("large".into(), Reported::Recorded)]);
    assert_eq!((first.cost.nanos(), first.settled, first.answer), (13, false, None));
    assert_eq!(first.missing, ["small".into()]);
    check_money(&school, (0, 5_000), (0, 5_000)).await;
    let other = tell(&school, id, vec![said("large", "b", Some(4_000))], false).await.unwrap();
    assert_eq!((other.acks, other.cost.nanos()), (vec![("large".into(), Reported::Repeated)], 13));
    // All are there: that is the end, asked for or not.
    let end = tell(&school, id, vec![said("small", "A.", Some(900))], false).await.unwrap();
    assert_eq!((end.cost.nanos(), end.settled, end.missing.len()), (913, true, 0));
    let answer = end.answer.clone().unwrap();
    assert!(answer.contributions.iter().all(|c| c.agrees), "the earlier text was merged: {answer:?}");
    check_money(&school, (913, 0), (913, 0)).await;
    let again = tell(&school, id, vec![said("small", "z", Some(7))], true).await.unwrap();
    assert_eq!(again.acks, [("small".into(), Reported::Repeated)]);
    assert_eq!((value(&again), again.cost, again.settled), (value(&end), end.cost, true));
    check_money(&school, (913, 0), (913, 0)).await;
    let whole = whole(&school, id).await;
    assert_eq!(whole.status, TraceStatus::Answered);
    assert_eq!((whole.outcomes.len(), whole.attempts.len(), whole.bill.settled.nanos()), (2, 2, 913));
    assert_eq!(whole.answer.as_ref().unwrap().confidence.to_bits(), answer.confidence.to_bits());
}

#[tokio::test(start_paused = true)]
async fn all_faults_are_told_at_once_and_nothing_is_kept() {
    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    let bad = |change: fn(&mut v1::ReportedOutcome)| {
        let mut outcome = said("large", "a", Some(1));
        change(&mut outcome);
        vec![outcome]
    };
    let cases: Vec<(Vec<v1::ReportedOutcome>, &[&str])> = vec![
        (vec![said("off", "a", Some(1)), said("none", "a", Some(1))], &["outcomes[0].model", "outcomes[1].model"]),
        (vec![said("large", "a", None), said("large", "a", None)], &["outcomes[1].model"]),
        (vec![said("small", "a", None)], &["outcomes[0].cost_usd_nanos"]),
        (bad(|o| o.cost_usd_nanos = Some(-1)), &["outcomes[0].cost_usd_nanos"]),
        (bad(|o| (o.cost_usd_nanos, o.tokens_out) = (None, u64::MAX)), &["outcomes[0].tokens_out"]),
        (bad(|o| o.status = 0), &["outcomes[0].status", "outcomes[0].answer"]),
        (bad(|o| o.status = 99), &["outcomes[0].status", "outcomes[0].answer"]),
        (bad(|o| o.status = Ended::Timeout.into()), &["outcomes[0].answer"]),
        (bad(|o| o.error = "x".repeat(1_025)), &["outcomes[0].error"]),
        (bad(|o| o.self_confidence = Some(f64::NAN)), &["outcomes[0].self_confidence"]),
        (bad(|o| o.self_confidence = Some(1.1)), &["outcomes[0].self_confidence"]),
        (bad(|o| o.latency_us = Some(-1)), &["outcomes[0].latency_us"]),
    ];
    for (outcomes, expected) in cases {
        assert_eq!(faults(tell(&school, id, outcomes.clone(), true).await), expected, "{outcomes:?}");
    }
    let garbled = v1::ReportOutcomesRequest { decision_id: "x".to_owned(), ..Default::default() };
    assert_eq!(faults(school.reports.report(garbled, &View::All).await), ["decision_id"]);
    assert!(school.traces.reports(id).await.unwrap().is_empty());
    check_money(&school, (0, 5_000), (0, 5_000)).await;
}

#[tokio::test(start_paused = true)]
async fn only_known_decisions_of_decide_are_reported() {
    let school = School::new().await;
    let routed = school.route(0).await;
    let refused = tell(&school, routed, Vec::new(), true).await;
    assert_eq!(refused, Err(ReportError::NotDecideOnly { id: routed }));
    let unknown = lesson(50).decision.id;
    assert_eq!(tell(&school, unknown, Vec::new(), true).await, Err(ReportError::Unknown { id: unknown }));
    let old = decided(&school, |trace| trace).await;
    school.rest().await;
    school.clock.set(START.plus(Duration::from_secs(40 * 86_400)));
    school.retention.prune().await.unwrap();
    assert_eq!(tell(&school, old, Vec::new(), true).await, Err(ReportError::Pruned { id: old }));
}

#[tokio::test(start_paused = true)]
async fn the_end_settles_what_was_reported_and_what_comes_later_changes_nothing() {
    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    let end = tell(&school, id, vec![said("large", "a", None)], true).await.unwrap();
    assert_eq!((end.settled, end.missing.clone(), value(&end)), (true, vec!["small".into()], Some("a")));
    let late = tell(&school, id, vec![said("small", "b", Some(4_000))], true).await.unwrap();
    assert_eq!(late.acks, [("small".into(), Reported::Repeated)]);
    assert_eq!((late.cost, value(&late), &late.missing), (end.cost, value(&end), &end.missing));
    check_money(&school, (13, 0), (13, 0)).await;
    // Nothing called at all: all of the hold is free again.
    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    let nothing = tell(&school, id, Vec::new(), true).await.unwrap();
    assert_eq!((nothing.answer, nothing.cost, nothing.settled), (None, NanoUsd::ZERO, true));
    check_money(&school, (0, 0), (0, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_and_parts_at_once_settle_exactly_what_was_acknowledged() {
    for order in 0..4 {
        let school = School::new().await;
        let id = decided(&school, |trace| trace).await;
        let large = || tell(&school, id, vec![said("large", "a", None)], order % 2 == 0);
        let small = || tell(&school, id, vec![said("small", "b", Some(900))], order < 2);
        let (one, two, three) = tokio::join!(large(), small(), tell(&school, id, Vec::new(), true));
        let all = [one.unwrap(), two.unwrap(), three.unwrap()];
        let acknowledged: i64 = all
            .iter()
            .flat_map(|standing| &standing.acks)
            .filter(|(_, ack)| *ack == Reported::Recorded)
            .map(|(model, _)| if *model == ModelName::from("large") { 13 } else { 900 })
            .sum();
        check_money(&school, (acknowledged, 0), (acknowledged, 0)).await;
        let ends = school.traces.reports(id).await.unwrap().iter().filter(|row| row.model.is_none()).count();
        assert_eq!(ends, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_expires_and_a_late_report_replaces_it_before_and_after_a_restart() {
    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    let by = lesson(2).at.plus(MINUTES_10);
    school.reports.expire(Timestamp::from_micros(by.micros() - 1));
    check_money(&school, (0, 5_000), (0, 5_000)).await;
    school.reports.expire(by);
    check_money(&school, (5_000, 0), (0, 5_000)).await;
    let late = tell(&school, id, vec![said("large", "The  Words", None)], true).await.unwrap();
    assert_eq!(value(&late), Some("The  Words"));
    check_money(&school, (13, 0), (13, 0)).await;

    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    tell(&school, id, vec![said("large", "a", None)], false).await.unwrap();
    let school = school.restart().await;
    check_money(&school, (5_000, 0), (0, 5_000)).await;
    let end = tell(&school, id, vec![said("small", "A", Some(900))], true).await.unwrap();
    let answer = end.answer.unwrap();
    assert!(answer.contributions.len() == 2 && answer.contributions.iter().all(|c| c.agrees), "{answer:?}");
    check_money(&school, (913, 0), (913, 0)).await;
    let school = school.restart().await;
    check_money(&school, (913, 0), (913, 0)).await;
    let again = tell(&school, id, Vec::new(), true).await.unwrap();
    assert_eq!(value(&again), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn free_text_is_merged_whoever_meters_and_however_late() {
    let text = |trace: Trace| Trace { kind: KindName::Text, ..trace };
    // Parts, a caller that meters itself, a decision that was given up.
    for case in 0..3 {
        let school = School::new().await;
        let id = decided(&school, |trace| Trace { hold: trace.hold.clone().filter(|_| case != 1), ..text(trace) })
            .await;
        if case == 2 {
            school.reports.expire(lesson(2).at.plus(MINUTES_10));
        }
        tell(&school, id, vec![said("small", "It Rains", Some(1))], false).await.unwrap();
        let end = tell(&school, id, vec![said("large", "it rains.", None)], true).await.unwrap();
        let answer = end.answer.clone().unwrap();
        assert!(answer.contributions.iter().all(|c| c.agrees), "{case}: {answer:?}");
        assert!(matches!(value(&end), Some("It Rains" | "it rains.")), "{case}: {:?}", value(&end));
        let again = tell(&school, id, Vec::new(), true).await.unwrap();
        assert_eq!(value(&again), value(&end), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_is_sent_again_after_a_restart_brings_its_text_back() {
    let school = School::new().await;
    let id = decided(&school, |trace| Trace { kind: KindName::Text, ..trace }).await;
    tell(&school, id, vec![said("small", "It Rains", Some(1))], false).await.unwrap();
    let school = school.restart().await;
    let other = tell(&school, id, vec![said("small", "it snows", Some(1))], false).await.unwrap();
    assert_eq!(other.acks, [("small".into(), Reported::Repeated)]);
    tell(&school, id, vec![said("small", "It rains", Some(1))], false).await.unwrap();
    let end = tell(&school, id, Vec::new(), true).await.unwrap();
    assert_eq!(value(&end), Some("It rains"));
}

#[tokio::test(start_paused = true)]
async fn the_answer_pattern_reads_texts_and_not_what_is_stored_of_them() {
    let school = School::new().await;
    let pattern = Some("answer is (\\w)".to_owned());
    let id = decided(&school, |trace| Trace { answer_pattern: pattern, ..trace }).await;
    tell(&school, id, vec![said("small", "Well, the answer is B", Some(1))], false).await.unwrap();
    let school = school.restart().await;
    let end = tell(&school, id, vec![said("large", "the answer is b!", None)], true).await.unwrap();
    let answer = end.answer.unwrap();
    assert!(answer.contributions.iter().all(|c| c.agrees && c.normal.is_some()), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_no_answer_gives_none() {
    let school = School::new().await;
    let id = decided(&school, |trace| Trace { kind: KindName::Number, ..trace }).await;
    tell(&school, id, vec![said("large", "no idea", None)], false).await.unwrap();
    assert_eq!(whole(&school, id).await.status, TraceStatus::Decided);
    let end = tell(&school, id, Vec::new(), true).await.unwrap();
    assert_eq!((end.answer, end.settled), (None, true));
    assert_eq!(whole(&school, id).await.status, TraceStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn no_raw_answer_is_stored() {
    let school = School::new().await;
    let canary = "Purple-Canary-In-A-Very-Long-Answer-That-No-Store-May-Ever-Hold-In-Clear-Text";
    let id = decided(&school, |trace| Trace { kind: KindName::Text, ..trace }).await;
    tell(&school, id, vec![said("small", canary, Some(1)), said("large", canary, None)], true).await.unwrap();
    school.rest().await;
    school.learning.save().await.unwrap();
    for file in std::fs::read_dir(school.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap().to_ascii_lowercase();
        let needle = b"purple-canary".as_slice();
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_acknowledges_nothing_and_goes_on_afterwards() {
    let school = School::new().await;
    let id = decided(&school, |trace| trace).await;
    school.rest().await;
    limit_pages(&school.traces, 1).await;
    // Until even the smallest row finds no room.
    for size in [3_000, 300, 0] {
        let filler = |n: u64| NewReport {
            decision: lesson(90).decision.id,
            model: Some(ModelName::new(&format!("{size}-{n}"))),
            task: "law".into(),
            at: START,
            tally: Tally::default(),
            body: vec![0; size],
        };
        let mut n = 0;
        while school.traces.report(vec![filler(n)]).await.is_ok() {
            n += 1;
        }
    }
    let long = |model: &str, cost| v1::ReportedOutcome { error: "e".repeat(1_024), ..said(model, "a", cost) };
    let both = || vec![long("large", None), long("small", Some(900))];
    let full = tell(&school, id, both(), true).await;
    assert_eq!(full, Err(ReportError::Store(StoreError::Full)));
    assert_eq!(school.budget.status(START).held, HOLD);
    limit_pages(&school.traces, 1 << 20).await;
    let end = tell(&school, id, both(), true).await.unwrap();
    assert_eq!((value(&end), end.cost.nanos()), (Some("a"), 913));
    assert_eq!(school.budget.status(START).spent.nanos(), 913);
}

#[test]
fn texts_that_wait_are_bounded_and_given_back() {
    let id = |n| lesson(n).decision.id;
    let text = |n: usize| [(ModelName::from("large"), "x".repeat(n))].into();
    let mut open = Open::default();
    open.keep(id(0), &text(TEXT_BYTES_MAX - 10), START);
    open.keep(id(1), &text(11), START);
    open.keep(id(2), &text(10), START);
    assert_eq!(open.text_bytes, TEXT_BYTES_MAX);
    assert!(open.waiting[&id(1)].texts.is_empty() && open.waiting[&id(2)].texts.len() == 1);
    open.end(id(0), None);
    assert_eq!(open.text_bytes, 10);
    open.keep(id(2), &text(500), START);
    assert_eq!(open.text_bytes, 10, "the first of each model stands");
    while let Some(due) = open.next_due(START.plus(TEXTS_KEPT)) {
        open.remove(due);
    }
    assert_eq!((open.text_bytes, open.waiting.len(), open.due.len()), (0, 0, 0));
}

proptest! {
    #[test]
    fn stored_rows_read_back(cost in 0_i64.., latency in 0_i64.., tokens in any::<(u64, u64)>(), status in 1_i32..8) {
        let wire = v1::ReportedOutcome {
            status,
            cost_usd_nanos: Some(cost),
            latency_us: Some(latency),
            tokens_in: tokens.0,
            tokens_out: tokens.1,
            answer: String::new(),
            ..said("m", "", None)
        };
        let id = AttemptId::new(START, &mut Draw::from_seed(1));
        let (outcome, attempt) = from_wire(wire, NanoUsd::new(cost), id, START);
        let part = ModelReport {
            outcome: Outcome { text: None, ..outcome },
            attempt,
            normal: Some(NormalForm::Hashed(u128::from(tokens.0))),
        };
        prop_assert_eq!(ModelReport::from_bytes(&part.to_bytes()).unwrap(), part);
        let decision = lesson(1).decision.id;
        let hold = Some(Hold { decision, amount: NanoUsd::new(cost), charges: charged("all", START) });
        let end = ReportEnd { answer: None, cost: NanoUsd::new(latency), hold };
        prop_assert_eq!(ReportEnd::from_bytes(decision, &end.to_bytes()).unwrap(), end);
    }
}
