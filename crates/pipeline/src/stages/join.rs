//! `join`: positions and verdicts become `memorization`, a stretch of training at a time.

mod foreign;
mod positions;

pub(crate) use foreign::{ForeignVerdicts, check_coverage};

use super::cuts::Cuts;
use super::footer_of_models;
use super::sets::{ProbeSet, probe_sets};
use super::units::{State, Unit, Units};
use crate::config::{Layout, Run};
use crate::failure;
use crate::inputs::Inputs;
use crate::progress::Progress;
use crate::tables::{Footer, FrameWriter, MEMORIZATION, Table, memorization_folder};
use anyhow::{Context, Result, bail};
use polars::prelude::*;
use positions::{Positions, Stretch};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use training_order::{BatchPosition, Checkpoint};

/// A run of more probes than these writes a dataset, not one file.
const MOST_IN_A_FILE: u64 = 1 << 24;

/// What the stage wrote.
pub(crate) struct Joined {
    pub(crate) n_memorization: u64,
}

/// The verdicts of a set, by training index.
enum Verdicts<'a> {
    /// Parts of the run's own: those without the contrast's likelihood, and those with it.
    Parts([Parts<'a>; 2]),
    /// What another program found: all of it.
    Foreign(DataFrame),
}

/// Parts one after another, each by training index.
struct Parts<'a> {
    units: Arc<Units<'a>>,
    /// Numbers of those not opened yet.
    left: Range<u64>,
    /// Rows of the last part opened that lie behind what was taken.
    rest: Option<DataFrame>,
}

/// Where the rows go.
enum Sink {
    /// One file for all sets.
    File(Box<FrameWriter>),
    /// One file for each.
    Dataset { folder: PathBuf, footer: Footer },
}

/// Writes `memorization`.
///
/// # Errors
///
/// When a part is missing, damaged or of another run, or verdicts and positions do not match one to one.
pub(crate) fn join(run: &Run, inputs: &Inputs) -> Result<Joined> {
    // Holds the positions against their checksum.
    let cuts = Cuts::open(run)?;
    cuts.check(run, inputs)?;
    let positions = Positions::open(run)?;
    // Every set is looked at before any is joined, so that a missing part is known in the first second.
    let mut sets = Vec::new();
    let mut n_probes = 0;
    for set in probe_sets(run) {
        let verdicts = Verdicts::open(run, inputs, &set, &cuts)?;
        n_probes += verdicts.len()?;
        sets.push((set, verdicts));
    }
    let progress = Progress::begin("join", n_probes);
    let mut sink = Sink::new(run, inputs, n_probes)?;
    let mut n_memorization = 0;
    for (set, verdicts) in sets {
        progress.working_on(set.place());
        let n = join_set(run, &positions, &set, verdicts, &mut sink, &progress)
            .with_context(|| format!("joining the verdicts of {}", set.name()))?;
        progress.finished(&set.place());
        n_memorization += n;
    }
    sink.finish(run)?;
    progress.end();
    Ok(Joined { n_memorization })
}

/// Joins one set and gives its number of rows.
fn join_set(
    run: &Run,
    positions: &Positions,
    set: &ProbeSet<'_>,
    mut verdicts: Verdicts<'_>,
    sink: &mut Sink,
    progress: &Progress,
) -> Result<u64> {
    let mut file = None;
    let mut n_joined = 0;
    let mut tables = positions.of(&set.corpus.name).filter_map(|stretch| {
        let judged = verdicts.up_to(stretch.last).transpose()?;
        let complete = verdicts.complete();
        Some(
            judged.and_then(|judged| join_stretch(run, positions, set, stretch, &judged, complete)),
        )
    });
    let mut write = |table: DataFrame| -> Result<()> {
        n_joined += table.height() as u64;
        progress.advance(table.height() as u64);
        match sink {
            Sink::File(writer) => writer.write(&table),
            Sink::Dataset { folder, footer } => {
                let writer = match &mut file {
                    Some(writer) => writer,
                    None => file.insert(FrameWriter::create_hive(
                        &folder
                            .join(format!("model={}", set.model.name))
                            .join(format!("checkpoint={}", set.checkpoint.steps))
                            .join(format!("part-{}.parquet", set.corpus.name)),
                        &MEMORIZATION,
                        footer,
                    )?),
                };
                writer.write(&table)
            }
        }
    };
    let mut next = tables.next();
    while let Some(table) = next.take() {
        // One stretch is read while the one before it is written.
        let (written, following) = rayon::join(|| write(table?), || tables.next());
        written?;
        next = following;
    }
    drop(tables);
    if let Some(judged) = verdicts.up_to(u32::MAX)?
        && let Some(index) = judged.column("training_index")?.u32()?.get(0)
    {
        return Err(not_planned(set, index));
    }
    if let Some(file) = file {
        file.finish()?;
    }
    Ok(n_joined)
}

