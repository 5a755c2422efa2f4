//! Progress on stderr: one bar a stage on a terminal, one plain line a finished part elsewhere.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The progress of one stage, in sequences.
pub(crate) struct Progress {
    stage: &'static str,
    bar: ProgressBar,
    started: Instant,
    /// Sequences that earlier runs had done, which say nothing about today's speed.
    resumed: u64,
}

impl Progress {
    /// Begins a stage of `n_sequences`.
    pub(crate) fn begin(stage: &'static str, n_sequences: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(n_sequences), target);
        let template =
            "{prefix:>5} [{bar:28}] {human_pos}/{human_len} sequences, {speed}, {eta} left  {msg}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let speed = |state: &ProgressState, to: &mut dyn fmt::Write| {
            // indicatif's own has four decimals.
            let _ = write!(to, "{:.0}/s", state.per_sec());
        };
        bar.set_style(style.with_key("speed", speed).progress_chars("=> "));
        bar.set_prefix(stage);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self {
            stage,
            bar,
            started: Instant::now(),
            resumed: 0,
        }
    }

    /// Says what is being worked on.
    pub(crate) fn working_on(&self, what: String) {
        self.bar.set_message(what);
    }

    /// Counts sequences of a part that is still being worked on.
    pub(crate) fn advance(&self, n_sequences: u64) {
        self.bar.inc(n_sequences);
    }

    /// Counts sequences whose part an earlier run has finished.
    pub(crate) fn skip(&mut self, n_sequences: u64) {
        self.resumed += n_sequences;
        self.bar.inc(n_sequences);
        self.bar.reset_eta();
    }

    /// Reports a finished part, where no bar shows it.
    pub(crate) fn finished(&self, part: &str) {
        if !self.bar.is_hidden() {
            return;
        }
        let done = self.bar.position();
        let total = self.bar.length().unwrap_or(done);
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a speed and a time to be read by a person"
        )]
        let per_second = done.saturating_sub(self.resumed) as f64 / seconds;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a speed and a time to be read by a person"
        )]
        let left = total.saturating_sub(done) as f64 / per_second.max(1e-9);
        let (done, total) = (HumanCount(done), HumanCount(total));
        let line = format!(
            "{}: {part}: {done}/{total} sequences, {per_second:.0}/s, {left:.0} s left",
            self.stage
        );
        // Progress is a courtesy: a closed stderr must not end the run.
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Ends the stage; its time.
    pub(crate) fn end(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}

/// Says a line of its own, between stages.
pub(crate) fn say(line: &str) {
    // A courtesy, too.
    let _ = writeln!(std::io::stderr(), "{line}");
}
