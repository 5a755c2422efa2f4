//! What is left to probe, and who takes what of it.

use crate::claims::{Claim, Worker};
use crate::config::{CheckpointFolder, Model, Run};
use crate::inputs::Inputs;
use crate::interrupt::Stop;
use crate::judges::Recheck;
use crate::shard::Shard;
use crate::stages::cuts::Cuts;
use crate::stages::sets::probe_sets;
use crate::stages::units::{State, Unit, Units};
use anyhow::Result;
use std::collections::BTreeMap;
use std::ops::Range;

/// The work left, and what is there already.
pub(super) struct Backlog<'a> {
    pub(super) tasks: Vec<Task<'a>>,
    pub(super) finished: Count,
    pub(super) missing: Count,
    /// Over all finished parts.
    pub(super) recheck: Recheck,
    /// Checkpoints that cannot be used: how many units they have, and what is wrong with them.
    pub(super) unusable: Vec<(u64, String)>,
}

/// So much of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    pub(super) n_units: u64,
    pub(super) n_verdicts: u64,
}

/// What is left of a model at a checkpoint: its weights are loaded once for all of it.
pub(super) struct Task<'a> {
    pub(super) model: &'a Model,
    pub(super) checkpoint: &'a CheckpointFolder,
    pub(super) sets: Vec<(Units<'a>, Vec<u64>)>,
}

/// A unit that this process works on.
pub(super) struct Job<'a> {
    pub(super) unit: Unit<'a>,
    pub(super) corpus: &'a str,
    /// For people.
    pub(super) name: String,
    /// Model and checkpoint, for errors.
    pub(super) set: String,
    /// Given up with the job.
    pub(super) _claim: Claim,
}

impl Count {
    pub(super) fn add(&mut self, unit: &Unit<'_>) {
        self.n_units += 1;
        self.n_verdicts += unit.n();
    }
}

impl<'a> Backlog<'a> {
    /// Looks at every part of this share before any work begins, so that one of another run is refused in the first second.
    ///
    /// # Errors
    ///
    /// When a part is damaged or of another run, or the positions cannot be read.
    pub(super) fn open(
        run: &'a Run,
        inputs: &'a Inputs,
        cuts: &'a Cuts,
        shard: Option<Shard>,
    ) -> Result<Self> {
        let mut backlog = Self {
            tasks: Vec::new(),
            finished: Count::default(),
            missing: Count::default(),
            recheck: Recheck::default(),
            unusable: Vec::new(),
        };
        let mut sets = probe_sets(run);
        sets.sort_by_key(|set| (&set.model.name, set.checkpoint.steps));
        // What another program found is not asked again.
        let sets = sets.into_iter().filter(|set| set.model.verdicts.is_none());
        let units = sets.map(|set| Units::cut(run, inputs, cuts, set));
        let units = units.collect::<Result<Vec<_>>>()?;
        let mut places = Places::new(&units, shard);
        for units in units {
            let (model, checkpoint) = (units.set.model, units.set.checkpoint);
            let numbers = places.next(&model.name, units.len());
            let problem = inputs.unusable.get(&(model.name.clone(), checkpoint.steps));
            if let Some(problem) = problem {
                let n = numbers.end - numbers.start;
                backlog.unusable.push((n, problem.clone()));
                continue;
            }
            let mut missing = Vec::new();
            for number in numbers {
                let Some(unit) = units.get(number)? else {
                    break;
                };
                match unit.state()? {
                    State::Finished(footer) => {
                        backlog.finished.add(&unit);
                        let number = |key: &str| footer.get(key).and_then(|n| n.parse().ok());
                        backlog.recheck.n += number("n_rechecked").unwrap_or(0);
                        backlog.recheck.n_changed += number("n_recheck_changed").unwrap_or(0);
                    }
                    State::Missing => {
                        backlog.missing.add(&unit);
                        missing.push(number);
                    }
                }
            }
            if missing.is_empty() {
                continue;
            }
            match backlog.tasks.last_mut() {
                Some(task)
                    if std::ptr::eq(task.model, model)
                        && task.checkpoint.steps == checkpoint.steps =>
                {
                    task.sets.push((units, missing));
                }
                _ => backlog.tasks.push(Task {
                    model,
                    checkpoint,
                    sets: vec![(units, missing)],
                }),
            }
        }
        Ok(backlog)
    }
}

