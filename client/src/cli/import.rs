//! `traces import`: JSON Lines into the daemon, line by line.
//!
//! A thread reads and parses, so that a slow pipe never holds up the connection; a bounded channel lies between the two,
//! so the file is never held as a whole. A broken line is named by its number on stderr and left out, and so is what the
//! daemon refuses; the rest is kept. It must never stop at the first fault, and never end with 0 when there was one.

use std::io::{self, BufRead, Read as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use pointsman_client::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::exit::Exit;
use super::input::{self, Reading};
use super::json;
use super::progress::Bar;
use super::session::Session;
use super::tables::Look;

/// Longest line, in bytes: a message of the wire is no longer.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Parsed traces that wait to be sent.
const WAITING_MAX: usize = 64;
/// Broken lines that are named one by one; the rest are only counted.
const NAMED_MAX: u64 = 100;
/// How often the bar is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Takes in the traces of a file.
pub(crate) async fn import(session: &Session, path: String) -> anyhow::Result<Exit> {
    let (lines, reading) = input::watched_lines(&path)?;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let name = path.clone();
    let parsing = tokio::task::spawn_blocking(move || {
        read_all(lines, &mut |broken| tell(&name, broken), |item| sender.blocking_send(item).is_ok())
    });
    let sending = session.client.import_traces(ReceiverStream::new(receiver));
    let response = watched(sending, &reading).await?;
    let broken = parsing.await.context("the reading thread stopped")?;
    for refusal in &response.refusals {
        tell(&path, Broken { line: refusal.line, why: refused(refusal) });
    }
    if session.json {
        let mut value = json::value(&response)?;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("brokenLines".to_owned(), broken.to_string().into());
        }
        session.line(&value.to_string())?;
    } else {
        session.print(&text(&session.look, &response, broken))?;
    }
    Ok(match (broken, response.refused) {
        (0, 0) => Exit::Ok,
        (0, _) => Exit::Invalid,
        _ => Exit::Usage,
    })
}

/// A line that is left out.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    /// Its number, from 1.
    line: u64,
    /// What is wrong with it.
    why: String,
}

/// Names it on stderr, where nothing is left to tell of a fault.
fn tell(path: &str, broken: Broken) {
    drop(writeln!(io::stderr().lock(), "error: {path}, line {}: {}", broken.line, broken.why));
}

fn refused(refusal: &v1::ImportRefusal) -> String {
    let field = if refusal.field.is_empty() { String::new() } else { format!("{}: ", refusal.field) };
    format!("{field}{} ({})", refusal.message, refusal.reason)
}

/// Reads every line and gives the parsed ones on, until nobody takes them. The number of broken lines; the first of them
/// are told.
fn read_all(
    mut lines: impl BufRead,
    tell: &mut dyn FnMut(Broken),
    mut give: impl FnMut(v1::ImportTracesRequest) -> bool,
) -> u64 {
    let mut broken = 0;
    for line in 1.. {
        let why = match next_line(&mut lines) {
            Ok(None) => break,
            Ok(Some(text)) if text.trim_ascii().is_empty() => continue,
            Ok(Some(text)) => match parsed(&text) {
                Ok(trace) => {
                    if give(v1::ImportTracesRequest { trace: Some(trace), line }) {
                        continue;
                    }
                    break;
                }
                Err(why) => why,
            },
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => error.to_string(),
            Err(error) => {
                // The end of a damaged archive; there is no line after it.
                tell(Broken { line, why: format!("{error}; what follows cannot be read") });
                return broken + 1;
            }
        };
        broken += 1;
        if broken <= NAMED_MAX {
            tell(Broken { line, why });
        }
    }
    broken
}

fn parsed(line: &[u8]) -> Result<v1::Trace, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    json::read(text).map_err(|error| format!("{error:#}"))
}

/// The next line; one that is too long is read to its end and refused.
fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
        lines.skip_until(b'\n')?;
        let why = format!("longer than {} MiB", LINE_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(Some(line))
}

/// Awaits the import; a bar shows how far the file has been read.
async fn watched<T>(call: impl Future<Output = T>, reading: &Reading) -> T {
    let mut bar = Bar::of_share("importing");
    let mut call = std::pin::pin!(call);
    loop {
        tokio::select! {
            biased;
            done = &mut call => {
                bar.finish();
                return done;
            }
            () = tokio::time::sleep(TICK) => bar.set_share(reading.share().unwrap_or(0.0)),
        }
    }
}

fn text(look: &Look, response: &v1::ImportTracesResponse, broken: u64) -> String {
    let or_nothing = |count: u64| if count == 0 { String::new() } else { count.to_string() };
    look.pairs(&[
        ("imported", response.imported.to_string()),
        ("feedback", response.feedback.to_string()),
        ("here already", response.repeated_traces.to_string()),
        ("refused", or_nothing(response.refused)),
        ("broken lines", or_nothing(broken)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the lines that are given on, and of those that are told.
    fn check(text: &[u8], given: &[u64], told: &[u64]) {
        let (mut seen, mut named) = (Vec::new(), Vec::new());
        let broken = read_all(text, &mut |broken| named.push(broken.line), |item| {
            seen.push(item.line);
            true
        });
        assert_eq!((seen.as_slice(), named.as_slice()), (given, told), "{}", String::from_utf8_lossy(text));
        assert_eq!(broken, told.len() as u64);
    }

    #[test]
    fn broken_lines_are_named_and_the_rest_is_kept() {
        check(b"", &[], &[]);
        check(b"{\"format\": 1}\n\n{\"format\": 1}", &[1, 3], &[]);
        check(b"{\"format\": 1}\n{\"format\n[]\n{\"formt\": 1}\n{\"format\": 1}\n", &[1, 5], &[2, 3, 4]);
        check(b"\xff\xfe\n{}\r\n", &[2], &[1]);
    }

    #[test]
    fn the_example_of_the_guide_is_a_trace() {
        let guide = include_str!("../../README.md");
        let example = guide.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("is there");
        let trace = parsed(example.replace('\n', " ").as_bytes()).expect("parses");
        assert_eq!((trace.format, trace.caller_ref.as_str()), (1, "log/17"));
        assert_eq!(trace.feedback[0].given, Some(v1::feedback_entry::Given::GivenScore(1.0)));
    }

    #[test]
    fn a_line_without_end_is_one_broken_line() {
        let mut text = vec![b'x'; usize::try_from(LINE_BYTES_MAX).unwrap() + 5];
        text.extend(b"\n{}\n");
        check(&text, &[2], &[1]);
    }

    #[test]
    fn a_damaged_archive_keeps_what_came_before() {
        struct Damaged;
        impl io::Read for Damaged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            }
        }
        let lines = io::BufReader::new(io::Read::chain(&b"{}\n"[..], Damaged));
        let mut named = Vec::new();
        let mut seen = 0;
        let broken = read_all(lines, &mut |broken| named.push(broken.line), |_| {
            seen += 1;
            true
        });
        assert_eq!((seen, broken, named), (1, 1, vec![2]));
    }

    #[test]
    fn only_the_first_are_named() {
        let mut named = 0;
        let text = "x\n".repeat(1_000);
        let broken = read_all(text.as_bytes(), &mut |_| named += 1, |_| true);
        assert_eq!((broken, named), (1_000, NAMED_MAX));
    }
}
