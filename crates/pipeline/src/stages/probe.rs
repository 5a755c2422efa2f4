//! `probe`: what does the model continue with? Writes `verdicts`, part by part.

mod backlog;
mod devices;
mod part;

use super::cuts::Cuts;
use crate::claims::Worker;
use crate::config::Run;
use crate::failure;
use crate::inputs::Inputs;
use crate::interrupt::Stop;
use crate::judges::{Court, Recheck};
use crate::log::Verbosity;
use crate::output::Output;
use crate::progress::{self, Progress};
use crate::shard::Shard;
use crate::tables::{POSITIONS, Pending};
use anyhow::{Context, Error, Result};
use backlog::{Backlog, Count, Job, Queue, Task};
use gpt_neox::Probes;
use part::Verdicts;
use rayon::prelude::*;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use training_order::TrainingIndex;

/// Batches of probes that are read ahead of the judge.
const READ_AHEAD: usize = 4;
/// Probes that one thread reads before another is asked.
const READ_TOGETHER: usize = 64;
/// Judged units that wait to be written.
const WRITE_BEHIND: usize = 1;
/// How long to wait before looking again at units that others work on.
const PATIENCE: Duration = Duration::from_millis(300);
/// Failures that are said one by one in the end.
const N_SHOWN: usize = 20;

/// What steers the stage, and not its result.
pub(crate) struct How {
    /// The run file, for processes that this one starts.
    pub(crate) file: PathBuf,
    /// The folder that this process may write to.
    pub(crate) output: Output,
    /// Only this share of the units.
    pub(crate) shard: Option<Shard>,
    /// Which of the processes this is that one run has started.
    pub(crate) worker: Option<Shard>,
    /// Whether other units are worked on when one has failed.
    pub(crate) keep_going: bool,
    /// What was asked for on the command line.
    pub(crate) log: Option<Verbosity>,
    pub(crate) stop: Stop,
}

/// What the stage did.
pub(crate) struct Probed {
    /// Verdicts that are there now.
    pub(crate) n_verdicts: u64,
    /// Those among them that an earlier run had left.
    pub(crate) n_resumed: u64,
    /// Those that were judged twice.
    pub(crate) recheck: Recheck,
    /// The fewest probes that a device decided about together, in this process; None where it judged none.
    pub(crate) batch_size: Option<usize>,
}

/// What the threads of this process share.
struct Desk<'a> {
    run: &'a Run,
    inputs: &'a Inputs,
    cuts: &'a Cuts,
    worker: &'a Worker,
    how: &'a How,
    progress: &'a Progress,
    began: Instant,
    tally: Mutex<Tally>,
}

/// What has been done so far.
#[derive(Default)]
struct Tally {
    done: Count,
    /// Finished meanwhile by other workers.
    others: Count,
    recheck: Recheck,
    batch_size: Option<usize>,
    n_failed: u64,
    failures: Vec<String>,
    /// The first failure, as it was.
    first: Option<Error>,
}

/// From the thread that reads to the one that judges.
enum Read<'a> {
    /// Its training indices; their probes follow.
    Unit(Box<Job<'a>>, Vec<u32>),
    /// Token ids.
    Probes(Vec<u32>),
    Whole,
    Failed(Error),
}

