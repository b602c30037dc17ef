//! What is seen on a terminal while something takes longer than a second. Always on stderr, never in a file or pipe.

use std::future::Future;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);
/// Steps of a bar that shows a share.
const THOUSAND: u64 = 1_000;

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

    /// A bar over something whose length is known as a share only.
    pub(crate) fn of_share(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(THOUSAND), ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {percent:>3} %{msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what);
        Self { bar, shown: false, since: Instant::now() }
    }

    /// Sets which share is done, 0 to 1.
    pub(crate) fn set_share(&mut self, share: f64) {
        self.set(thousandths(share));
    }

    /// Says what is being done and what else is known of it.
    pub(crate) fn say(&self, doing: String, beside: String) {
        self.bar.set_prefix(doing);
        self.bar.set_message(beside);
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

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=1000; NaN becomes 0")]
fn thousandths(share: f64) -> u64 {
    (share * 1_000.0).clamp(0.0, 1_000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_stays_within_its_length() {
        assert_eq!(thousandths(0.0), 0);
        assert_eq!(thousandths(0.5), 500);
        assert_eq!(thousandths(2.0), 1_000);
        assert_eq!(thousandths(f64::NAN), 0);
    }
}
