//! The program `pointsman`: what it prints and how it ends.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;

use pointsman_client::v1::feedback::Verdict;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::fake::Fake;

/// How a run of the program ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program with these words and this input.
pub(crate) async fn run(address: &str, words: &[&str], stdin: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["--address", address, "--connect-within", "0s"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut pipe = child.stdin.take().expect("is piped");
    // A program that needs no input may have ended already.
    drop(pipe.write_all(stdin.as_bytes()).await);
    drop(pipe);
    let output = child.wait_with_output().await.expect("ends");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("is text"),
        stderr: String::from_utf8(output.stderr).expect("is text"),
    }
}

/// Runs a line and looks at its exit code and at what stands on stderr.
pub(crate) async fn check(address: SocketAddr, line: &str, code: i32, part_of_stderr: &str) {
    let words: Vec<_> = line.split(' ').collect();
    let ended = run(&address.to_string(), &words, "").await;
    assert_eq!(ended.code, Some(code), "{line}: {}", ended.stderr);
    assert!(ended.stderr.contains(part_of_stderr), "{line}: {}", ended.stderr);
}

/// Runs the program with a key of the environment.
async fn run_with_key(address: SocketAddr, words: &[&str], key: &str) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["--address", &address.to_string(), "--connect-within", "0s"])
        .args(words)
        .env("POINTSMAN_KEY", key)
        .output()
        .await
        .expect("ends");
    let text = |bytes| String::from_utf8(bytes).expect("is text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_key_comes_from_the_environment_or_a_file_and_is_not_told() {
    let (_fake, address) = Fake::start().await;
    let create = ["keys", "create", "--tenant", "acme", "--scope", "route,feedback"];
    let (code, stdout, _) = run_with_key(address, &create, "pm_0123456789abcdef.good").await;
    assert_eq!((code, stdout.lines().next()), (Some(0), Some("pm_fedcba9876543210.new")));
    let (code, stdout, stderr) = run_with_key(address, &create, "pm_0123456789abcdef.hidden").await;
    assert_eq!((code, stdout.as_str()), (Some(77), ""));
    assert!(!stderr.contains("hidden"), "{stderr}");
    let (code, _, stderr) = run_with_key(address, &create, "two hidden").await;
    assert_eq!(code, Some(64));
    assert!(stderr.contains("field key") && !stderr.contains("hidden"), "{stderr}");
    let folder = tempfile::tempdir().expect("is made");
    let file = folder.path().join("key");
    std::fs::write(&file, "pm_0123456789abcdef.good\n").expect("is written");
    let named = [&["--key-file", file.to_str().expect("is text")], create.as_slice()].concat();
    assert_eq!(run_with_key(address, &named, "pm_0123456789abcdef.hidden").await.0, Some(0));
    check(address, "keys create --tenant acme --scope root", 2, "root").await;
    check(address, "--key-file no/such/file keys list", 2, "no/such/file").await;
    check(address, "audit verify --known 7", 2, "--known").await;
    let (code, stdout, _) = run_with_key(address, &["audit", "verify"], "").await;
    assert_eq!((code, stdout.as_str()), (Some(70), "BROKEN at entry 3: audit entry 3 is missing\n"));
}

#[tokio::test]
async fn exit_codes() {
    let (_fake, address) = Fake::start().await;
    check(address, "route hi", 0, "").await;
    check(address, "route hi --calls-max many", 2, "--calls-max").await;
    check(address, "route @no/such/file", 2, "no/such/file").await;
    check(address, "route refuse", 64, "field request.labels: are").await;
    check(address, "route broke", 75, "nothing left").await;
    check(address, "route stall --timeout 50ms", 75, "--timeout").await;
    check(address, "feedback unknown --right", 65, "no such decision").await;
    check(address, "models enable x", 70, "").await;
    check(address, "models register x --backend b --free", 64, "taken").await;
    check(address, "budget", 0, "").await;
    check(address, "health", 0, "").await;
    check(address, "health --service x", 65, "").await;
    check(address, "completions bash", 0, "").await;
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    check(nobody, "health", 69, "no daemon answers").await;
}