/// Writes every part of this share that is not there yet; waits for those that other processes work on.
///
/// # Errors
///
/// When a part of another run lies in the way, an input cannot be read, the judge fails, a part cannot
/// be written, or the user asks for an end. Parts finished before stay.
pub(crate) fn probe(
    run: &Run,
    inputs: &Inputs,
    how: &How,
    pending: &mut Pending,
) -> Result<Probed> {
    let positions = run.out.join(POSITIONS.path);
    if run.devices.len() > 1 {
        // The processes that this one starts look for them there.
        pending.land_one(&positions)?;
    }
    let cuts = Cuts::open(run, &pending.path_of(&positions))?;
    cuts.check(run, inputs)?;
    let backlog = Backlog::open(run, inputs, &cuts, how.shard)?;
    let n_resumed = backlog.finished.n_verdicts;
    let n_verdicts = n_resumed + backlog.missing.n_verdicts;
    let probed = |recheck, batch_size| Probed {
        n_verdicts,
        n_resumed,
        recheck,
        batch_size,
    };
    let n_unusable: u64 = backlog.unusable.iter().map(|(n, _)| n).sum();
    if backlog.tasks.is_empty() && n_unusable == 0 {
        return Ok(probed(backlog.recheck, None));
    }
    let n_units = backlog.finished.n_units + backlog.missing.n_units + n_unusable;
    let mut progress = Progress::begin("probe", n_verdicts);
    progress.skip(n_resumed);
    progress.parts(backlog.finished.n_units, n_units);
    how.stop.gently();
    let mut recheck = backlog.recheck;
    let mut batch_size = None;
    let alone = if run.devices.len() > 1 && how.worker.is_none() {
        devices::work(run, how, &progress, backlog.finished)?;
        false
    } else {
        let finished = backlog.finished;
        let mut tally = work(run, inputs, &cuts, how, backlog.tasks, &progress)?;
        for (n, problem) in backlog.unusable.into_iter().filter(|(n, _)| *n > 0) {
            tally.n_failed += n;
            tally.failures.push(format!("{n} parts: {problem}"));
            tally.first.get_or_insert_with(|| Error::msg(problem));
        }
        recheck.n += tally.recheck.n;
        recheck.n_changed += tally.recheck.n_changed;
        batch_size = tally.batch_size;
        let alone = tally.others.n_units == 0;
        let n_done = finished.n_units + tally.done.n_units + tally.others.n_units;
        conclude(tally, n_done, n_units, how)?;
        alone
    };
    how.stop.at_once();
    progress.end();
    if alone {
        return Ok(probed(recheck, batch_size));
    }
    let backlog = Backlog::open(run, inputs, &cuts, how.shard)?;
    if backlog.missing.n_units > 0 {
        return Err(unfinished(backlog.finished.n_units, n_units));
    }
    Ok(probed(backlog.recheck, batch_size))
}

/// What is to be said of work that ended early or failed.
fn conclude(tally: Tally, n_done: u64, n_units: u64, how: &How) -> Result<()> {
    let Tally {
        n_failed,
        mut failures,
        first,
        ..
    } = tally;
    if let Some(first) = first {
        if !how.keep_going {
            progress::say(&format!(
                "{n_done} of {n_units} parts are finished and kept"
            ));
            return Err(first);
        }
        let n_more = failures.len().saturating_sub(N_SHOWN);
        failures.truncate(N_SHOWN);
        if n_more > 0 {
            failures.push(format!("and {n_more} more, in the log"));
        }
        return Err(failure::failed(
            format_args!(
                "{n_failed} of {n_units} parts failed, {n_done} are finished:\n  - {}",
                failures.join("\n  - ")
            ),
            "mend the causes and give the same command again: what is finished is kept",
        ));
    }
    if n_done < n_units {
        return Err(unfinished(n_done, n_units));
    }
    Ok(())
}

fn unfinished(n_done: u64, n_units: u64) -> Error {
    failure::interrupted(
        format_args!(
            "interrupted: {n_done} of {n_units} parts are finished, {} remain",
            n_units - n_done
        ),
        "the same command goes on from there",
    )
}

/// Does the work of one process: one thread reads, this one judges, one writes.
fn work(
    run: &Run,
    inputs: &Inputs,
    cuts: &Cuts,
    how: &How,
    mut tasks: Vec<Task<'_>>,
    progress: &Progress,
) -> Result<Tally> {
    let desk = Desk {
        run,
        inputs,
        cuts,
        worker: how.output.worker()?,
        how,
        progress,
        began: Instant::now(),
        tally: Mutex::default(),
    };
    if let Some(worker) = how.worker {
        // Workers of one run begin at different checkpoints, so that most of them are loaded once in all.
        let first = worker.share(tasks.len() as u64).start;
        tasks.rotate_left(usize::try_from(first)?);
    }
    thread::scope(|scope| {
        let (parts, judged) = sync_channel(WRITE_BEHIND);
        scope.spawn(|| {
            for (job, verdicts) in judged {
                desk.write(&job, verdicts);
            }
        });
        while !tasks.is_empty() && !how.stop.is_asked() {
            let held = tasks
                .into_iter()
                .filter_map(|task| desk.judge(task, &parts));
            tasks = held.collect();
            if !tasks.is_empty() && !how.stop.is_asked() {
                progress.working_on("waiting for other workers".to_owned());
                thread::sleep(PATIENCE);
            }
        }
        drop(parts);
    });
    Ok(desk
        .tally
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner))
}

