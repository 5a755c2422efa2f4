//! One process a device: they share the work by their claims.

use super::How;
use super::backlog::Count;
use crate::claims;
use crate::config::Run;
use crate::failure;
use crate::progress::{self, Progress};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often the workers are looked at.
const PERIOD: Duration = Duration::from_millis(200);
/// The variable that says how many threads rayon takes.
const THREADS: &str = "RAYON_NUM_THREADS";

/// A process on one device.
struct Process {
    device: String,
    child: Child,
    /// Closed when it should end; gone with this process, too.
    stdin: Option<ChildStdin>,
    /// Passes on what it says; what remains is its error.
    listener: JoinHandle<String>,
}

/// Starts a process for each device of the run and waits for them.
///
/// # Errors
///
/// When one cannot be started or fails.
pub(super) fn work(run: &Run, how: &How, progress: &Progress, finished: Count) -> Result<()> {
    let n = run.devices.len();
    let mut processes = Vec::with_capacity(n);
    for (number, device) in run.devices.iter().enumerate() {
        let process = start(run, how, number, &device.to_string())
            .with_context(|| format!("starting the worker of `{device}`"))?;
        processes.push(process);
    }
    let mut stopped = false;
    let mut seen: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut running = true;
    let mut codes: Vec<Option<i32>> = vec![None; n];
    while running {
        thread::sleep(PERIOD);
        running = false;
        for (process, code) in processes.iter_mut().zip(&mut codes) {
            match process.child.try_wait()? {
                None => running = true,
                Some(status) => *code = Some(status.code().unwrap_or(-1)),
            }
        }
        let failed = codes.iter().flatten().any(|code| *code != 0);
        if !stopped && (how.stop.is_asked() || failed && !how.keep_going) {
            stopped = true;
            if how.stop.is_asked() {
                progress::say("finishing the parts at hand; once more ends at once");
            }
            for process in &mut processes {
                process.stdin = None;
            }
        }
        for (record, _) in claims::workers(&run.out) {
            if processes
                .iter()
                .any(|process| process.child.id() == record.pid)
            {
                seen.insert(record.pid, (record.work.n_units, record.work.n_verdicts));
            }
        }
        let done = seen
            .values()
            .fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        progress.at(finished.n_units + done.0, finished.n_verdicts + done.1);
    }
    let mut errors = Vec::new();
    for (process, code) in processes.into_iter().zip(codes) {
        let said = process.listener.join().unwrap_or_default();
        match code {
            Some(0 | failure::INTERRUPTED) => {}
            _ => errors.push((process.device, said)),
        }
    }
    if errors.is_empty() {
        return Ok(());
    }
    let mut hints = Vec::new();
    let mut messages = Vec::new();
    for (device, said) in errors {
        let (message, hint) = said.split_once("\n\nhint: ").unwrap_or((&said, ""));
        let message = message.trim_start_matches("error: ").trim();
        let message = if message.is_empty() {
            "it was killed"
        } else {
            message
        };
        messages.push(format!("the worker of `{device}`: {message}"));
        hints.push(hint.trim().to_owned());
    }
    hints.retain(|hint| !hint.is_empty());
    hints.dedup();
    hints.push("parts that are finished are kept; the same command goes on from there".to_owned());
    Err(failure::failed(messages.join("\n"), hints.join("; ")))
}

fn start(run: &Run, how: &How, number: usize, device: &str) -> Result<Process> {
    let n = run.devices.len();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("run").arg(&how.file);
    command.args(["--only", "probe", "--device", device]);
    command.arg("--worker").arg(format!("{number}/{n}"));
    command.arg("--out").arg(&run.out);
    if let Some(shard) = how.shard {
        command.arg("--shard").arg(shard.to_string());
    }
    if how.keep_going {
        command.arg("--keep-going");
    }
    if let Some(log) = how.log {
        command.arg("--log").arg(log.to_string());
    }
    if std::env::var_os(THREADS).is_none() {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        command.env(THREADS, (cores / n).max(1).to_string());
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take();
    let listener = thread::spawn(move || {
        let mut error = String::new();
        let lines = stderr
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufRead::lines);
        for line in lines.map_while(Result::ok) {
            // From there on it is the one error that a program ends with.
            if !error.is_empty() || line.starts_with("error: ") {
                error.push_str(&line);
                error.push('\n');
            } else {
                progress::say(&line);
            }
        }
        error
    });
    Ok(Process {
        device: device.to_owned(),
        stdin: child.stdin.take(),
        child,
        listener,
    })
}
