//! The tenant is that of the key. What belongs to another one is answered as what never was, and stays as it is.

use futures_util::stream;
use pointsman_client::{Client, ClientError, v1};
use pointsman_daemon::keys::Scope;

use crate::harness::{Running, Setup, feedback, fields, request, spec};

const REQUIRED: &str = "[auth]\nkeys = \"required\"\n";
const NEVER: &str = "0190a5a0-0000-7000-8000-000000000000";
const WORKER: [Scope; 4] = [Scope::Route, Scope::Feedback, Scope::Read, Scope::Train];

/// Two tenants with all scopes but `admin`, and an administrator of a third.
struct Three {
    daemon: Running,
    one: Client,
    two: Client,
    admin: Client,
}

async fn three() -> Three {
    three_with(REQUIRED).await
}

async fn three_with(config: &str) -> Three {
    let setup = Setup::with(config);
    let (one, two) = (setup.key("one", &WORKER).await, setup.key("two", &WORKER).await);
    let admin = setup.key("ops", &[Scope::Admin]).await;
    let daemon = setup.start().await;
    let (one, two) = (daemon.client_with(&one).await, daemon.client_with(&two).await);
    let admin = daemon.client_with(&admin).await;
    Three { daemon, one, two, admin }
}

impl Three {
    async fn stop(self) {
        drop((self.one, self.two, self.admin));
        self.daemon.stop().await;
    }
}

async fn trace(client: &Client, id: &str) -> Result<v1::Trace, ClientError> {
    let request = v1::GetTraceRequest { decision_id: id.to_owned() };
    Ok(client.get_trace(request).await?.trace.unwrap())
}

async fn decide(client: &Client) -> String {
    let request = v1::DecideRequest { request: Some(spec("the jury", &["left"])), ..v1::DecideRequest::default() };
    client.decide(request).await.unwrap().decision_id
}

