//! `feedback`: one judgement, or a file of them over one stream.

use std::io::Write as _;

use futures_util::stream;
use pointsman_client::v1;

use super::args::FeedbackArgs;
use super::exit::Exit;
use super::input::{self, InputFault, flag};
use super::json;
use super::progress::Bar;
use super::session::Session;
use super::tables::{Look, score, word};

/// Records feedback; returns when it is durable.
pub(crate) async fn feedback(session: &Session, args: FeedbackArgs) -> anyhow::Result<Exit> {
    if let Some(path) = &args.lines {
        return many(session, path).await;
    }
    let feedback = single(args)?;
    let ack = session.call("recording", session.client.feedback(feedback)).await?;
    session.reply(&ack, ack_text)?;
    Ok(Exit::Ok)
}

fn single(args: FeedbackArgs) -> Result<v1::Feedback, InputFault> {
    use v1::feedback::Verdict;
    let verdict = if args.verdict.right {
        Verdict::Correct(true)
    } else if args.verdict.wrong {
        Verdict::Correct(false)
    } else if let Some(score) = args.verdict.score {
        Verdict::Score(score)
    } else if let Some(expected) = args.verdict.expected {
        Verdict::Expected(input::text(&expected)?)
    } else {
        return Err(flag("feedback", "the judgement is missing; give --right, --wrong, --score or --expected"));
    };
    Ok(v1::Feedback {
        decision_id: args.decision.unwrap_or_default(),
        model: args.model.unwrap_or_default(),
        verdict: Some(verdict),
        source: args.source.unwrap_or_default(),
        comment: args.comment.unwrap_or_default(),
    })
}

fn ack_text(look: &Look, ack: &v1::FeedbackAck) -> String {
    look.pairs(&[
        ("feedback", word(ack.status().as_str_name(), "FEEDBACK_STATUS_")),
        ("score", score(ack.score)),
        ("sequence", ack.sequence.to_string()),
    ])
}

/// How many items ended in which way.
#[derive(Debug, Default)]
struct Tally {
    recorded: u64,
    repeated: u64,
    corrected: u64,
    refused: u64,
    worst: Option<Exit>,
}

impl Tally {
    fn count(&mut self, response: &v1::StreamFeedbackResponse) {
        use v1::stream_feedback_response::Result as Ended;
        match &response.result {
            Some(Ended::Ack(ack)) => match ack.status() {
                v1::FeedbackStatus::Repeated => self.repeated += 1,
                v1::FeedbackStatus::Corrected => self.corrected += 1,
                v1::FeedbackStatus::Recorded | v1::FeedbackStatus::Unspecified => {
                    self.recorded += 1;
                }
            },
            Some(Ended::Error(error)) => {
                self.refused += 1;
                self.worst.get_or_insert(Exit::of_item(error.code));
            }
            None => {}
        }
    }
}

async fn many(session: &Session, path: &str) -> anyhow::Result<Exit> {
    // Read as a whole first: a typing error in the last line should not leave half of the file recorded.
    let items: Vec<v1::Feedback> =
        input::each_line(path, |line| json::read(line).map_err(|error| format!("{error:#}")))?;
    let total = u64::try_from(items.len())?;
    let mut bar = Bar::new("recording", total);
    let mut tally = Tally::default();
    let mut replies = session.client.stream_feedback(stream::iter(items)).await?;
    while let Some(response) = replies.next().await? {
        tally.count(&response);
        bar.set(response.item + 1);
        bar.aside(|| told(session, path, &response))?;
    }
    bar.finish();
    if !session.json {
        session.line(&format!(
            "{total} items: {} recorded, {} repeated, {} corrected, {} refused",
            tally.recorded, tally.repeated, tally.corrected, tally.refused
        ))?;
    }
    Ok(tally.worst.unwrap_or(Exit::Ok))
}

/// Prints the reply to one item: all of them as JSON, only the refused ones for people.
fn told(session: &Session, path: &str, response: &v1::StreamFeedbackResponse) -> anyhow::Result<()> {
    use v1::stream_feedback_response::Result as Ended;
    if session.json {
        return session.line(&json::text(response)?);
    }
    if let Some(Ended::Error(error)) = &response.result {
        let mut stderr = std::io::stderr().lock();
        writeln!(stderr, "error: {path}, item {}: {} {}", response.item + 1, error.field, error.message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn check(line: &str, verdict: Option<v1::feedback::Verdict>) {
        let cli = Cli::try_parse_from(line.split(' ')).expect(line);
        let Command::Feedback(args) = cli.command else { panic!("{line} is not feedback") };
        match (single(args), verdict) {
            (Ok(feedback), Some(verdict)) => {
                assert_eq!(feedback.decision_id, "d-1", "{line}");
                assert_eq!(feedback.verdict, Some(verdict), "{line}");
            }
            (Err(InputFault::Flag { .. }), None) => {}
            (found, verdict) => panic!("{line}: {found:?}, expected {verdict:?}"),
        }
    }

    #[test]
    fn verdicts() {
        use v1::feedback::Verdict;
        check("p feedback d-1 --right", Some(Verdict::Correct(true)));
        check("p feedback d-1 --wrong", Some(Verdict::Correct(false)));
        check("p feedback d-1 --score 0.25", Some(Verdict::Score(0.25)));
        check("p feedback d-1 --expected F", Some(Verdict::Expected("F".to_owned())));
        check("p feedback d-1", None);
    }
}
