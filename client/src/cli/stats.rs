//! `stats`, `traces`, `store`: what the daemon has seen.

use std::fs::File;
use std::io::{BufWriter, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use pointsman_client::v1;

use super::args::{DeleteArgs, ExportArgs, FilterArgs, ListArgs, StatsArgs, TracesCommand};
use super::exit::Exit;
use super::input::file_fault;
use super::progress::Bar;
use super::session::Session;
use super::tables::{
    Look, NONE, bytes, latency_or_none, or_none, percent, score, time, usd_of_micros, usd_of_nanos, word,
};
use super::{import, json, show};

/// Statistics of the models.
pub(crate) async fn models(session: &Session, args: StatsArgs) -> anyhow::Result<Exit> {
    let request = v1::ListModelStatsRequest {
        models: args.models,
        task_type: args.task_type.unwrap_or_default(),
        by_task_type: args.by_task_type,
    };
    let response = session.call("counting", session.client.list_model_stats(request)).await?;
    session.reply(&response, stats_text)?;
    Ok(Exit::Ok)
}

/// Traces: list, show, export, import, delete.
pub(crate) async fn traces(session: &Session, command: TracesCommand) -> anyhow::Result<Exit> {
    match command {
        TracesCommand::List(args) => list(session, args).await,
        TracesCommand::Show { decision } => {
            let request = v1::GetTraceRequest { decision_id: decision };
            let response = session.call("reading", session.client.get_trace(request)).await?;
            session.reply(&response.trace.unwrap_or_default(), show::trace)?;
            Ok(Exit::Ok)
        }
        TracesCommand::Export(args) => export(session, args).await,
        TracesCommand::Import { file } => import::import(session, file).await,
        TracesCommand::Delete(args) => delete(session, args).await,
    }
}

/// Where the daemon keeps its state.
pub(crate) async fn store(session: &Session) -> anyhow::Result<Exit> {
    let request = v1::GetStoreInfoRequest {};
    let response = session.call("reading", session.client.get_store_info(request)).await?;
    session.reply(&response, store_text)?;
    Ok(Exit::Ok)
}

async fn list(session: &Session, args: ListArgs) -> anyhow::Result<Exit> {
    let request = v1::ListTracesRequest {
        filter: Some(filter(args.filter)),
        page_size: args.limit,
        page_token: args.page.unwrap_or_default(),
    };
    let response = session.call("reading", session.client.list_traces(request)).await?;
    session.reply(&response, show::traces)?;
    Ok(Exit::Ok)
}

/// Writes traces as JSON Lines, whether or not JSON was asked for: an export is for programs.
async fn export(session: &Session, args: ExportArgs) -> anyhow::Result<Exit> {
    let request =
        v1::ExportTracesRequest { filter: Some(filter(args.filter)), limit: args.limit.unwrap_or_default() };
    let mut replies = session.call("opening", session.client.export_traces(request)).await?;
    let mut file = args.output.as_deref().map(create).transpose()?;
    let mut bar = Bar::of_share("exporting");
    let mut count = 0_u64;
    while let Some(response) = replies.next().await? {
        bar.set_share(response.progress);
        let line = json::text(&response.trace.unwrap_or_default())?;
        match &mut file {
            Some(file) => writeln!(file, "{line}")?,
            None => bar.aside(|| session.line(&line))?,
        }
        count += 1;
    }
    bar.finish();
    if let (Some(file), Some(path)) = (file, args.output) {
        file.finish()?;
        if session.json {
            session.line(&serde_json::json!({ "file": path, "traces": count }).to_string())?;
        } else {
            session.line(&format!("{count} traces written to {path}"))?;
        }
    }
    Ok(Exit::Ok)
}

/// A file that is packed or not.
enum Sink {
    Plain(BufWriter<File>),
    Packed(GzEncoder<BufWriter<File>>),
}

impl Sink {
    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Packed(file) => file.finish()?.flush(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, part: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(part),
            Self::Packed(file) => file.write(part),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Packed(file) => file.flush(),
        }
    }
}

fn create(path: &str) -> anyhow::Result<Sink> {
    let file = File::create(path).map_err(|source| file_fault(path, source))?;
    let file = BufWriter::new(file);
    Ok(if path.ends_with(".gz") {
        Sink::Packed(GzEncoder::new(file, Compression::default()))
    } else {
        Sink::Plain(file)
    })
}

