//! `train`, `evaluate`, `promote`, `rollback`, `shadow`, `report`, `policies`, `traces import`: what they send, print
//! and end with.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use pointsman_client::{Client, Target, v1};
use serde_json::Value;

use crate::fake::Fake;
use crate::program::{check, run};

#[tokio::test]
async fn exit_codes_of_learning() {
    let (_fake, address) = Fake::start().await;
    check(address, "train", 0, "").await;
    check(address, "train --kind rules", 2, "--kind").await;
    check(address, "train --rows-max 0", 2, "--rows-max").await;
    check(address, "train --rows-max 1", 64, "traces import").await;
    check(address, "evaluate", 0, "").await;
    check(address, "evaluate unknown", 65, "no policy has").await;
    check(address, "evaluate h-2 --html /no/such/folder/x.html", 2, "/no/such/folder").await;
    check(address, "promote h-2", 0, "").await;
    check(address, "promote unevaluated", 64, "pointsman evaluate").await;
    check(address, "promote unevaluated --force", 0, "").await;
    check(address, "promote unknown", 65, "").await;
    check(address, "rollback", 0, "").await;
    check(address, "rollback --reason none", 64, "").await;
    check(address, "shadow h-2", 0, "").await;
    check(address, "shadow --off", 0, "").await;
    check(address, "shadow", 2, "VERSION").await;
    check(address, "shadow h-2 --off", 2, "--off").await;
    check(address, "policies install no/such/file", 2, "no/such/file").await;
    check(address, "policies install -", 64, "empty").await;
    check(address, "traces import no/such/file", 2, "no/such/file").await;
    check(address, "report", 0, "").await;
    check(address, "report --final", 2, "DECISION").await;
    check(address, "report d-1 --audit 3", 2, "--audit").await;
}

#[tokio::test]
async fn a_training_is_a_line_for_each_response_or_a_table() {
    let (fake, address) = Fake::start().await;
    let address = address.to_string();
    let words = ["train", "--kind", "classifier", "--seed", "3", "--rows-max", "9", "--json"];
    let ended = run(&address, &words, "").await;
    let lines: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("is one object a line")).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["stage"], "TRAINING_STAGE_READING");
    assert_eq!(lines[2]["policy"]["version"], "h-2");
    let expected = v1::TrainRequest { kind: v1::PolicyKind::Classifier.into(), seed: 3, rows_max: 9 };
    assert_eq!(fake.told(|told| told.trainings.clone()), [expected]);

    let ended = run(&address, &["train"], "").await;
    assert!(ended.stdout.is_ascii());
    assert!(ended.stdout.contains("| good  |      5 | 0.800 |"), "{}", ended.stdout);
    assert_eq!(fake.told(|told| told.trainings[1].kind), 0, "hybrid is the default");
}