#[tokio::test]
async fn a_prompt_from_stdin_and_an_answer_in_json() {
    let (fake, address) = Fake::start().await;
    let ended = run(&address.to_string(), &["route", "--json"], "from a pipe\n").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let reply: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(reply["answer"]["value"], "F");
    let prompt = fake.told(|told| told.requests[0].0.prompt.clone());
    assert_eq!(prompt, "from a pipe");

    let words = ["route", "--stream", "--json", "hi"];
    let ended = run(&address.to_string(), &words, "").await;
    let events: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect("is one object a line")).collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["final"]["response"]["costUsdNanos"], "2000");
}

#[tokio::test]
async fn feedback_by_the_file() {
    let (fake, address) = Fake::start().await;
    let lines = "{\"decisionId\": \"a\", \"correct\": true}\n\n{\"decisionId\": \"unknown\", \"score\": 0.5}\n";
    let ended = run(&address.to_string(), &["feedback", "--lines", "-"], lines).await;
    assert_eq!(ended.code, Some(65), "{}", ended.stderr);
    assert!(ended.stdout.contains("2 items: 1 recorded"));
    let verdict = fake.told(|told| told.feedback[0].verdict.clone());
    assert_eq!(verdict, Some(Verdict::Correct(true)));
}

const ROWS: usize = 40;

/// Half of the rows have gold, half have scores only; `good` is right on all, `bad` on every fourth. One row fails.
fn workload() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("is made");
    for index in 0..ROWS {
        let row = serde_json::json!({
            "id": format!("r/{index}"),
            "task": if index % 2 == 0 { "law" } else { "math" },
            "prompt": if index == 13 { "broke" } else { "q" },
            "gold": (index % 2 == 0).then_some("f"),
            "outcomes": {
                "good": { "score": 1, "cost": 0.000_002, "answer": null },
                "bad": { "score": u8::from(index % 4 == 0), "cost": 0.000_001 },
                "unregistered": { "score": 1, "cost": 0.0 },
            },
        });
        writeln!(file, "{row}").expect("is written");
    }
    file
}

#[tokio::test]
async fn play() {
    let (fake, address) = Fake::start().await;
    let file = workload();
    let path = file.path().to_str().expect("is text");
    let words = ["play", "--workload", path, "--json", "--calls-max", "1"];
    let ended = run(&address.to_string(), &words, "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let found: Value = serde_json::from_str(&ended.stdout).expect("is one object");
    assert_eq!(found["rows"], ROWS);
    assert_eq!(found["failures"], 1);
    assert_eq!(found["feedback_failures"], 0);
    assert_eq!(found["score_mean"], 39.0 / 40.0);
    assert_eq!(found["best_single"]["name"], "good");
    assert_eq!(found["best_single"]["score"], 1.0);
    assert_eq!(found["random_score"], (1.0 + 0.25) / 2.0);
    assert_eq!(found["oracle_score"], 1.0);
    assert_eq!(found["cost_last"], 0.000_002);
    assert_eq!(found["failed"][0]["id"], "r/13");
    assert!(found["explained"]["response"]["decision"]["why"] == "by rote");
    fake.told(|told| {
        assert_eq!(told.requests.len(), ROWS);
        for (spec, _) in &told.requests {
            assert_eq!((spec.calls_max, &spec.task_type), (Some(1), &None));
        }
        assert_eq!(told.feedback.len(), ROWS - 1);
        for feedback in &told.feedback {
            let index: usize = feedback.decision_id[4..].parse().expect("is a row");
            let (model, verdict) = if index.is_multiple_of(2) {
                ("", Verdict::Expected("f".to_owned()))
            } else {
                ("good", Verdict::Score(1.0))
            };
            assert_eq!(feedback.model, model);
            assert_eq!(feedback.verdict, Some(verdict));
        }
    });

    let words = ["play", "--workload", path, "--rows", "10", "--seed", "3"];
    let ended = run(&address.to_string(), &words, "").await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.is_ascii());
    assert!(ended.stdout.contains("One decision explained"));
}

#[tokio::test]
async fn a_run_without_any_answer_ends_with_its_reason() {
    let (_fake, address) = Fake::start().await;
    let mut file = tempfile::NamedTempFile::new().expect("is made");
    writeln!(file, r#"{{"id": "1", "prompt": "broke"}}"#).expect("is written");
    let path = file.path().to_str().expect("is text");
    let ended = run(&address.to_string(), &["play", "--workload", path], "").await;
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
}
