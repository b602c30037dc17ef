//! Files of logs, whole, broken and mixed.

use std::io::Write as _;
use std::ops::ControlFlow;

use flate2::Compression;
use flate2::write::GzEncoder;
use pointsman_learner::train::{TrainError, TrainSettings, train};

use super::*;
use crate::store::traces::support::sample;
use crate::wire::trace::{Kept, to_wire};

fn recorded(n: u32) -> String {
    let right = n % 3;
    format!(
        r#"{{"id":"{n}","prompt":"question {n} of kind {right}","outcomes":{{"a":{{"score":{}}},"b":{{"score":{},"cost":0.001}}}}}}"#,
        u32::from(right == 0),
        u32::from(right != 0),
    )
}

/// An exported trace, judged.
fn exported(n: u32) -> v1::Trace {
    let mut trace = to_wire(&sample(n), Kept { content: false, secret: 0 });
    trace.sequence = u64::from(n) + 1;
    trace.feedback = vec![v1::FeedbackEntry {
        sequence: 1,
        decision_id: trace.decision.as_ref().unwrap().decision_id.clone(),
        model: "large".to_owned(),
        given: Some(v1::feedback_entry::Given::Correct(n.is_multiple_of(2))),
        score: f64::from(u8::from(n.is_multiple_of(2))),
        source: "test".to_owned(),
        ..Default::default()
    }];
    trace
}

fn file(lines: &[String]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    (folder, path)
}

fn open_rows(path: &Path) -> Result<FileRows, LinesError> {
    FileRows::open(path, Reader::new(0), None)
}

fn all(rows: &FileRows) -> Vec<TrainingRow> {
    rows.read().unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_broken_line_is_named_and_the_rest_counts() {
    let mut lines: Vec<String> = (0..10).map(recorded).collect();
    lines[2] = "{\"id\":\"2\",\"prompt\":".to_owned();
    lines[5] = "{}".to_owned();
    lines[7] = String::new();
    lines[8] = lines[8].replace("\"score\":1", "\"score\":7");
    let (_folder, path) = file(&lines);
    let rows = open_rows(&path).unwrap();
    assert_eq!((all(&rows).len(), rows.len_hint()), (6, 10));
    assert_eq!(rows.broken().into_keys().collect::<Vec<_>>(), [3, 6, 9]);
    assert_eq!(all(&rows), all(&rows));
}

#[test]
fn packed_files_and_exported_traces_are_read_alike() {
    let text = (0..4).map(|n| json::write(&exported(n)).unwrap() + "\n").collect::<String>();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.jsonl.gz");
    let mut packed = GzEncoder::new(File::create(&path).unwrap(), Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap();
    let rows = open_rows(&path).unwrap();
    assert_eq!(rows.schema(), SchemaHash(11));
    let read = all(&rows);
    let label = |n: usize| read[n].seen.iter().find(|seen| seen.model.as_str() == "large").unwrap().label;
    assert_eq!((label(0), label(1), read.len()), (Some(1.0), Some(0.0), 4));
    assert_eq!(read[1].logged.as_ref().unwrap().propensity.to_bits(), 0.375_f64.to_bits());
}

#[test]
fn what_cannot_be_trained_on_is_a_typed_error() {
    let check = |lines: &[String]| {
        let (_folder, path) = file(lines);
        train(&open_rows(&path).unwrap(), &TrainSettings::default(), &mut |_, _| ControlFlow::Continue(()))
            .map(|_| ())
    };
    let few: Vec<String> = (0..60).map(recorded).collect();
    assert!(matches!(check(&few), Err(TrainError::TooFew { found: 60, .. })));
    let one: Vec<String> = (0..200).map(|n| recorded(n * 3).replace("\"score\":0", "\"score\":1")).collect();
    assert!(matches!(check(&one), Err(TrainError::OneClass { .. })));
    let mixed = [recorded(1), json::write(&exported(1)).unwrap()];
    assert!(matches!(check(&mixed), Err(TrainError::MixedSchemas { found: 11, .. })));
    let (_folder, path) = file(&["{}".to_owned(), "x".to_owned()]);
    assert!(matches!(open_rows(&path), Err(LinesError::Nothing { first: Some((1, BrokenLine::Neither(_))), .. })));
    assert!(matches!(open_rows(&path.with_extension("none")), Err(LinesError::Io { .. })));
}

#[test]
fn a_line_without_features_or_without_sense_is_broken() {
    let reader = Reader::new(0);
    let read = |trace: &v1::Trace| reader.row(json::write(trace).unwrap().as_bytes());
    let mut bare = exported(1);
    bare.features.as_mut().unwrap().schema_hash = 0;
    assert_eq!(read(&bare), Err(BrokenLine::NoFeatures));
    let newer = v1::Trace { format: 2, ..exported(1) };
    assert!(matches!(read(&newer), Err(BrokenLine::Trace(ForeignFault::Format { found: 2 }))));
    let mut wrong = exported(1);
    wrong.feedback[0].given = Some(v1::feedback_entry::Given::GivenScore(7.0));
    assert!(matches!(read(&wrong), Err(BrokenLine::Trace(ForeignFault::Wire(_)))));
}

#[test]
fn a_line_that_is_too_long_is_passed_over() {
    let long = "x".repeat(usize::try_from(LINE_BYTES_MAX).unwrap() + 10);
    let text = format!("{long}\n{}\n", recorded(1));
    let mut lines = text.as_bytes();
    let mut line = Vec::new();
    assert_eq!(next_line(&mut lines, &mut line).unwrap(), Some(false));
    assert_eq!(next_line(&mut lines, &mut line).unwrap(), Some(true));
    assert!(line.starts_with(b"{\"id\""));
    assert_eq!(next_line(&mut lines, &mut line).unwrap(), None);
}
