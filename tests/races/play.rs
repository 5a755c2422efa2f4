//! Plays a round, and says whether what is left is right.

use super::references::References;
use super::round::{Action, Actor, Moment, Round, Settings};
use crate::harness::{Ended, SIGKILL, SIGTERM, end_within, is_hidden, send, tree};
use crate::program::manifest;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A process that is still there after so long hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// An event that has not come by then does not come.
const EVENT: Duration = Duration::from_secs(3);
/// Ends that are nearer to one another cannot be told apart.
const INSTANT: Duration = Duration::from_millis(10);

/// A folder with run files that share `out`.
pub(super) struct Arena(TempDir);

impl Arena {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn out(&self) -> PathBuf {
        self.folder().join("out")
    }

    /// Starts a process; what it says goes to files of this name.
    pub(super) fn start(&self, settings: Settings, name: &str) -> Child {
        let run_file = self.folder().join(settings.name() + ".toml");
        if !run_file.exists() {
            // Another thread may do the same.
            let hidden = self.folder().join(format!(".{name}.toml"));
            fs::write(&hidden, settings.run_file().text()).unwrap();
            fs::rename(&hidden, &run_file).unwrap();
        }
        let said = |to: &str| File::create(self.folder().join(format!("{name}.{to}"))).unwrap();
        Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .arg("run")
            .arg(run_file)
            .current_dir(self.folder())
            .env("RAYON_NUM_THREADS", "2")
            .stdin(Stdio::null())
            .stdout(said("stdout"))
            .stderr(said("stderr"))
            .spawn()
            .unwrap()
    }

    /// How a process of this name ended.
    fn ended(&self, mut child: Child, name: &str) -> Ended {
        let read = |from: &str| fs::read(self.folder().join(format!("{name}.{from}"))).unwrap();
        let status = child.wait().unwrap();
        Ended::from(std::process::Output {
            status,
            stdout: read("stdout"),
            stderr: read("stderr"),
        })
    }

    /// A run that nothing disturbs.
    pub(super) fn finish(&self, settings: Settings) -> Result<Ended, String> {
        let mut child = self.start(settings, "final");
        if !end_within(&mut child, PATIENCE) {
            return Err(format!("the final run of {} hangs", settings.name()));
        }
        Ok(self.ended(child, "final"))
    }
}

/// What the rounds held.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rounds: u32,
    processes: u32,
    pub(super) stops: u32,
    pub(super) kills: u32,
    refusals: u32,
    successes: u32,
    /// Rounds whose last success was held to its reference before the final run.
    pub(super) whole: u32,
    /// Rounds in which nobody was ended from outside, and nobody succeeded.
    nobody: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            processes,
            stops,
            kills,
            refusals,
            successes,
            whole,
            nobody,
        } = self;
        write!(
            f,
            "{rounds} rounds, {processes} processes, {stops} stops, {kills} ends from outside, \
             {refusals} refusals, {successes} successes, {whole} rounds compared before the final \
             run, {nobody} without a winner"
        )
    }
}

/// How an actor's play ended.
struct Finish {
    ended: Ended,
    at: Instant,
    hangs: bool,
    stops: u32,
    /// The signal that was sent to end it.
    sent: Option<Action>,
}

