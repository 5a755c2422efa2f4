//! Progress on stderr: one bar a stage on a terminal, one plain line a finished part elsewhere.

use crate::terminal::clean;
use indicatif::{
    HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The bar on the screen: lines are written above it.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// The progress of one stage, in sequences.
pub(crate) struct Progress {
    stage: &'static str,
    bar: ProgressBar,
    started: Instant,
    /// Sequences that earlier runs or other processes had done, which say nothing about this one's speed.
    resumed: AtomicU64,
    /// Of the stage that writes parts: those that are there, and all.
    parts: Option<(AtomicU64, u64)>,
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
            "{prefix:>5} [{bar:28}] {human_pos}/{human_len} sequences, {speed}, {left} left  {msg}";
        let style =
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let speed = |state: &ProgressState, to: &mut dyn fmt::Write| {
            // indicatif's own has four decimals.
            let _ = write!(to, "{:.0}/s", state.per_sec());
        };
        let left = |state: &ProgressState, to: &mut dyn fmt::Write| {
            // Before the first one is counted there is no telling.
            let _ = match state.eta() {
                Duration::ZERO if state.len() != Some(state.pos()) => write!(to, "–"),
                left => write!(to, "{:#}", HumanDuration(left)),
            };
        };
        let style = style.with_key("speed", speed).with_key("left", left);
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(stage);
        bar.enable_steady_tick(Duration::from_millis(200));
        *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self {
            stage,
            bar,
            started: Instant::now(),
            resumed: AtomicU64::new(0),
            parts: None,
        }
    }

    /// Counts parts, too: `n_done` of `n` are there already.
    pub(crate) fn parts(&mut self, n_done: u64, n: u64) {
        self.parts = Some((AtomicU64::new(n_done), n));
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
    pub(crate) fn skip(&self, n_sequences: u64) {
        self.resumed.fetch_add(n_sequences, Ordering::Relaxed);
        self.bar.inc(n_sequences);
        self.bar.reset_eta();
    }

    /// Counts parts that other processes have finished meanwhile.
    pub(crate) fn by_others(&self, n_parts: u64, n_sequences: u64) {
        if n_parts > 0 {
            self.add_parts(n_parts);
            self.skip(n_sequences);
        }
    }

    /// Says how far the processes are that this one has started.
    pub(crate) fn at(&self, n_parts: u64, n_sequences: u64) {
        self.bar.set_position(n_sequences);
        if let Some((done, _)) = &self.parts
            && done.swap(n_parts, Ordering::Relaxed) < n_parts
        {
            self.finished("all workers");
        }
    }

    /// Reports a part that was written.
    pub(crate) fn finished_part(&self, part: &str) {
        self.add_parts(1);
        self.finished(part);
    }

    fn add_parts(&self, n: u64) {
        if let Some((done, _)) = &self.parts {
            done.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Reports a finished part, where no bar shows it.
    pub(crate) fn finished(&self, part: &str) {
        if !self.bar.is_hidden() {
            if let Some((done, all)) = &self.parts {
                let done = done.load(Ordering::Relaxed);
                self.bar.set_prefix(format!("{} {done}/{all}", self.stage));
            }
            return;
        }
        let done = self.bar.position();
        let total = self.bar.length().unwrap_or(done);
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a speed and a time to be read by a person"
        )]
        let per_second = done.saturating_sub(self.resumed.load(Ordering::Relaxed)) as f64 / seconds;
        #[expect(
            clippy::cast_precision_loss,
            reason = "a speed and a time to be read by a person"
        )]
        let left = total.saturating_sub(done) as f64 / per_second.max(1e-9);
        let (done, total) = (HumanCount(done), HumanCount(total));
        let parts = match &self.parts {
            Some((n, all)) => format!("{}/{all} parts, ", n.load(Ordering::Relaxed)),
            None => String::new(),
        };
        let line = format!(
            "{}: {part}: {parts}{done}/{total} sequences, {per_second:.0}/s, {left:.0} s left",
            self.stage
        );
        // Progress is a courtesy: a closed stderr must not end the run.
        let _ = writeln!(std::io::stderr(), "{}", clean(&line));
    }

    /// Ends the stage; its time.
    pub(crate) fn end(self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}

/// When work without a bar is first spoken of, …
const SILENCE: Duration = Duration::from_secs(2);
/// … and how often after that.
const REMINDER: Duration = Duration::from_secs(10);

/// Does work that has no bar; says what it is where it takes long. `work` counts what it has done of `total`, where
/// that is known.
pub(crate) fn during<T>(what: &str, total: Option<u64>, work: impl FnOnce(&AtomicU64) -> T) -> T {
    let done = AtomicU64::new(0);
    let began = Instant::now();
    let (end, ended) = channel::<()>();
    thread::scope(|scope| {
        let (done, began) = (&done, &began);
        let watch = move || {
            let mut patience = SILENCE;
            while ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                patience = REMINDER;
                say(&format!(
                    "{what}{}, {} s",
                    share(done, total),
                    began.elapsed().as_secs()
                ));
            }
        };
        // Where no thread can be had, the work is done in silence.
        let _ = thread::Builder::new().spawn_scoped(scope, watch);
        let result = work(done);
        drop(end);
        result
    })
}

fn share(done: &AtomicU64, total: Option<u64>) -> String {
    let Some(total) = total.filter(|total| *total > 0) else {
        return String::new();
    };
    let percent = u128::from(done.load(Ordering::Relaxed)) * 100 / u128::from(total);
    format!(": {percent} %")
}

/// Says a line of its own, above the bar where there is one.
pub(crate) fn say(line: &str) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // A courtesy, too.
    let write = || {
        let _ = writeln!(std::io::stderr(), "{}", clean(line));
    };
    match shown {
        Some(bar) if !bar.is_finished() => bar.suspend(write),
        _ => write(),
    }
}
