//! `play`: a recorded workload through the daemon, judged and fed back, and what came of it.
//!
//! This is the demo and a user's own experiment: it sees only what any client sees. The right answers and recorded
//! scores of the rows stay here until a reply is in; the true task is hidden unless `--show-task` is given.

mod figures;
mod judge;
mod print;
mod reference;
mod run;
mod workload;

use pointsman_client::v1;
use serde::Serialize;

use self::figures::Figures;
use self::workload::Row;
use super::args::PlayArgs;
use super::exit::Exit;
use super::json;
use super::session::Session;

/// Plays a workload and prints what was learned.
pub(crate) async fn play(session: &Session, args: PlayArgs) -> anyhow::Result<Exit> {
    let mut rows = workload::read(&args.workload)?;
    workload::shuffle(&mut rows, args.seed);
    rows.truncate(args.rows.map_or(usize::MAX, std::num::NonZeroUsize::get));

    let client = &session.client;
    let models = client.list_models(v1::ListModelsRequest {}).await?.models;
    let pool = pool(&models);
    let run = Box::pin(run::run(client, &rows, &args)).await?;
    let figures = figures::figures(&rows, &run, &pool, args.seed);

    let last = run.last.as_ref().and_then(|(index, response)| Some((rows.get(*index)?, response)));
    if session.json {
        let report =
            Report { figures: &figures, failed: failed(&rows, &run), explained: last.map(explained).transpose()? };
        session.line(&serde_json::to_string(&report)?)?;
        return Ok(Exit::Ok);
    }
    let mut text = print::report(session.look, &figures, last);
    if let Some(failed) = failed(&rows, &run).first() {
        text += &format!("\nFirst failure, request {}: {}\n", failed.id, failed.error);
    }
    session.print(&text)?;
    Ok(Exit::Ok)
}

/// The models that the daemon can choose, in registry order.
fn pool(models: &[v1::ModelListing]) -> Vec<String> {
    let usable = models.iter().filter(|model| model.enabled && model.available);
    usable.filter_map(|model| Some(model.card.as_ref()?.name.clone())).collect()
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    figures: &'a Figures,
    /// The first failures, by kind of failure.
    failed: Vec<Failed>,
    explained: Option<Explained>,
}

/// A row that failed, or whose feedback did.
#[derive(Serialize)]
struct Failed {
    id: String,
    error: String,
    rows: usize,
}

#[derive(Serialize)]
struct Explained {
    id: String,
    task: String,
    gold: Option<String>,
    response: serde_json::Value,
}

fn explained((row, response): (&Row, &v1::RouteResponse)) -> anyhow::Result<Explained> {
    Ok(Explained {
        id: row.id.clone(),
        task: row.task.clone(),
        gold: row.gold.clone(),
        response: json::value(response)?,
    })
}

/// Each sort of failure once, with the first row of it and how many there were.
fn failed(rows: &[Row], run: &run::Run) -> Vec<Failed> {
    let mut sorts: Vec<(tonic::Code, Failed)> = Vec::new();
    for one in &run.played {
        let error = one.failure.as_ref().or(one.feedback_failure.as_ref());
        let Some(error) = error else { continue };
        let code = error.fault().code;
        if let Some((_, sort)) = sorts.iter_mut().find(|(found, _)| *found == code) {
            sort.rows += 1;
            continue;
        }
        let failed = Failed {
            id: rows.get(one.index).map_or_else(String::new, |row| row.id.clone()),
            error: error.to_string(),
            rows: 1,
        };
        sorts.push((code, failed));
    }
    sorts.into_iter().map(|(_, failed)| failed).collect()
}