/// Plays a round.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn play(
    round: &Round,
    references: &mut References,
    tally: &mut Tally,
) -> Result<(), String> {
    let arena = Arena::new();
    let began = Instant::now();
    let finishes: Vec<Finish> = scope(|threads| {
        let arena = &arena;
        let started: Vec<_> = round
            .actors
            .iter()
            .enumerate()
            .map(|(i, actor)| threads.spawn(move || act(arena, actor, i, began)))
            .collect();
        started
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    tally.rounds += 1;
    for finish in &finishes {
        tally.processes += 1;
        tally.stops += finish.stops;
        tally.kills += u32::from(finish.sent.is_some());
        tally.refusals += u32::from(finish.ended.code == Some(1));
        tally.successes += u32::from(finish.ended.is_success());
    }
    judge(round, &finishes)?;
    let last = last_success(round, &finishes);
    let disturbed_later = |at: Instant| {
        let mut later = finishes.iter().filter(|finish| finish.at >= at);
        later.any(|finish| finish.sent.is_some())
    };
    if let Some((candidates, at)) = &last
        && !disturbed_later(*at)
    {
        tally.whole += 1;
        compare(
            references,
            candidates,
            &arena.out(),
            "after the last success",
        )?;
    } else if last.is_none() && finishes.iter().all(|finish| finish.sent.is_none()) {
        tally.nobody += 1;
    }
    close(
        round,
        last.map(|(settings, _)| settings),
        &arena,
        references,
    )
}

/// Holds what is left to the references; one of them must fit.
fn compare(
    references: &mut References,
    candidates: &[Settings],
    out: &Path,
    when: &str,
) -> Result<(), String> {
    let mut all = Vec::new();
    for settings in candidates {
        let found = references.difference(*settings, out);
        if found.is_empty() {
            return Ok(());
        }
        all.push(format!("{}: {}", settings.name(), found.join(", ")));
    }
    Err(format!("{when}, {}", all.join("; ")))
}

/// Holds each process's end to what may happen to it.
fn judge(round: &Round, finishes: &[Finish]) -> Result<(), String> {
    for (i, finish) in finishes.iter().enumerate() {
        let why = if finish.hangs {
            Some(format!("hangs for more than {PATIENCE:?}"))
        } else {
            fault(finish, round.is_equal())
        };
        if let Some(why) = why {
            return Err(format!("process {i}: {why}: {}", finish.ended.tail()));
        }
    }
    Ok(())
}

fn fault(finish: &Finish, equal: bool) -> Option<String> {
    let ended = &finish.ended;
    let sent = match finish.sent {
        Some(Action::Kill) => Some(SIGKILL),
        Some(Action::Terminate) => Some(SIGTERM),
        Some(Action::Interrupt) => Some(2),
        _ => None,
    };
    // Before it asks for them, a signal does what the system does.
    if ended.signal.is_some() && ended.signal == sent {
        return None;
    }
    let asked = matches!(finish.sent, Some(Action::Terminate | Action::Interrupt));
    match (ended.fault(), ended.code) {
        (Some(why), _) => Some(why),
        (None, Some(130)) if !asked => Some("was interrupted by nobody".to_owned()),
        (None, Some(2)) => Some("calls a good run file wrong".to_owned()),
        (None, Some(1)) if equal => Some("fails beside equal ones".to_owned()),
        (None, Some(1)) if !ended.stderr.contains("hint: ") => Some("has no hint".to_owned()),
        _ => None,
    }
}

/// The run files of the last success (several where their ends were too near to one another).
fn last_success(round: &Round, finishes: &[Finish]) -> Option<(Vec<Settings>, Instant)> {
    let successes = || {
        let both = round.actors.iter().zip(finishes);
        both.filter(|(_, finish)| finish.ended.is_success())
    };
    let at = successes().map(|(_, finish)| finish.at).max()?;
    let near = successes().filter(|(_, finish)| finish.at + INSTANT >= at);
    let first = near.clone().map(|(_, finish)| finish.at).min()?;
    Some((near.map(|(actor, _)| actor.settings).collect(), first))
}

/// A final run makes everything whole, and leaves nothing hidden.
fn close(
    round: &Round,
    last: Option<Vec<Settings>>,
    arena: &Arena,
    references: &mut References,
) -> Result<(), String> {
    // Without a success, whoever wrote first may have left what the others cannot use.
    let candidates =
        last.unwrap_or_else(|| round.actors.iter().map(|actor| actor.settings).collect());
    let mut refusals = Vec::new();
    for settings in candidates {
        let ended = arena.finish(settings)?;
        if let Some(why) = ended.fault() {
            return Err(format!("the final run: {why}: {}", ended.tail()));
        }
        if !ended.is_success() {
            refusals.push(format!("{}: {}", settings.name(), ended.tail()));
            continue;
        }
        compare(references, &[settings], &arena.out(), "after the final run")?;
        let record = manifest(&arena.out());
        let k = settings.run_file().k;
        if record["status"] != "finished" || record["run_file"]["keys"]["probe"]["k"] != k {
            return Err("`run.json` is not of the final run".to_owned());
        }
        let left = tree(&arena.out());
        let hidden: Vec<&PathBuf> = left.keys().filter(|path| is_hidden(path)).collect();
        if !hidden.is_empty() {
            return Err(format!("hidden files are left: {hidden:?}"));
        }
        return Ok(());
    }
    Err(format!("no final run is done: {}", refusals.join("; ")))
}

/// Starts a process and does to it what its script says.
fn act(arena: &Arena, actor: &Actor, i: usize, began: Instant) -> Finish {
    await_moment(arena, actor.start, began, || false);
    let name = format!("process-{i}");
    let mut child = arena.start(actor.settings, &name);
    let born = Instant::now();
    let (mut stops, mut sent) = (0, None);
    for (moment, action) in &actor.actions {
        await_moment(arena, *moment, born, || child.try_wait().unwrap().is_some());
        if child.try_wait().unwrap().is_some() {
            break;
        }
        match action {
            Action::Pause(time) => {
                if send(child.id(), "-STOP") {
                    stops += 1;
                    sleep(*time);
                    send(child.id(), "-CONT");
                }
            }
            Action::Kill => child.kill().unwrap(),
            Action::Terminate => drop(send(child.id(), "-TERM")),
            Action::Interrupt => drop(send(child.id(), "-INT")),
        }
        if !matches!(action, Action::Pause(_)) {
            sent = Some(*action);
        }
    }
    let hangs = !end_within(&mut child, PATIENCE);
    let at = Instant::now();
    Finish {
        ended: arena.ended(child, &name),
        at,
        hangs,
        stops,
        sent,
    }
}

/// Waits for a moment, or until `is_over`.
fn await_moment(arena: &Arena, moment: Moment, since: Instant, mut is_over: impl FnMut() -> bool) {
    let began = Instant::now();
    let out = arena.out();
    let has_come = || match moment {
        Moment::After(time) => since.elapsed() >= time,
        Moment::Parts(n) => count(&out.join("verdicts"), |path| !is_hidden(path)) >= n,
        Moment::Partial => count(&out, is_hidden_table) > 0,
        Moment::Table => {
            count(&out, |path| {
                !path.starts_with("verdicts") && is_hidden_table(path)
            }) > 0
        }
    };
    while !has_come() && !is_over() && began.elapsed() < EVENT {
        sleep(Duration::from_micros(200));
    }
}

fn is_hidden_table(path: &Path) -> bool {
    is_hidden(path) && !path.starts_with(".sweep")
}

/// How many files below `folder` are so; their paths are relative to it.
fn count(folder: &Path, is_so: impl Fn(&Path) -> bool) -> usize {
    let mut n = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                _ => n += usize::from(is_so(entry.path().strip_prefix(folder).unwrap())),
            }
        }
    }
    n
}