fn report(id: &str) -> v1::ReportOutcomesRequest {
    let outcome = v1::ReportedOutcome {
        model: "left".to_owned(),
        status: v1::AttemptStatus::Ok.into(),
        answer: "A".to_owned(),
        ..v1::ReportedOutcome::default()
    };
    v1::ReportOutcomesRequest { decision_id: id.to_owned(), outcomes: vec![outcome], r#final: true }
}

async fn stream_one(client: &Client, id: &str) -> Option<v1::stream_feedback_response::Result> {
    let item = feedback(id, v1::feedback::Verdict::Correct(true));
    let mut replies = client.stream_feedback(stream::iter([item])).await.unwrap();
    replies.next().await.unwrap().unwrap().result
}

/// What is said of a decision, without its id.
fn said(error: &ClientError, id: &str) -> (tonic::Code, String, String) {
    let fault = error.fault();
    (fault.code, fault.reason.clone(), fault.message.replace(id, "ID"))
}

#[tokio::test]
async fn what_is_anothers_never_was() {
    let three = three().await;
    let answered = three.one.route(request(spec("the jury", &["left"]))).await.unwrap().decision_id;
    let decided = decide(&three.one).await;
    let right = |id: &str| feedback(id, v1::feedback::Verdict::Correct(true));
    for (id, never) in [(&answered, NEVER), (&decided, NEVER)] {
        let other = trace(&three.two, id).await.unwrap_err();
        assert_eq!(said(&other, id), said(&trace(&three.two, never).await.unwrap_err(), never));
        assert_eq!(other.fault().reason, "UNKNOWN_DECISION");
        let other = three.two.feedback(right(id)).await.unwrap_err();
        assert_eq!(said(&other, id), said(&three.two.feedback(right(never)).await.unwrap_err(), never));
        let other = three.two.report_outcomes(report(id)).await.unwrap_err();
        assert_eq!(said(&other, id), said(&three.two.report_outcomes(report(never)).await.unwrap_err(), never));
        match stream_one(&three.two, id).await {
            Some(v1::stream_feedback_response::Result::Error(error)) => {
                assert_eq!(error.reason, "UNKNOWN_DECISION")
            }
            other => panic!("{other:?}"),
        }
    }
    // Nothing changed, and its own tenant and administrators may.
    for client in [&three.one, &three.admin] {
        let seen = trace(client, &answered).await.unwrap();
        assert!(seen.feedback.is_empty());
        assert_eq!(trace(client, &decided).await.unwrap().status(), v1::RequestStatus::Decided);
    }
    three.one.feedback(right(&answered)).await.unwrap();
    assert!(matches!(stream_one(&three.one, &answered).await, Some(v1::stream_feedback_response::Result::Ack(_))));
    three.admin.feedback(v1::Feedback { source: "ops".into(), ..right(&answered) }).await.unwrap();
    three.one.report_outcomes(report(&decided)).await.unwrap();
    assert_eq!(trace(&three.admin, &answered).await.unwrap().feedback.len(), 2);
    three.stop().await;
}

#[tokio::test]
async fn lists_and_exports_show_ones_own_whatever_they_ask_for() {
    let three = three().await;
    for client in [&three.one, &three.two, &three.two] {
        client.route(request(spec("the jury", &["left"]))).await.unwrap();
    }
    let check = async |client: &Client, tenant: Option<&str>, expected: usize| {
        let tags = tenant.map(|tenant| ("tenant".to_owned(), tenant.to_owned())).into_iter().collect();
        let filter = Some(v1::TraceFilter { tags, ..v1::TraceFilter::default() });
        let list = v1::ListTracesRequest { filter: filter.clone(), ..v1::ListTracesRequest::default() };
        assert_eq!(client.list_traces(list).await.unwrap().traces.len(), expected, "{tenant:?}");
        let export = v1::ExportTracesRequest { filter, ..v1::ExportTracesRequest::default() };
        let mut replies = client.export_traces(export).await.unwrap();
        let mut seen = 0;
        while replies.next().await.unwrap().is_some() {
            seen += 1;
        }
        assert_eq!(seen, expected, "{tenant:?}");
    };
    check(&three.one, None, 1).await;
    check(&three.one, Some("one"), 1).await;
    check(&three.one, Some("two"), 0).await;
    check(&three.two, None, 2).await;
    check(&three.admin, None, 3).await;
    check(&three.admin, Some("two"), 2).await;
    three.stop().await;
}

#[tokio::test]
async fn a_request_is_its_keys_tenants() {
    let three = three().await;
    let id = three.one.route(request(spec("the jury", &["left"]))).await.unwrap().decision_id;
    let seen = trace(&three.one, &id).await.unwrap();
    assert_eq!(seen.tags["tenant"], "one");
    let keys = three
        .admin
        .list_keys(v1::ListKeysRequest { tenant: "one".to_owned(), ..Default::default() })
        .await
        .unwrap()
        .keys;
    assert_eq!(seen.key_id, keys[0].id);
    let tagged = |tenant: &str| {
        let mut spec = spec("the jury", &["left"]);
        spec.tags.insert("tenant".to_owned(), tenant.to_owned());
        spec
    };
    three.one.route(request(tagged("one"))).await.unwrap();
    for (client, tenant) in [(&three.one, "two"), (&three.one, ""), (&three.admin, "one")] {
        let refused = client.route(request(tagged(tenant))).await.unwrap_err();
        assert_eq!(fields(refused.fault()), ["request.tags.tenant"]);
        let decide = v1::DecideRequest { request: Some(tagged(tenant)), ..v1::DecideRequest::default() };
        assert_eq!(fields(client.decide(decide).await.unwrap_err().fault()), ["request.tags.tenant"]);
        let stream = v1::RouteStreamRequest { request: Some(tagged(tenant)), ..v1::RouteStreamRequest::default() };
        let refused = client.route_stream(stream).await.map(|_| ()).unwrap_err();
        assert_eq!(fields(refused.fault()), ["request.tags.tenant"]);
    }
    assert_eq!(three.admin.list_traces(v1::ListTracesRequest::default()).await.unwrap().traces.len(), 2);
    three.stop().await;
}

#[tokio::test]
async fn idempotency_keys_are_each_tenants_own() {
    let three = three().await;
    let asked = v1::RouteRequest { idempotency_key: "k".to_owned(), ..request(spec("the jury", &["left"])) };
    let one = three.one.route(asked.clone()).await.unwrap();
    let two = three.two.route(asked.clone()).await.unwrap();
    assert!(!two.replayed && two.decision_id != one.decision_id);
    let again = three.one.route(asked).await.unwrap();
    assert!(again.replayed && again.decision_id == one.decision_id);
    three.stop().await;
}

#[tokio::test]
async fn imported_traces_are_their_importers() {
    let three = three().await;
    let id = three.one.route(request(spec("the jury", &["left"]))).await.unwrap().decision_id;
    let exported = trace(&three.one, &id).await.unwrap();
    let log = |said: &str| {
        let mut trace = v1::Trace { caller_ref: "log/1".to_owned(), ..exported.clone() };
        trace.decision.as_mut().unwrap().decision_id.clear();
        trace.tags.insert("tenant".to_owned(), said.to_owned());
        trace
    };
    let import = |client: &Client, trace: v1::Trace| {
        let (client, line) = (client.clone(), v1::ImportTracesRequest { trace: Some(trace), line: 1 });
        Box::pin(async move { client.import_traces(stream::iter([line])).await.unwrap() })
    };
    // Another tenant's decision is nobody else's to speak of.
    let mut stolen = exported.clone();
    stolen.feedback = vec![v1::FeedbackEntry {
        decision_id: id.clone(),
        given: Some(v1::feedback_entry::Given::Correct(false)),
        source: "two".to_owned(),
        ..v1::FeedbackEntry::default()
    }];
    let told = import(&three.two, stolen).await;
    assert_eq!((told.imported, told.feedback), (0, 0), "{told:?}");
    assert!(trace(&three.one, &id).await.unwrap().feedback.is_empty());
    // What two tenants call alike is two traces, each its importer's, whatever the log says.
    assert_eq!(import(&three.one, log("two")).await.imported, 1);
    assert_eq!(import(&three.two, log("one")).await.imported, 1);
    assert_eq!(import(&three.two, log("one")).await.imported, 0);
    let listed = async |client: &Client| {
        let traces = client.list_traces(v1::ListTracesRequest::default()).await.unwrap().traces;
        traces.into_iter().map(|trace| trace.tags["tenant"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&three.one).await, ["one", "one"]);
    assert_eq!(listed(&three.two).await, ["two"]);
    three.stop().await;
}

#[tokio::test]
async fn what_names_others_is_left_out_for_one_tenant() {
    let three = three().await;
    let id = three.one.route(request(spec("the jury", &["left"]))).await.unwrap().decision_id;
    three.one.feedback(feedback(&id, v1::feedback::Verdict::Correct(true))).await.unwrap();
    let report = three.two.get_report(v1::GetReportRequest::default()).await.unwrap();
    assert!(report.sources.is_empty() && report.audit.is_empty() && report.running.is_some());
    assert!(!three.admin.get_report(v1::GetReportRequest::default()).await.unwrap().audit.is_empty());
    let store = three.two.get_store_info(v1::GetStoreInfoRequest {}).await.unwrap();
    assert!(store.state_folder.is_empty() && store.trace_rows == 1);
    assert!(!three.admin.get_store_info(v1::GetStoreInfoRequest {}).await.unwrap().state_folder.is_empty());
    three.stop().await;
}

#[tokio::test]
async fn budgets_are_ones_own_and_everybodys() {
    let accounts = "[budget]\namount_usd = \"1\"\nwindow = \"total\"\n\
         [[budgets]]\nname = \"tenants\"\nscope = \"tenant:*\"\namount_usd = \"1\"\nwindow = \"total\"\n\
         [[budgets]]\nname = \"keys\"\nscope = \"key:*\"\namount_usd = \"1\"\nwindow = \"total\"\n";
    let three = three_with(&format!("{REQUIRED}{accounts}")).await;
    for client in [&three.one, &three.two] {
        client.route(request(spec("the jury", &["left"]))).await.unwrap();
    }
    let listed = async |client: &Client| {
        let budgets = client.list_budgets(v1::ListBudgetsRequest {}).await.unwrap().budgets;
        budgets.into_iter().map(|budget| budget.name).collect::<Vec<_>>()
    };
    let keys = three.admin.list_keys(v1::ListKeysRequest { tenant: "one".to_owned(), ..Default::default() });
    let id = keys.await.unwrap().keys[0].id.clone();
    assert_eq!(listed(&three.one).await, ["global".to_owned(), format!("keys/{id}"), "tenants/one".to_owned()]);
    assert_eq!(listed(&three.admin).await.len(), 5);
    let get = |name: &str| three.one.get_budget(v1::GetBudgetRequest { name: name.to_owned() });
    get("tenants/one").await.unwrap();
    let (other, never) = (get("tenants/two").await.unwrap_err(), get("tenants/nobody").await.unwrap_err());
    assert_eq!(said(&other, "two"), said(&never, "nobody"));
    three.stop().await;
}