/// The rows of `memorization` of one set in one stretch.
fn join_stretch(
    run: &Run,
    positions: &Positions,
    set: &ProbeSet<'_>,
    stretch: &Stretch,
    judged: &DataFrame,
    complete: bool,
) -> Result<DataFrame> {
    let mut planned = positions.read(stretch)?;
    if complete && !set.own {
        planned = planned.filter(planned.column("contrast")?.bool()?)?;
    }
    let n_judged = judged.height();
    let index = ["training_index"];
    let mut joined = if planned.column(index[0])? == judged.column(index[0])? {
        // One to one already, as the parts of a census are.
        planned.hstack(judged.drop(index[0])?.columns())?
    } else {
        let joined = planned.inner_join(judged, index, index)?;
        joined.sort(index, SortMultipleOptions::default())?
    };
    if joined.height() != n_judged {
        let known = judged.left_join(&planned, ["training_index"], ["training_index"])?;
        let unknown = known.filter(&known.column("step")?.is_null())?;
        let index = unknown.column("training_index")?.u32()?.get(0);
        return Err(not_planned(set, index.unwrap_or(0)));
    }
    if complete && joined.height() != planned.height() {
        bail!(
            "{} verdicts for {} planned probes from the training index {} to {}",
            joined.height(),
            planned.height(),
            stretch.first,
            stretch.last
        );
    }
    add_time(run, set, &mut joined)?;
    joined.with_column(Column::new_scalar(
        "model".into(),
        Scalar::from(PlSmallStr::from_str(&set.model.name)),
        joined.height(),
    ))?;
    joined.with_column(Column::new_scalar(
        "corpus".into(),
        Scalar::from(PlSmallStr::from_str(&set.corpus.name)),
        joined.height(),
    ))?;
    joined.with_column(Column::new_scalar(
        "checkpoint".into(),
        Scalar::from(set.checkpoint.steps),
        joined.height(),
    ))?;
    Ok(joined.select(MEMORIZATION.column_names())?)
}

/// Adds `trained`, `seen`, `lag` and `learning_rate`: defined once, by the library, and not again in an expression.
fn add_time(run: &Run, set: &ProbeSet<'_>, joined: &mut DataFrame) -> Result<()> {
    let steps: Vec<u32> = joined.column("step")?.u32()?.into_no_null_iter().collect();
    let checkpoint = Checkpoint::new(set.checkpoint.steps);
    let place = |step: u32| BatchPosition { step, row: 0 };
    let trained: Vec<bool> = steps.iter().map(|step| *step < set.corpus.steps).collect();
    joined.with_column(Column::new("trained".into(), trained))?;
    if !set.own {
        let none = |name: &str, kind| Column::full_null(name.into(), steps.len(), kind);
        joined.with_column(none("seen", &DataType::Boolean))?;
        joined.with_column(none("lag", &DataType::Int32))?;
        joined.with_column(none("learning_rate", &DataType::Float32))?;
        return Ok(());
    }
    let seen: Vec<bool> = steps
        .iter()
        .map(|step| checkpoint.has_seen(place(*step)))
        .collect();
    let lag: Vec<i32> = steps
        .iter()
        .map(|step| Ok(i32::try_from(checkpoint.lag(place(*step)))?))
        .collect::<Result<_>>()?;
    let schedule = run.schedule(&set.model.name);
    let rates: Vec<Option<f32>> = steps
        .iter()
        .map(|step| {
            let trained = *step < set.corpus.steps;
            Some(schedule.filter(|_| trained)?.learning_rate(*step))
        })
        .collect();
    joined.with_column(Column::new("seen".into(), seen))?;
    joined.with_column(Column::new("lag".into(), lag))?;
    joined.with_column(Column::new("learning_rate".into(), rates))?;
    Ok(())
}

fn not_planned(set: &ProbeSet<'_>, index: u32) -> anyhow::Error {
    failure::failed(
        format_args!(
            "there is a verdict on the training index {index} of `{}`, which is not among the positions",
            set.corpus.name
        ),
        "write the positions anew with `--only plan`, or leave the row out",
    )
}

