//! The figures as one table a set.

use comfy_table::{CellAlignment, Table, presets};

use crate::learners::{PRODUCT, Tallies};
use crate::split::World;

/// Best and worst of a set and every learner's figures, from all its seeds.
pub(crate) fn table(name: &str, world: &World, seeds: &[Tallies]) -> String {
    let mut table = Table::new();
    let header = ["learner", "gain", "error", "worst seed", "behind", "error", "fit s", "request µs"];
    table.load_style(presets::NOTHING).set_header(header);
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let served = |seed: &Tallies| seed.learners.iter().find(|l| l.name == PRODUCT).map_or(0.0, |l| l.gain);
    for at in 0..seeds[0].learners.len() {
        let of = || seeds.iter().map(|seed| (&seed.learners[at], served(seed)));
        let (gain, error) = mean(&of().map(|(learner, _)| learner.gain).collect::<Vec<_>>());
        let worst = of().map(|(learner, _)| learner.gain).fold(f64::INFINITY, f64::min);
        let (behind, behind_error) =
            mean(&of().map(|(learner, served)| served - learner.gain).collect::<Vec<_>>());
        let seconds = |which: usize| {
            let times: Option<Vec<f64>> = of().map(|(l, _)| l.seconds.map(|times| times[which])).collect();
            times.map(|times| mean(&times).0)
        };
        let time = |seconds: Option<f64>, text: fn(f64) -> String| seconds.map_or_else(|| "-".to_owned(), text);
        table.add_row([
            seeds[0].learners[at].name.to_owned(),
            format!("{gain:+.4}"),
            format!("{error:.4}"),
            format!("{worst:+.4}"),
            format!("{behind:+.4}"),
            format!("{behind_error:.4}"),
            time(seconds(0), |s| format!("{s:.2}")),
            time(seconds(1), |s| format!("{:.1}", s * 1e6)),
        ]);
    }
    let of = |figure: fn(&Tallies) -> f64| mean(&seeds.iter().map(figure).collect::<Vec<_>>()).0;
    format!(
        "{name}: {} rows, {} models, {} seeds; best single {:.4}, oracle {:+.4}, encoder {:.2} s\n{table}\n",
        world.rows.len(),
        world.models.len(),
        seeds.len(),
        of(|seed| seed.best_single),
        of(|seed| seed.oracle - seed.best_single),
        of(|seed| seed.encoder_seconds),
    )
}

/// The mean and its standard error over the seeds.
fn mean(of: &[f64]) -> (f64, f64) {
    let n = of.len() as f64;
    let mean = of.iter().sum::<f64>() / n;
    let squares: f64 = of.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, (squares / (n - 1.0).max(1.0) / n).sqrt())
}