/// Which units of each set belong to a share: an equal share of each model, so that no shard gets all of the largest one, and
/// of it units that lie in a row, so that each shard loads few checkpoints.
struct Places<'a> {
    /// Of a model: the units to take, counted over all its sets, and those counted so far.
    models: BTreeMap<&'a str, (Range<u64>, u64)>,
}

impl<'a> Places<'a> {
    fn new(units: &[Units<'a>], shard: Option<Shard>) -> Self {
        let mut models: BTreeMap<&str, (Range<u64>, u64)> = BTreeMap::new();
        for units in units {
            let (all, _) = models.entry(&units.set.model.name).or_insert((0..0, 0));
            all.end += units.len();
        }
        for (share, _) in models.values_mut() {
            *share = shard.map_or_else(|| share.clone(), |shard| shard.share(share.end));
        }
        Self { models }
    }

    /// The numbers of the share's units in the model's next set, which has `n`.
    fn next(&mut self, model: &str, n: u64) -> Range<u64> {
        let Some((share, before)) = self.models.get_mut(model) else {
            return 0..0;
        };
        let first = *before;
        *before += n;
        let place = |unit: u64| unit.clamp(first, first + n) - first;
        place(share.start)..place(share.end)
    }
}

/// The units of a task, claimed one by one.
pub(super) struct Queue<'a, 'b> {
    task: Task<'a>,
    worker: &'b Worker,
    stop: &'b Stop,
    /// Set and place in its list of the unit to look at next.
    next: (usize, usize),
    /// By set: units that another worker has.
    held: Vec<Vec<u64>>,
    /// Units that another worker has finished meanwhile.
    pub(super) finished: Count,
}

impl<'a, 'b> Queue<'a, 'b> {
    pub(super) fn new(task: Task<'a>, worker: &'b Worker, stop: &'b Stop) -> Self {
        Self {
            held: task.sets.iter().map(|_| Vec::new()).collect(),
            task,
            worker,
            stop,
            next: (0, 0),
            finished: Count::default(),
        }
    }

    /// What other workers hold of the task, to be looked at again later.
    pub(super) fn held(self) -> Option<Task<'a>> {
        let sets = self.task.sets.into_iter().zip(self.held);
        let sets: Vec<_> = sets
            .map(|((units, _), held)| (units, held))
            .filter(|(_, held)| !held.is_empty())
            .collect();
        (!sets.is_empty()).then_some(Task { sets, ..self.task })
    }

    /// The units not looked at yet.
    pub(super) fn rest(&self) -> Result<Count> {
        let mut count = Count::default();
        let (set, place) = self.next;
        for (number, (units, missing)) in self.task.sets.iter().enumerate().skip(set) {
            let first = if number == set { place } else { 0 };
            for unit in missing.iter().skip(first) {
                if let Some(unit) = units.get(*unit)? {
                    count.add(&unit);
                }
            }
        }
        Ok(count)
    }

    fn take(&mut self, set: usize, number: u64) -> Result<Option<Job<'a>>> {
        let Some((units, _)) = self.task.sets.get(set) else {
            return Ok(None);
        };
        let Some(unit) = units.get(number)? else {
            return Ok(None);
        };
        let Some(claim) = self.worker.claim(&unit.part)? else {
            if let Some(held) = self.held.get_mut(set) {
                held.push(number);
            }
            return Ok(None);
        };
        if unit.state()? != State::Missing {
            self.finished.add(&unit);
            return Ok(None);
        }
        let part = unit.part.file_stem().unwrap_or_default();
        Ok(Some(Job {
            name: format!("{} {}", units.set.place(), part.to_string_lossy()),
            unit,
            corpus: &units.set.corpus.name,
            set: units.set.name(),
            _claim: claim,
        }))
    }
}

impl<'a> Iterator for Queue<'a, '_> {
    /// A unit, or what keeps one from being claimed.
    type Item = Result<Job<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.stop.is_asked() {
            let (set, place) = self.next;
            let (_, missing) = self.task.sets.get(set)?;
            let Some(&number) = missing.get(place) else {
                self.next = (set + 1, 0);
                continue;
            };
            self.next = (set, place + 1);
            if let Some(job) = self.take(set, number).transpose() {
                return Some(job);
            }
        }
        None
    }
}
