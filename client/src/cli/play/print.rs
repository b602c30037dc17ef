//! The figures of a run as tables that a newcomer understands.

use std::cmp::Ordering;

use pointsman_client::v1;

use super::figures::{Figures, TaskFigures, TaskModel};
use super::workload::Row;
use crate::cli::show;
use crate::cli::tables::{Look, NONE, excerpt, percent, score_or_none, usd_mean};

/// Tasks that are named for a model.
const GOOD_AT_MAX: usize = 3;
/// Rows a task must have before it is named.
const TASK_ROWS_MIN: usize = 5;
/// Letters of a prompt that are shown.
const PROMPT_LETTERS_MAX: usize = 160;

/// The whole report.
pub(crate) fn report(look: Look, figures: &Figures, explained: Option<(&Row, &v1::RouteResponse)>) -> String {
    let mut text = format!(
        "{} requests, {} failed, {:.0} a second, {} models called for each on average\n",
        figures.rows,
        figures.failures,
        figures.requests_per_s,
        figures.calls_mean.map_or_else(|| NONE.to_owned(), |mean| format!("{mean:.2}")),
    );
    if figures.feedback_failures > 0 {
        text += &format!("WARNING: the feedback of {} requests was not accepted\n", figures.feedback_failures);
    }
    text += "\nWhat it achieved, beside what the same requests allow\n";
    text += &achieved(look, figures);
    text += "\nThe models: how good each is by itself, and how often it was called\n";
    text += &models(look, figures);
    if figures.tasks.len() > 1 {
        text += "\nThe tasks: which model is best at each, and which was called at the end\n";
        text += &tasks(look, &figures.tasks);
    }
    if let Some((row, response)) = explained {
        text += "\nOne decision explained\n";
        text += &explain(look, row, response);
    }
    text
}

fn achieved(look: Look, figures: &Figures) -> String {
    let row = |what: String, score: Option<f64>, cost: Option<f64>| {
        vec![what, score_or_none(score), usd_mean(cost.map(|cost| cost * 1_000.0))]
    };
    let best = figures.best_single.as_ref();
    let name = best.map_or("none recorded", |best| best.name.as_str());
    let rows = vec![
        row(format!("Pointsman, first {} requests", figures.rows_first), figures.score_first, figures.cost_first),
        row(format!("Pointsman, last {} requests", figures.rows_last), figures.score_last, figures.cost_last),
        row("Pointsman, all".to_owned(), figures.score_mean, figures.cost_mean),
        row(format!("best single model ({name})"), best.map(|best| best.score), best.and_then(|best| best.cost)),
        row("a random model".to_owned(), figures.random_score, figures.random_cost),
        row("oracle: the right model every time".to_owned(), figures.oracle_score, figures.oracle_cost),
    ];
    look.table(&["", ">accuracy", ">cost of 1,000"], rows)
}

fn models(look: Look, figures: &Figures) -> String {
    let rows = figures.models.iter().map(|model| {
        vec![
            model.name.clone(),
            score_or_none(model.score),
            usd_mean(model.cost.map(|cost| cost * 1_000.0)),
            share(model.share_first),
            share(model.share_last),
            good_at(&model.name, &figures.tasks),
        ]
    });
    look.table(
        &[
            "model",
            ">score",
            ">cost of 1,000",
            ">called first",
            ">called last",
            "good at (its score, share called at the end)",
        ],
        rows.collect(),
    )
}

/// The tasks on which the model stands out most against the mean of all models.
fn good_at(name: &str, tasks: &[TaskFigures]) -> String {
    let mut found: Vec<(f64, String)> = tasks
        .iter()
        .filter(|task| task.rows >= TASK_ROWS_MIN && tasks.len() > 1)
        .filter_map(|task| {
            let own = task.models.iter().find(|model| model.name == name)?;
            let score = own.score?;
            let all = task.models.iter().filter_map(|model| model.score);
            let ahead = score - super::reference::Mean::of(all)?;
            let cell = format!("{} ({score:.2}, {})", task.task, share(own.share_last));
            (ahead > 0.0).then_some((ahead, cell))
        })
        .collect();
    found.sort_by(|(left, _), (right, _)| right.total_cmp(left));
    found.truncate(GOOD_AT_MAX);
    let cells: Vec<_> = found.into_iter().map(|(_, cell)| cell).collect();
    cells.join(", ")
}

fn tasks(look: Look, tasks: &[TaskFigures]) -> String {
    let most = |task: &TaskFigures, of: fn(&TaskModel) -> Option<f64>| {
        let order = |left: &&TaskModel, right: &&TaskModel| match (of(left), of(right)) {
            // Of equals the first in registry order wins; `max_by` would take the last.
            (Some(left), Some(right)) => left.total_cmp(&right).then(Ordering::Greater),
            (left, right) => left.is_some().cmp(&right.is_some()),
        };
        let best = task.models.iter().filter(|model| of(model).is_some());
        best.max_by(order).cloned()
    };
    let rows = tasks.iter().map(|task| {
        let best = most(task, |model| model.score);
        let called = most(task, |model| model.share_last);
        let name = |model: Option<&TaskModel>| model.map_or_else(|| NONE.to_owned(), |model| model.name.clone());
        vec![
            if task.task.is_empty() { NONE.to_owned() } else { task.task.clone() },
            task.rows.to_string(),
            name(best.as_ref()),
            score_or_none(best.as_ref().and_then(|model| model.score)),
            name(called.as_ref()),
            share(called.as_ref().and_then(|model| model.share_last)),
            score_or_none(called.as_ref().and_then(|model| model.score)),
            score_or_none(task.score_last),
        ]
    });
    look.table(
        &[
            "task",
            ">requests",
            "best model",
            ">its score",
            "called most at the end",
            ">share",
            ">its score",
            ">accuracy at the end",
        ],
        rows.collect(),
    )
}

fn explain(look: Look, row: &Row, response: &v1::RouteResponse) -> String {
    let mut text = look.pairs(&[
        ("request", row.id.clone()),
        ("prompt", excerpt(&row.prompt, PROMPT_LETTERS_MAX)),
        ("right answer", row.gold().unwrap_or_default().to_owned()),
    ]);
    text += "answer        ";
    text += show::route(&look, response).trim_start();
    text
}

fn share(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), percent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::play::reference::tests::tiny;
    use crate::cli::play::run::{Played, Run};

    #[test]
    fn the_report_names_what_matters() {
        let (rows, pool) = tiny();
        let rows: Vec<Row> = rows.into_iter().cycle().take(30).collect();
        let played = (0..30).map(|index| Played {
            index,
            called: vec!["b".to_owned()],
            score: Some(1.0),
            cost_usd_nanos: Some(1_000),
            failure: None,
            feedback_failure: None,
        });
        let run = Run { played: played.collect(), last: None, took: std::time::Duration::from_secs(1) };
        let figures = super::super::figures::figures(&rows, &run, &pool, 0);
        let response = v1::RouteResponse { decision_id: "d-1".to_owned(), ..v1::RouteResponse::default() };
        let explained = rows.first().map(|row| (row, &response));
        let text = report(Look::new(false, false), &figures, explained);
        for part in [
            "first 3 requests",
            "last 6 requests",
            "best single model (b)",
            "oracle",
            "law (1.00, 0 %)",
            "math (1.00, 100 %)",
            "d-1",
        ] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
    }
}