impl<'a> Verdicts<'a> {
    fn open(run: &'a Run, inputs: &'a Inputs, set: &ProbeSet<'a>, cuts: &'a Cuts) -> Result<Self> {
        if let Some(path) = &set.model.verdicts {
            let foreign = inputs.foreign.get(&set.model.name);
            let foreign = foreign.with_context(|| format!("`{}` was not read", path.display()))?;
            return Ok(Self::Foreign(foreign.of(set)?));
        }
        let units = Arc::new(Units::cut(run, inputs, cuts, *set)?);
        for unit in units.iter() {
            let unit = unit?;
            if unit.state()? == State::Missing {
                return Err(failure::failed(
                    format_args!("the part `{}` is not there", unit.path.display()),
                    "run the stage `probe` first, or all of them without `--only`",
                ));
            }
        }
        Ok(Self::Parts([false, true].map(|likelihood| Parts {
            left: units.numbers(likelihood),
            units: Arc::clone(&units),
            rest: None,
        })))
    }

    fn len(&self) -> Result<u64> {
        match self {
            Self::Parts([parts, _]) => parts.units.iter().map(|unit| Ok(unit?.n())).sum(),
            Self::Foreign(all) => Ok(all.height() as u64),
        }
    }

    /// Whether every planned probe of the set must have its verdict.
    fn complete(&self) -> bool {
        matches!(self, Self::Parts(_))
    }

    /// Takes the verdicts up to a training index; nothing where there are none.
    fn up_to(&mut self, last: u32) -> Result<Option<DataFrame>> {
        let frames = match self {
            Self::Foreign(all) => {
                let (head, tail) = split(all, last)?;
                *all = tail;
                vec![head]
            }
            Self::Parts(both) => {
                let mut frames = Vec::new();
                for parts in both {
                    parts.take_up_to(last, &mut frames)?;
                }
                frames
            }
        };
        let mut frames = frames.into_iter().filter(|frame| frame.height() > 0);
        let Some(mut all) = frames.next() else {
            return Ok(None);
        };
        for frame in frames {
            all.vstack_mut(&frame)?;
        }
        Ok(Some(all))
    }
}

impl Parts<'_> {
    fn take_up_to(&mut self, last: u32, frames: &mut Vec<DataFrame>) -> Result<()> {
        loop {
            let part = match self.rest.take() {
                Some(rest) => rest,
                None => match self.next_up_to(last)? {
                    Some(unit) => unit.read()?.drop("corpus")?,
                    None => return Ok(()),
                },
            };
            let (head, tail) = split(&part, last)?;
            frames.push(head);
            if tail.height() > 0 {
                self.rest = Some(tail);
                return Ok(());
            }
        }
    }

    /// The next part, where it begins before a training index.
    fn next_up_to(&mut self, last: u32) -> Result<Option<Unit<'_>>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let unit = self.units.get(self.left.start)?;
        let unit = unit.filter(|unit| unit.cut.first <= last);
        if unit.is_some() {
            self.left.start += 1;
        }
        Ok(unit)
    }
}

/// The rows up to a training index, and those behind it.
fn split(frame: &DataFrame, last: u32) -> Result<(DataFrame, DataFrame)> {
    let indices = frame.column("training_index")?.rechunk();
    let indices = indices.u32()?.cont_slice()?;
    let place = i64::try_from(indices.partition_point(|index| *index <= last))?;
    Ok(frame.split_at(place))
}

impl Sink {
    fn new(run: &Run, inputs: &Inputs, n_probes: u64) -> Result<Self> {
        let footer = footer_of_models(run, inputs)?;
        let (file, folder) = (
            run.out.join(MEMORIZATION.path),
            memorization_folder(&run.out),
        );
        // One of the two may be left of an earlier run.
        remove(&folder)?;
        let layout = run.layout.unwrap_or(if n_probes > MOST_IN_A_FILE {
            Layout::Dataset
        } else {
            Layout::File
        });
        if layout == Layout::Dataset {
            if file.exists() {
                fs::remove_file(&file).with_context(|| format!("removing `{}`", file.display()))?;
            }
            // Hidden until it is whole.
            let folder = run.out.join(".partial-memorization");
            remove(&folder)?;
            return Ok(Self::Dataset { folder, footer });
        }
        let table: &'static Table = &MEMORIZATION;
        Ok(Self::File(Box::new(FrameWriter::create(
            &file, table, &footer,
        )?)))
    }

    fn finish(self, run: &Run) -> Result<()> {
        match self {
            Self::File(writer) => writer.finish(),
            Self::Dataset { folder, .. } => {
                let whole = memorization_folder(&run.out);
                fs::rename(&folder, &whole)
                    .with_context(|| format!("renaming `{}`", folder.display()))
            }
        }
    }
}

fn remove(folder: &PathBuf) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing `{}`", folder.display()))?;
    }
    Ok(())
}
