//! `join`: positions and verdicts become `memorization`, a stretch of training at a time.

mod foreign;
mod positions;

pub(crate) use foreign::{ForeignVerdicts, check_coverage};

use super::cuts::Cuts;
use super::sets::{ProbeSet, probe_sets};
use super::units::{State, Unit, Units, set_folder};
use super::{footer, footer_of_models};
use crate::config::{Layout, Run};
use crate::failure;
use crate::fingerprint;
use crate::inputs::Inputs;
use crate::mark::Mark;
use crate::progress::Progress;
use crate::tables::{
    Footer, FrameWriter, MEMORIZATION, POSITIONS, Pending, StagedDataset, memorization_folder,
    parts,
};
use anyhow::{Context, Result, bail};
use polars::prelude::*;
use positions::{Positions, Stretch};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use training_order::{BatchPosition, Checkpoint};

/// A run of more probes than these writes a dataset, not one file.
const MOST_IN_A_FILE: u64 = 1 << 24;

/// Entries of the metadata of every file of a dataset, see [`listed`].
const DATASET_FILES: &str = "dataset_files";
const DATASET_ROWS: &str = "dataset_rows";
const DATASET_DIGEST: &str = "dataset_digest";

/// What the stage wrote.
pub(crate) struct Joined {
    pub(crate) n_memorization: u64,
    /// Where the table is: in its place, or waiting for it.
    pub(crate) table: PathBuf,
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
    Dataset(Box<Dataset>),
}

/// A dataset that is being written.
struct Dataset {
    staged: StagedDataset,
    footer: Footer,
    /// By model and checkpoint.
    weights: BTreeMap<(String, u32), String>,
}

/// Writes `memorization`.
///
/// # Errors
///
/// When a part is missing, damaged or of another run, or verdicts and positions do not match one to one.
pub(crate) fn join(run: &Run, inputs: &Inputs, pending: &mut Pending) -> Result<Joined> {
    let path = pending.path_of(&run.out.join(POSITIONS.path));
    // Holds the positions against their checksum.
    let cuts = Cuts::open(run, &path)?;
    cuts.check(run, inputs)?;
    let positions = Positions::open(&path, cuts.table()?)?;
    // Every set is looked at before any is joined, so that a missing part is known in the first second.
    let mut sets = Vec::new();
    let mut n_probes = 0;
    for set in probe_sets(run) {
        let verdicts = Verdicts::open(run, inputs, &set, &cuts)?;
        n_probes += verdicts.len()?;
        sets.push((set, verdicts));
    }
    let progress = Progress::begin("join", n_probes);
    let files = sets
        .iter()
        .map(|(set, verdicts)| Ok((file_of(set), verdicts.len()?)));
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut sink = Sink::new(run, inputs, files)?;
    let mut n_memorization = 0;
    for (set, verdicts) in sets {
        progress.working_on(set.place());
        let n = join_set(run, &positions, &set, verdicts, &mut sink, &progress)
            .with_context(|| format!("joining the verdicts of {}", set.name()))?;
        progress.finished(&set.place());
        n_memorization += n;
    }
    // What was read is what was fingerprinted.
    inputs.check_unchanged()?;
    let table = sink.finish(run, pending)?;
    progress.end();
    Ok(Joined {
        n_memorization,
        table,
    })
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
            Sink::Dataset(dataset) => {
                let writer = match &mut file {
                    Some(writer) => writer,
                    None => file.insert(dataset.begin(set)?),
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
        file.finish()?.land()?;
        if let Sink::Dataset(dataset) = sink {
            dataset.staged.add(file_of(set));
        }
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

/// The file of a set, below the folder of the dataset.
fn file_of(set: &ProbeSet<'_>) -> PathBuf {
    set_folder(set).join(format!("part-{}.parquet", set.corpus.name))
}

impl Sink {
    /// Begins the table, in the layout of the run; `files` are those of a dataset with their rows.
    fn new(run: &Run, inputs: &Inputs, files: Vec<(PathBuf, u64)>) -> Result<Self> {
        let n_probes: u64 = files.iter().map(|(_, n)| n).sum();
        let layout = run.layout.unwrap_or(if n_probes > MOST_IN_A_FILE {
            Layout::Dataset
        } else {
            Layout::File
        });
        if layout == Layout::File {
            let footer = footer_of_models(run, inputs)?;
            let path = run.out.join(MEMORIZATION.path);
            let writer = FrameWriter::create(&path, &MEMORIZATION, &footer)?;
            return Ok(Self::File(Box::new(writer)));
        }
        let mut footer = footer(run);
        footer.0.extend(listed(files)?);
        let mut weights = BTreeMap::new();
        for set in probe_sets(run) {
            let (model, checkpoint) = (&set.model.name, set.checkpoint.steps);
            if let Some(found) = inputs.weights(model, checkpoint)? {
                weights.insert((model.clone(), checkpoint), found);
            }
        }
        let place = memorization_folder(&run.out);
        let staged = StagedDataset::begin(&place, Mark::Table(MEMORIZATION.name))?;
        Ok(Self::Dataset(Box::new(Dataset {
            staged,
            footer,
            weights,
        })))
    }

    /// Lets the table take its place, or wait where that of the other layout goes with it; where it is then.
    fn finish(self, run: &Run, pending: &mut Pending) -> Result<PathBuf> {
        let mark = Mark::Table(MEMORIZATION.name);
        let (file, folder) = (
            run.out.join(MEMORIZATION.path),
            memorization_folder(&run.out),
        );
        match self {
            Self::File(writer) => {
                let staged = writer.finish()?;
                let others = parts(&folder);
                if others.is_empty() {
                    pending.add(staged)?;
                } else {
                    pending.add_waiting(staged);
                }
                for part in others {
                    pending.replace(folder.join(part), mark, folder.clone());
                }
                Ok(pending.path_of(&file))
            }
            Self::Dataset(dataset) => {
                pending.replace(file.clone(), mark, file);
                pending.add_dataset(dataset.staged);
                Ok(pending.path_of(&folder))
            }
        }
    }
}

impl Dataset {
    /// Begins the file of a set, which names the weights of that set alone.
    fn begin(&self, set: &ProbeSet<'_>) -> Result<FrameWriter> {
        let mut footer = self.footer.clone();
        let (model, checkpoint) = (&set.model.name, set.checkpoint.steps);
        if let Some(weights) = self.weights.get(&(model.clone(), checkpoint)) {
            let weights = BTreeMap::from([(model, BTreeMap::from([(checkpoint, weights)]))]);
            let weights = serde_json::to_string(&weights)?;
            footer.0.insert("weights".to_owned(), weights);
        }
        FrameWriter::create_hive(&self.staged.path_of(&file_of(set)), &MEMORIZATION, &footer)
    }
}

/// What every file of a dataset says of all its files, so that none can be missing without a word: how many they
/// are, their rows, and a digest of the lines `PATH:ROWS`.
fn listed(mut files: Vec<(PathBuf, u64)>) -> Result<[(String, String); 3]> {
    files.retain(|(_, n_rows)| *n_rows > 0);
    files.sort();
    let mut digest = Sha256::new();
    let mut n_rows = 0;
    for (path, n) in &files {
        let path = path.to_str().context("names are letters and digits")?;
        digest.update(format!("{path}:{n}\n"));
        n_rows += n;
    }
    let digest = fingerprint::hex(&digest.finalize());
    let entries = [
        (DATASET_FILES, files.len().to_string()),
        (DATASET_ROWS, n_rows.to_string()),
        (DATASET_DIGEST, digest),
    ];
    Ok(entries.map(|(key, value)| (key.to_owned(), value)))
}
