//! What is seen on a terminal while something takes longer than a second. Always on stderr, never in a file or pipe.

use std::future::Future;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// Awaits; shows a spinner once it takes longer than a second.
pub(crate) async fn patiently<T>(what: &str, work: impl Future<Output = T> + Unpin) -> T {
    let mut work = work;
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = sleep(PATIENCE) => {}
    }
    let spinner = if stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    spinner.set_message(what.to_owned());
    spinner.enable_steady_tick(TICK);
    let done = work.await;
    spinner.finish_and_clear();
    done
}

/// A bar over many items that shows itself after a second.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    shown: bool,
    since: Instant,
}

impl Bar {
    /// A bar of `len` steps.
    pub(crate) fn new(what: &'static str, len: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::hidden());
        let template = "{msg} {wide_bar} {pos}/{len}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar, shown: false, since: Instant::now() }
    }

    /// Sets how many steps are done.
    pub(crate) fn set(&mut self, done: u64) {
        if !self.shown && self.since.elapsed() >= PATIENCE && stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
        self.bar.set_position(done);
    }

    /// Writes to stdout or stderr without tearing the bar.
    pub(crate) fn aside<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }

    /// Takes the bar off the screen.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