#[tokio::test]
async fn an_evaluation_in_words_in_json_and_as_a_page() {
    let (_fake, address) = Fake::start().await;
    let address = address.to_string();
    let folder = tempfile::tempdir().expect("is made");
    let page = folder.path().join("x.html");
    let page_text = page.to_str().expect("is text");
    let ended = run(&address, &["evaluate", "--html", page_text], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    for part in ["0.750 (0.740..0.760)", "+0.030 (+0.020..+0.040)", "held back", "FAILS  enough alike", page_text]
    {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let page = std::fs::read_to_string(page).expect("was written");
    assert!(page.starts_with("<!DOCTYPE html>") && page.contains("<svg "));

    let words = ["evaluate", "a", "b", "--held-out", "0.5", "--json"];
    let ended = run(&address, &words, "").await;
    let found: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(found["evaluations"][1]["version"], "b");
    assert_eq!(found["evaluations"][0]["heldOutFraction"], 0.5);
    assert_eq!(found["evaluations"][0]["gate"]["passes"], false);
}

#[tokio::test]
async fn promotion_sends_what_it_is_told() {
    let (fake, address) = Fake::start().await;
    let address = address.to_string();
    let words = ["promote", "h-2", "--share", "0.1", "--force", "--reason", "a person says so"];
    let ended = run(&address, &words, "").await;
    assert!(ended.stdout.contains("h-2 chooses for 10 % of the requests"), "{}", ended.stdout);
    let expected = v1::PromoteRequest {
        version: "h-2".to_owned(),
        share: Some(0.1),
        force: true,
        reason: "a person says so".to_owned(),
    };
    assert_eq!(fake.told(|told| told.promotions.clone()), [expected]);
    let ended = run(&address, &["promote", "h-2", "--json"], "").await;
    let found: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(found["policy"]["state"], "POLICY_STATE_RUNNING");
    assert_eq!(fake.told(|told| told.promotions[1].share), None);
    let ended = run(&address, &["rollback"], "").await;
    assert_eq!(ended.stdout, "b-1 chooses from now on, h-2 is rolled back\n");
}

#[tokio::test]
async fn an_artifact_is_cut_into_pieces() {
    let (_fake, address) = Fake::start().await;
    let mut file = tempfile::NamedTempFile::new().expect("is made");
    file.write_all(&vec![7; 3 << 20]).expect("is written");
    let path = file.path().to_str().expect("is text");
    let ended = run(&address.to_string(), &["policies", "install", path, "--json"], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(found["policy"]["artifactBytes"], (3 << 20).to_string());
    let ended = run(&address.to_string(), &["policies", "list"], "").await;
    assert!(ended.stdout.contains("candidate"), "{}", ended.stdout);
}

#[tokio::test]
async fn a_broken_line_is_named_and_the_rest_is_kept() {
    let (fake, address) = Fake::start().await;
    let address = address.to_string();
    let lines = "{\"format\": 1, \"callerRef\": \"a\", \"feedback\": [{\"score\": 1}]}\n\nnonsense\n\
                 {\"format\": 1, \"callerRef\": \"bad\"}\n{\"format\": 1, \"callerRef\": \"b\"}\n";
    let ended = run(&address, &["traces", "import", "-", "--json"], lines).await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(found["imported"], "2");
    assert_eq!(found["feedback"], "1");
    assert_eq!(found["brokenLines"], "1");
    assert_eq!(found["refusals"][0]["line"], "4");
    assert!(ended.stderr.contains("-, line 3: "), "{}", ended.stderr);
    assert!(ended.stderr.contains("-, line 4: trace.format: is of a newer version (UNKNOWN_FORMAT)"));
    let refs = fake.told(|told| told.traces.iter().map(|trace| trace.caller_ref.clone()).collect::<Vec<_>>());
    assert_eq!(refs, ["a", "b"]);

    let refused = "{\"format\": 1, \"callerRef\": \"bad\"}\n";
    let ended = run(&address, &["traces", "import", "-"], refused).await;
    assert_eq!(ended.code, Some(64), "{}", ended.stderr);
    assert!(ended.stdout.contains("refused       1"), "{}", ended.stdout);
}

#[tokio::test]
async fn what_is_exported_can_be_imported() {
    let (fake, address) = Fake::start().await;
    let address = address.to_string();
    let trace = v1::Trace {
        format: 1,
        caller_ref: "r".to_owned(),
        features: Some(v1::Features {
            schema_hash: u64::MAX,
            index_deltas: vec![3, 0, 70_000],
            counts: vec![-1, 2, 1],
            surface: vec![0.1, 3.5],
            ..v1::Features::default()
        }),
        decision: Some(v1::Decision { set_propensity: 0.1 + 0.2, seed: u64::MAX, ..v1::Decision::default() }),
        feedback: vec![v1::FeedbackEntry { score: 1.0 / 3.0, ..v1::FeedbackEntry::default() }],
        ..v1::Trace::default()
    };
    fake.told(|told| told.traces.push(trace.clone()));
    let folder = tempfile::tempdir().expect("is made");
    let path = folder.path().join("traces.jsonl.gz");
    let path = path.to_str().expect("is text");
    let ended = run(&address, &["traces", "export", "--output", path], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = run(&address, &["traces", "import", path], "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(fake.told(|told| told.traces.clone()), [trace.clone(), trace]);
}

#[tokio::test]
async fn a_cut_archive_keeps_what_came_before() {
    let (fake, address) = Fake::start().await;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    for row in 0..5_000 {
        writeln!(packed, "{{\"format\": 1, \"callerRef\": \"r/{row}\"}}").expect("is packed");
    }
    let packed = packed.finish().expect("is packed");
    let mut file = tempfile::NamedTempFile::with_suffix(".gz").expect("is made");
    file.write_all(&packed[..packed.len() / 2]).expect("is written");
    let path = file.path().to_str().expect("is text");
    let ended = run(&address.to_string(), &["traces", "import", path], "").await;
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("what follows cannot be read"), "{}", ended.stderr);
    let kept = fake.told(|told| told.traces.len());
    assert!((1_000..5_000).contains(&kept), "{kept}");
}

#[tokio::test]
async fn the_learning_report() {
    let (_fake, address) = Fake::start().await;
    let address = address.to_string();
    let ended = run(&address, &["report"], "").await;
    assert!(ended.stdout.is_ascii());
    for part in ["shadow", "rolled back", "global", "0 of 500", "$0.00001 ", "promoted, forced", "stranger"] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    let ended = run(&address, &["report", "--alerts", "1", "--audit", "2", "--json"], "").await;
    let found: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(found["driftAlerts"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["audit"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn the_library_trains_and_imports() {
    let (fake, address) = Fake::start().await;
    let client = Client::connect(Target::new(address.to_string())).await.expect("connects");
    let mut replies = client.train(v1::TrainRequest::default()).await.expect("begins");
    let mut progress = Vec::new();
    while let Some(reply) = replies.next().await.expect("goes on") {
        progress.push(reply.progress);
    }
    assert!(progress.is_sorted() && progress.len() == 3, "{progress:?}");
    let item = v1::ImportTracesRequest { trace: Some(v1::Trace::default()), line: 0 };
    let imported = client.import_traces(futures_util::stream::iter([item])).await.expect("ends");
    assert_eq!(imported.imported, 1);
    assert_eq!(fake.told(|told| told.traces.len()), 1);
}
