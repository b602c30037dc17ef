//! A refused request calls nothing, holds nothing and leaves no trace.

use pointsman_router::admit::AdmitError;
use pointsman_router::check::Problem;
use pointsman_router::decide::DecideError;
use pointsman_router::decision::Ineligible;
use pointsman_router::hold::HoldError;
use pointsman_router::model::Availability;
use pointsman_router::money::NanoUsd;
use pointsman_router::pipeline::{ErrorKind, Metering, RouteError};
use pointsman_router::request::RouteRequest;

use crate::stand::{Setup, Stand, ask, model, ms, paused};

fn check(setup: Setup, raw: RouteRequest, prepare: fn(&Stand), expected: ErrorKind) -> RouteError {
    paused(async {
        let stand = setup.build();
        prepare(&stand);
        let error = stand.route(raw.clone()).await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        stand.audit_untouched();
        let decided = stand.router.decide(raw, Metering::Hold).await.unwrap_err();
        assert_eq!(decided.kind(), expected, "{decided}");
        stand.audit_untouched();
        error
    })
}

fn two() -> Setup {
    Setup::of([model("a", "x"), model("b", "x")])
}

fn nothing(_: &Stand) {}

#[test]
fn a_bad_request_names_all_its_fields() {
    let raw = RouteRequest {
        embedding: vec![f32::NAN],
        models_denied: vec!["z".into()],
        deadline: Some(ms(0)),
        ..ask(" ")
    };
    let error = check(two(), raw, nothing, ErrorKind::BadRequest);
    let RouteError::Admit(AdmitError::BadRequest(bad)) = error else { panic!("{error}") };
    let mut fields: Vec<&str> = bad.faults.iter().map(|fault| fault.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["request.deadline", "request.embedding[0]", "request.models_denied[0]", "request.prompt"]);
    assert!(bad.faults.iter().any(|f| f.problem == Problem::Missing));
}

#[test]
fn full_traces_refuse() {
    let setup = Setup { traces_full: true, ..two() };
    check(setup, ask("q"), nothing, ErrorKind::Overloaded);
}

#[test]
fn no_model_says_the_reason_of_each() {
    let mut setup = two();
    setup.models[0].availability = Availability::Disabled;
    let raw = RouteRequest { models_denied: vec!["b".into()], ..ask("q") };
    let error = check(setup, raw, nothing, ErrorKind::NoModel);
    let RouteError::Decide(DecideError::NoModel { reasons }) = error else { panic!("{error}") };
    assert_eq!(reasons, [("a".into(), Ineligible::Disabled), ("b".into(), Ineligible::NotAllowed)]);
    check(Setup::of([]), ask("q"), nothing, ErrorKind::NoModel);
}

#[test]
fn a_cap_under_the_cheapest_call_refuses() {
    let mut setup = two().budget(1_000_000);
    setup.models[1] = model("b", "x").costs(2_000);
    setup.models[0] = model("a", "x").costs(3_000);
    let raw = RouteRequest { max_cost_usd_micros: Some(1), ..ask("q") };
    let error = check(setup, raw, nothing, ErrorKind::NoMoney);
    let RouteError::Decide(DecideError::RequestCap { cheapest, cap }) = error else { panic!("{error}") };
    assert_eq!((cheapest, cap), (NanoUsd::new(2_000), NanoUsd::new(1_000)));
}

#[test]
fn a_budget_under_the_cheapest_call_refuses_by_the_ledgers_own_words() {
    for left in [99, 0, -5, i64::MIN / 2] {
        let error = check(two().budget(left), ask("q"), nothing, ErrorKind::NoMoney);
        let RouteError::Hold(HoldError::NoMoney(short)) = error else { panic!("{error}") };
        assert_eq!((short.left, short.asked), (NanoUsd::new(left), NanoUsd::new(100)));
    }
}

#[test]
fn a_ledger_that_is_down_refuses() {
    let down = |stand: &Stand| stand.ledger.0.lock().unwrap().down = true;
    check(two(), ask("q"), down, ErrorKind::LedgerDown);
    check(two().budget(1_000), ask("q"), down, ErrorKind::LedgerDown);
    check(two().budget(1), ask("q"), down, ErrorKind::LedgerDown);
}
