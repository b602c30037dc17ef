//! Rows out of real files.

use pointsman_router::feedback::RawVerdict;
use pointsman_router::trace::TraceStatus;

use super::*;
use crate::learning::tests::{School, lesson};
use crate::training::log::Reach;

fn right(yes: bool) -> RawVerdict {
    RawVerdict::Correct(yes)
}

fn schema() -> SchemaHash {
    lesson(0).features.schema
}

fn stored(school: &School, reach: Reach) -> StoredRows<'static> {
    StoredRows::new(StoredLog::open(school.folder.path(), reach).unwrap(), schema())
}

fn all(rows: &StoredRows<'_>) -> Vec<TrainingRow> {
    rows.read().unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn rows_are_the_traces_with_what_was_said_of_them_and_end_where_they_ended() {
    let school = School::new().await;
    let mut ids = Vec::new();
    for n in 0..600 {
        ids.push(school.push(lesson(n)));
    }
    school.judge(ids[0], "", "one", right(false)).await.unwrap();
    school.judge(ids[0], "", "two", right(true)).await.unwrap();
    school.judge(ids[0], "", "one", right(true)).await.unwrap();
    school.judge(ids[1], "large", "one", RawVerdict::Score(0.25)).await.unwrap();
    school.traces.flushed().await.unwrap();
    let rows = stored(&school, Reach::default());
    school.push(lesson(600));
    school.judge(ids[3], "", "one", right(true)).await.unwrap();
    school.traces.flushed().await.unwrap();

    let read = all(&rows);
    assert_eq!((read.len(), rows.len_hint(), rows.passed_over()), (600, 600, 0));
    let logged = |n: usize| read[n].logged.clone().unwrap();
    assert_eq!((logged(0).reward, logged(1).reward, logged(3).reward), (Some(1.0), Some(0.25), None));
    let label = |n: usize, model: &str| read[n].seen.iter().find(|s| s.model.as_str() == model).unwrap().label;
    // The one who gave the answer is as right as the answer; of the other nothing is known.
    assert_eq!((label(0, "large"), label(0, "small"), label(1, "large")), (Some(1.0), None, Some(0.25)));
    assert_eq!(logged(0).set, ["small".into(), "large".into()]);
    assert_eq!(logged(0).eligible.iter().map(|(m, _)| m.as_str()).collect::<Vec<_>>(), ["large", "small"]);
    assert_eq!((logged(0).propensity, logged(0).calls_max), (0.375, 2));
    assert_eq!(all(&rows), read);
    let newest = all(&stored(&school, Reach { rows_max: Some(2), ..Reach::default() }));
    assert_eq!(newest[0], read[599]);
    assert_eq!(newest.len(), 2);
}

#[tokio::test]
async fn what_a_caller_reported_is_part_of_its_row() {
    let school = School::new().await;
    let id = school.route(2).await;
    school.traces.flushed().await.unwrap();
    assert_eq!(all(&stored(&school, Reach::default()))[0].seen, []);
    let reported = |model: &str| pointsman_proto::v1::ReportedOutcome {
        model: model.to_owned(),
        status: pointsman_proto::v1::AttemptStatus::Ok.into(),
        answer: "a".to_owned(),
        tokens_out: 3,
        cost_usd_nanos: Some(70),
        ..Default::default()
    };
    let report = pointsman_proto::v1::ReportOutcomesRequest {
        decision_id: id.to_string(),
        outcomes: vec![reported("small"), reported("large")],
        r#final: true,
    };
    school.reports.report(report, &crate::keys::View::All).await.unwrap();
    let row = all(&stored(&school, Reach::default())).remove(0);
    assert_eq!(row.seen.len(), 2);
    assert_eq!(row.logged.unwrap().cost, NanoUsd::new(140));
}

#[test]
fn a_choice_without_a_probability_is_not_logged_and_another_schema_is_another_key() {
    let said = Said::default();
    let check = |propensity: f64, logged: bool| {
        let trace = lesson(0);
        let mut decision = (*trace.decision).clone();
        decision.set_propensity = propensity;
        let trace = Trace { decision: decision.into(), ..trace };
        assert_eq!(row(&trace, &said).logged.is_some(), logged, "{propensity}");
    };
    for (propensity, logged) in [(0.5, true), (0.0, false), (f64::NAN, false), (-1.0, false)] {
        check(propensity, logged);
    }
    assert_ne!(prompt_key(&lesson(0).features), prompt_key(&lesson(1).features));
    assert_eq!(lesson(2).status, TraceStatus::Decided);
}