impl Desk<'_> {
    /// Judges the units of a task that no other worker has; what others have is given back.
    fn judge<'t>(
        &self,
        task: Task<'t>,
        parts: &SyncSender<(Job<'t>, Verdicts)>,
    ) -> Option<Task<'t>> {
        let (model, checkpoint) = (task.model, task.checkpoint);
        let place = format!("{} step{}", model.name, checkpoint.steps);
        let mut queue = Queue::new(task, self.worker, &self.how.stop);
        let first = loop {
            match queue.next() {
                Some(Ok(job)) => break job,
                Some(Err(error)) => self.fail(None, 1, &place, error),
                None => {
                    self.finished_by_others(queue.finished);
                    return queue.held();
                }
            }
        };
        self.progress.working_on(place.clone());
        self.worker.note(|work| work.working_on.clone_from(&place));
        let began = Instant::now();
        let mut court = match Court::open(self.run, checkpoint) {
            Ok(court) => court,
            Err(error) => {
                let n_rest = queue.rest().map_or(0, |rest| rest.n_units);
                self.fail(Some(&first), 1 + n_rest, &place, error);
                return queue.held();
            }
        };
        // What was loaded is what was fingerprinted.
        if let Err(error) = self.inputs.check_checkpoint(&model.name, checkpoint.steps) {
            let n_rest = queue.rest().map_or(0, |rest| rest.n_units);
            self.fail(Some(&first), 1 + n_rest, &place, error);
            return queue.held();
        }
        tracing::info!("{place}: loaded in {:.1} s", began.elapsed().as_secs_f64());
        let probe = &self.run.probe;
        let n_at_once = court.n_at_once(usize::from(probe.k) + usize::from(probe.l));
        let queue = thread::scope(|scope| {
            let (batches, read) = sync_channel(READ_AHEAD);
            let reading = scope.spawn(move || {
                let jobs = std::iter::once(Ok(first)).chain(queue.by_ref());
                self.read(jobs, n_at_once, &place, &batches);
                queue
            });
            self.judge_batches(read, &mut court, parts);
            let mut tally = lock(&self.tally);
            tally.batch_size = tally.batch_size.into_iter().chain(court.batch_size).min();
            drop(tally);
            reading.join()
        });
        match queue {
            Ok(queue) => {
                self.finished_by_others(queue.finished);
                queue.held()
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Reads the probes of `jobs`, as far as the judge wants them.
    fn read<'t>(
        &self,
        jobs: impl Iterator<Item = Result<Job<'t>>>,
        n_at_once: usize,
        place: &str,
        batches: &SyncSender<Read<'t>>,
    ) {
        for job in jobs {
            let sent = match job {
                Err(error) => {
                    self.fail(None, 1, place, error);
                    Ok(())
                }
                Ok(job) => self.read_unit(job, n_at_once, batches),
            };
            // The judge wants no more.
            if sent.is_err() {
                return;
            }
        }
    }

    fn read_unit<'t>(
        &self,
        job: Job<'t>,
        n_at_once: usize,
        batches: &SyncSender<Read<'t>>,
    ) -> Result<(), Gone> {
        let corpus = job.corpus;
        let indices = match self.cuts.training_indices(job.unit.cut, job.unit.which) {
            Ok(indices) => indices,
            Err(error) => {
                batches.send(Read::Unit(Box::new(job), Vec::new()))?;
                return Ok(batches.send(Read::Failed(error))?);
            }
        };
        batches.send(Read::Unit(Box::new(job), indices.clone()))?;
        for chunk in indices.chunks(n_at_once.max(1)) {
            match self.read_probes(corpus, chunk) {
                Ok(tokens) => batches.send(Read::Probes(tokens))?,
                Err(error) => return Ok(batches.send(Read::Failed(error))?),
            }
        }
        Ok(batches.send(Read::Whole)?)
    }

    fn read_probes(&self, corpus: &str, indices: &[u32]) -> Result<Vec<u32>> {
        let probe = &self.run.probe;
        let first = u32::from(probe.offset);
        let end = first + u32::from(probe.k) + u32::from(probe.l);
        let order = self.inputs.orders.get(corpus);
        let order = order.context("the corpus was opened")?;
        order.check_unchanged()?;
        let len = (end - first) as usize;
        let mut tokens = vec![0; indices.len() * len];
        // Side by side: each sequence lies somewhere else, and its reader waits for memory or for the disk.
        indices
            .par_iter()
            .zip(tokens.par_chunks_exact_mut(len))
            .with_min_len(READ_TOGETHER)
            .try_for_each_init(Vec::new, |probe, (&index, into)| {
                probe.clear();
                let index = TrainingIndex::new(u64::from(index));
                order.read_tokens(index, first..end, probe)?;
                into.copy_from_slice(probe);
                Ok::<_, Error>(())
            })?;
        Ok(tokens)
    }

    /// Judges what is read, until there is no more or an end is asked for.
    fn judge_batches<'t>(
        &self,
        read: Receiver<Read<'t>>,
        court: &mut Court,
        parts: &SyncSender<(Job<'t>, Verdicts)>,
    ) {
        let mut current: Option<(Job<'t>, Verdicts)> = None;
        let mut told = false;
        for message in read {
            if self.how.stop.is_asked() && !told {
                told = true;
                if self.how.worker.is_none() && lock(&self.tally).first.is_none() {
                    progress::say("finishing the parts at hand; once more ends at once");
                }
            }
            match message {
                // A unit not begun need not be finished; one more failure need not be met.
                Read::Unit(..) if self.how.stop.is_asked() => return,
                Read::Unit(job, training_indices) => {
                    let verdicts = Verdicts {
                        training_indices,
                        ..Verdicts::default()
                    };
                    current = Some((*job, verdicts));
                }
                Read::Probes(tokens) => {
                    let Some((job, verdicts)) = &mut current else {
                        continue;
                    };
                    match self.judge_batch(&tokens, job.unit.likelihood, court, verdicts) {
                        Ok(n) => {
                            self.progress.advance(n);
                            self.worker.note(|work| {
                                work.n_verdicts += n;
                                work.seconds = self.began.elapsed().as_secs_f64();
                            });
                        }
                        Err(error) => {
                            self.fail(Some(job), 1, "", error);
                            current = None;
                        }
                    }
                }
                Read::Whole => {
                    if let Some((job, mut verdicts)) = current.take() {
                        verdicts.recheck = std::mem::take(&mut court.recheck);
                        if parts.send((job, verdicts)).is_err() {
                            return;
                        }
                    }
                }
                Read::Failed(error) => {
                    if let Some((job, _)) = current.take() {
                        self.fail(Some(&job), 1, "", error);
                    }
                }
            }
        }
    }

    fn judge_batch(
        &self,
        tokens: &[u32],
        likelihood: bool,
        court: &mut Court,
        verdicts: &mut Verdicts,
    ) -> Result<u64> {
        let (k, l) = (usize::from(self.run.probe.k), usize::from(self.run.probe.l));
        let probes = Probes::new(tokens, k, l)?;
        let first = verdicts.judged.len();
        let judged = court.judge(&probes, likelihood).with_context(|| {
            let place = |place: usize| {
                let index = verdicts.training_indices.get(place);
                index.copied().unwrap_or(0)
            };
            let (first, last) = (place(first), place(first + probes.len() - 1));
            format!("the probes of the training indices {first} to {last}")
        })?;
        let n = judged.len() as u64;
        verdicts.judged.extend(judged);
        Ok(n)
    }

    fn write(&self, job: &Job<'_>, verdicts: Verdicts) {
        let recheck = verdicts.recheck;
        let still = || -> Result<()> {
            // The probes' tokens are those of the corpus whose fingerprint the part carries.
            let order = self.inputs.orders.get(job.corpus);
            order.context("the corpus was opened")?.check_unchanged()?;
            self.how.output.check()
        };
        if let Err(error) = part::write(self.run, job, verdicts, still) {
            self.fail(Some(job), 1, "", error);
            return;
        }
        tracing::info!("{}: written", job.name);
        let mut tally = lock(&self.tally);
        tally.done.add(&job.unit);
        tally.recheck.n += recheck.n;
        tally.recheck.n_changed += recheck.n_changed;
        drop(tally);
        self.worker.note(|work| work.n_units += 1);
        self.progress.finished_part(&job.name);
    }

    fn finished_by_others(&self, count: Count) {
        let mut tally = lock(&self.tally);
        tally.others.n_units += count.n_units;
        tally.others.n_verdicts += count.n_verdicts;
        self.progress.by_others(count.n_units, count.n_verdicts);
    }

    /// Takes note that `n_units` failed, the one of `job` first; without `keep_going` it is the end.
    fn fail(&self, job: Option<&Job<'_>>, n_units: u64, place: &str, error: Error) {
        let name = job.map_or(place, |job| job.name.as_str());
        let several = match n_units {
            1 => String::new(),
            n => format!(" and {} more parts of the same checkpoint", n - 1),
        };
        let message = format!("{name}{several}: {error:#}");
        tracing::error!("{message}");
        if let Some(job) = job {
            self.worker.failed(&job.unit.part, &format!("{error:#}"));
        }
        let mut tally = lock(&self.tally);
        tally.n_failed += n_units;
        tally.failures.push(message);
        let set = job.map_or(place, |job| job.set.as_str());
        tally
            .first
            .get_or_insert_with(|| error.context(format!("probing {set}")));
        if !self.how.keep_going {
            self.how.stop.ask();
        }
    }
}

/// Nobody reads the other end of a channel any more.
struct Gone;

impl<T> From<std::sync::mpsc::SendError<T>> for Gone {
    fn from(_: std::sync::mpsc::SendError<T>) -> Self {
        Self
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}