async fn delete(session: &Session, args: DeleteArgs) -> anyhow::Result<Exit> {
    let request =
        v1::DeleteTracesRequest { tenant: args.tenant.unwrap_or_default(), decision_ids: args.decisions };
    let response = session.call("deleting", session.client.delete_traces(request)).await?;
    session.reply(&response, |_, response| format!("{} traces deleted\n", response.deleted))?;
    Ok(Exit::Ok)
}

fn filter(args: FilterArgs) -> v1::TraceFilter {
    v1::TraceFilter {
        model: args.model.unwrap_or_default(),
        task_type: args.task_type.unwrap_or_default(),
        tags: args.tags.into_iter().collect(),
        admitted_from: args.from,
        admitted_before: args.before,
        has_feedback: match (args.with_feedback, args.without_feedback) {
            (false, false) => None,
            (with, _) => Some(with),
        },
        status: args.status.map_or(0, |status| status.wire().into()),
        policy_version: args.policy_version.unwrap_or_default(),
        caller_ref: args.caller_ref.unwrap_or_default(),
    }
}

fn stats_text(look: &Look, response: &v1::ListModelStatsResponse) -> String {
    let rows = response.stats.iter().map(|stats| {
        let interval = match (stats.correct_low, stats.correct_high) {
            (Some(low), Some(high)) => format!("{low:.3}..{high:.3}"),
            (None | Some(_), _) => String::new(),
        };
        let failures = stats.failures.iter().map(|failure| {
            let status = word(failure.status().as_str_name(), "ATTEMPT_STATUS_");
            format!("{} {status}", failure.count)
        });
        vec![
            stats.model.clone(),
            or_none(&stats.task_type),
            stats.eligible.to_string(),
            stats.chosen.to_string(),
            percent(stats.share_chosen),
            stats.feedback.to_string(),
            stats.correct_mean.map_or_else(|| NONE.to_owned(), |mean| format!("{} {interval}", score(mean))),
            usd_of_nanos(stats.cost_usd_nanos),
            latency_or_none(stats.latency_p50_us),
            latency_or_none(stats.latency_p95_us),
            word(stats.breaker().as_str_name(), "BREAKER_STATE_"),
            failures.collect::<Vec<_>>().join(", "),
        ]
    });
    let mut text = look.table(
        &[
            "model",
            "task type",
            ">eligible",
            ">chosen",
            ">share",
            ">judged",
            ">right (95 %)",
            ">cost",
            ">p50",
            ">p95",
            "breaker",
            "failures",
        ],
        rows.collect(),
    );
    text += &format!("{} decisions, {} in all\n", response.decisions, usd_of_micros(response.cost_usd_micros));
    text
}

fn store_text(look: &Look, response: &v1::GetStoreInfoResponse) -> String {
    let rows = response.files.iter().map(|file| vec![file.name.clone(), bytes(file.size_bytes)]);
    let mut text = format!("{}\n", response.state_folder);
    text += &look.table(&["file", ">size"], rows.collect());
    let content = if response.store_content {
        "prompts and raw answers are stored"
    } else {
        "no prompts and no raw answers are stored, but for replies to idempotency keys, kept for a day"
    };
    text += &look.pairs(&[
        ("traces", response.trace_rows.to_string()),
        ("oldest", time(response.oldest_trace_at.as_ref())),
        ("feedback", response.feedback_rows.to_string()),
        ("content", content.to_owned()),
        ("pruned", format!("after {} days or above {}", response.keep_days, bytes(response.keep_bytes))),
    ]);
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[test]
    fn every_filter_is_sent() {
        let line = "p traces list --model m --task-type t --tag a=b --from 2026-03-01T08:00:00Z \
                    --before 2026-03-02T08:00:00Z --without-feedback --status failed --policy-version v \
                    --caller-ref r --limit 7 --page p";
        let cli = Cli::try_parse_from(line.split_whitespace()).expect("parses");
        let Command::Traces { command: TracesCommand::List(args) } = cli.command else { panic!("not a list") };
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let expected = v1::TraceFilter {
            model: "m".to_owned(),
            task_type: "t".to_owned(),
            tags: [("a".to_owned(), "b".to_owned())].into(),
            admitted_from: at(1_772_352_000),
            admitted_before: at(1_772_438_400),
            has_feedback: Some(false),
            status: v1::RequestStatus::Failed.into(),
            policy_version: "v".to_owned(),
            caller_ref: "r".to_owned(),
        };
        assert_eq!(filter(args.filter), expected);
    }
}
