//! Rows of `memorization` as arrays, of one model, corpus and checkpoint at a time.

use super::group::Key;
use super::meaning::{self, Facts};
use super::source::SourceFile;
use crate::door;
use crate::failure;
use crate::tables::{MEMORIZATION, only_text};
use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Int32Array, RecordBatch, StringArray, UInt16Array,
    UInt32Array,
};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::statistics::Statistics;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// Rows decoded at once, at the most.
const BATCH: usize = 1 << 18;
/// Columns that say whose a row is.
const KEYS: [&str; 3] = ["model", "corpus", "checkpoint"];

/// Some rows of one model, corpus and checkpoint, in the order of the table.
pub(super) struct Block {
    pub(super) key: Key,
    path: Arc<Path>,
    /// Row of the file, from 0.
    first: u64,
    pub(super) training_index: UInt32Array,
    pub(super) step: UInt32Array,
    pub(super) trained: BooleanArray,
    pub(super) seen: BooleanArray,
    pub(super) lag: Int32Array,
    pub(super) contrast: BooleanArray,
    /// `n_prefix_matched`, `n_matched` and `n_top1`.
    pub(super) counts: [UInt16Array; 3],
    pub(super) memorized: BooleanArray,
    pub(super) margin: Float32Array,
    pub(super) surprisal: Float32Array,
    pub(super) logp_suffix: Float32Array,
    pub(super) learning_rate: Float32Array,
    /// Before, after and at the probe's own step.
    pub(super) exposures: [UInt32Array; 3],
}

/// A row group of a file, and what its statistics say is the same in all of its rows.
pub(super) struct RowGroup<'a> {
    file: &'a SourceFile,
    /// That of the file, read once.
    metadata: ArrowReaderMetadata,
    number: usize,
    /// Row of the file, from 0.
    first: u64,
    model: Option<String>,
    corpus: Option<String>,
    checkpoint: Option<u32>,
}

impl Block {
    /// An error about one of its rows.
    pub(super) fn wrong(
        &self,
        row: usize,
        problem: impl Display,
        cure: impl Display,
    ) -> anyhow::Error {
        door::wrong(&self.path, self.first + row as u64, problem, cure)
    }
}

impl<'a> RowGroup<'a> {
    /// The row groups of a file, in its order.
    ///
    /// # Errors
    ///
    /// When the file is damaged.
    pub(super) fn all(file: &'a SourceFile) -> Result<Vec<Self>> {
        let open = || -> Result<_> {
            // Without the writer's own schema: in polars' files strings differ from arrow's.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let metadata = ArrowReaderMetadata::load(&door::open(&file.path)?, options)?;
            let schema = metadata.parquet_schema();
            let place = |name: &str| {
                let mut columns = 0..schema.num_columns();
                columns.find(|column| schema.column(*column).path().parts() == [name])
            };
            let [model, corpus, checkpoint] = KEYS.map(place);
            let (mut groups, mut end) = (Vec::new(), 0);
            for (number, group) in metadata.metadata().row_groups().iter().enumerate() {
                // Statistics of other programs are not held to their rows.
                let same = |column: Option<usize>| {
                    let column = column.filter(|_| file.trusted)?;
                    group.column(column).statistics()
                };
                groups.push(Self {
                    file,
                    metadata: metadata.clone(),
                    number,
                    first: end,
                    model: in_path(file.model.clone(), model).or_else(|| only_text(same(model)?)),
                    corpus: same(corpus).and_then(only_text),
                    checkpoint: in_path(file.checkpoint, checkpoint)
                        .or_else(|| number_of(same(checkpoint)?)),
                });
                end += u64::try_from(group.num_rows())?;
            }
            Ok(groups)
        };
        failure::caught(open)
            .with_context(|| format!("reading the table `{}`", file.path.display()))
    }

    /// Its rows, held to what they must say of one another.
    ///
    /// # Errors
    ///
    /// When the file is damaged, lacks a column, or a row contradicts itself.
    pub(super) fn decode(&self, facts: &Facts<'_>) -> Result<Vec<Block>> {
        failure::caught(|| {
            let blocks = self.decoded()?;
            blocks
                .iter()
                .try_for_each(|block| meaning::check(block, facts))?;
            Ok(blocks)
        })
        .with_context(|| format!("reading the table `{}`", self.file.path.display()))
    }

    fn decoded(&self) -> Result<Vec<Block>> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            door::open(&self.file.path)?,
            self.metadata.clone(),
        );
        // Those that stand in the path or are the same in all rows are not decoded.
        let known = [
            ("model", self.model.is_some()),
            ("corpus", self.corpus.is_some()),
            ("checkpoint", self.checkpoint.is_some()),
        ];
        let is_read = |name: &str| {
            !["near_tie"].contains(&name)
                && !name.starts_with("starts_")
                && !name.starts_with("copies_")
                && name != "nearest_exposure"
                && !known.contains(&(name, true))
        };
        let mut columns = Vec::new();
        for column in MEMORIZATION
            .columns
            .iter()
            .filter(|column| is_read(column.name))
        {
            let field = builder.schema().field_with_name(column.name)?;
            let expected = column.kind.arrow_type();
            if field.data_type() != &expected {
                bail!(
                    "the column `{}` is {}, not {expected}",
                    column.name,
                    field.data_type()
                );
            }
            columns.push(column.name);
        }
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let n_rows = builder.metadata().row_group(self.number).num_rows();
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![self.number])
            .with_batch_size(usize::try_from(n_rows)?.clamp(1, BATCH))
            .build()?;
        let (mut blocks, mut first) = (Vec::new(), self.first);
        for batch in reader {
            let batch = batch?;
            self.cut(&batch, first, &mut blocks)?;
            first += batch.num_rows() as u64;
        }
        Ok(blocks)
    }

    /// Cuts a batch where model, corpus or checkpoint changes.
    fn cut(&self, batch: &RecordBatch, first_row: u64, blocks: &mut Vec<Block>) -> Result<()> {
        let column = |name: &str| -> Result<ArrayRef> {
            let column = batch.column_by_name(name).cloned();
            column.with_context(|| format!("there is no column `{name}`"))
        };
        let whole = |name: &str| -> Result<ArrayRef> {
            let column = column(name)?;
            match (0..column.len()).find(|row| column.is_null(*row)) {
                None => Ok(column),
                Some(row) => Err(door::wrong(
                    &self.file.path,
                    first_row + row as u64,
                    format_args!("`{name}` is null"),
                    super::source::CURE,
                )),
            }
        };
        let texts = |name: &str, known: bool| -> Result<Option<StringArray>> {
            let read = || Ok(whole(name)?.as_string::<i32>().clone());
            (!known).then(read).transpose()
        };
        let u32s =
            |name: &str| Ok::<_, anyhow::Error>(column(name)?.as_primitive::<UInt32Type>().clone());
        let u16s =
            |name: &str| Ok::<_, anyhow::Error>(column(name)?.as_primitive::<UInt16Type>().clone());
        let f32s = |name: &str| {
            Ok::<_, anyhow::Error>(column(name)?.as_primitive::<Float32Type>().clone())
        };
        let flags = |name: &str| Ok::<_, anyhow::Error>(column(name)?.as_boolean().clone());
        let keys = Keys {
            models: texts("model", self.model.is_some())?,
            corpora: texts("corpus", self.corpus.is_some())?,
            checkpoints: match self.checkpoint {
                Some(_) => None,
                None => Some(whole("checkpoint")?.as_primitive::<UInt32Type>().clone()),
            },
        };
        let training_index = whole("training_index")?
            .as_primitive::<UInt32Type>()
            .clone();
        let step = whole("step")?.as_primitive::<UInt32Type>().clone();
        let trained = whole("trained")?.as_boolean().clone();
        let contrast = whole("contrast")?.as_boolean().clone();
        let seen = flags("seen")?;
        let lag = column("lag")?.as_primitive::<Int32Type>().clone();
        let counts = [
            u16s("n_prefix_matched")?,
            u16s("n_matched")?,
            u16s("n_top1")?,
        ];
        let memorized = flags("memorized")?;
        let [margin, surprisal, logp_suffix, learning_rate] = [
            f32s("margin")?,
            f32s("surprisal")?,
            f32s("logp_suffix")?,
            f32s("learning_rate")?,
        ];
        let exposures = [
            u32s("exposures_before")?,
            u32s("exposures_after")?,
            u32s("exposures_same_step")?,
        ];
        let n_rows = batch.num_rows();
        let mut first = 0;
        while first < n_rows {
            let key = keys.key(self, first);
            let end = if keys.all_known() {
                n_rows
            } else {
                let mut rows = first..n_rows;
                rows.find(|row| !keys.is(&key, self, *row))
                    .unwrap_or(n_rows)
            };
            self.check_path(&key, first_row + first as u64)?;
            let len = end - first;
            blocks.push(Block {
                key,
                path: Arc::clone(&self.file.path),
                first: first_row + first as u64,
                training_index: training_index.slice(first, len),
                step: step.slice(first, len),
                trained: trained.slice(first, len),
                seen: seen.slice(first, len),
                lag: lag.slice(first, len),
                contrast: contrast.slice(first, len),
                counts: counts.clone().map(|counts| counts.slice(first, len)),
                memorized: memorized.slice(first, len),
                margin: margin.slice(first, len),
                surprisal: surprisal.slice(first, len),
                logp_suffix: logp_suffix.slice(first, len),
                learning_rate: learning_rate.slice(first, len),
                exposures: exposures.clone().map(|counts| counts.slice(first, len)),
            });
            first = end;
        }
        Ok(())
    }

    /// Other programs write model and checkpoint into the file, too: they must be those of the
    /// path.
    fn check_path(&self, key: &Key, row: u64) -> Result<()> {
        let model = self.file.model.as_ref();
        let differs = model.is_some_and(|model| *model != key.model)
            || self
                .file
                .checkpoint
                .is_some_and(|steps| steps != key.checkpoint);
        if !differs {
            return Ok(());
        }
        Err(door::wrong(
            &self.file.path,
            row,
            format_args!(
                "it is of `{}` at checkpoint {}, and the path says something else",
                key.model, key.checkpoint
            ),
            super::source::CURE,
        ))
    }
}

/// What stands in the path holds where the file has no such column.
fn in_path<T>(value: Option<T>, column: Option<usize>) -> Option<T> {
    value.filter(|_| column.is_none())
}

/// The columns of the keys that are not the same in all rows.
struct Keys {
    models: Option<StringArray>,
    corpora: Option<StringArray>,
    checkpoints: Option<UInt32Array>,
}

impl Keys {
    fn all_known(&self) -> bool {
        self.models.is_none() && self.corpora.is_none() && self.checkpoints.is_none()
    }

    fn key(&self, group: &RowGroup<'_>, row: usize) -> Key {
        let (model, corpus, checkpoint) = self.parts(group, row);
        Key {
            model: model.to_owned(),
            corpus: corpus.to_owned(),
            checkpoint,
        }
    }

    fn is(&self, key: &Key, group: &RowGroup<'_>, row: usize) -> bool {
        self.parts(group, row) == (key.model.as_str(), key.corpus.as_str(), key.checkpoint)
    }

    /// Either the column's or that of the whole group, one of which there is.
    fn parts<'k>(&'k self, group: &'k RowGroup<'_>, row: usize) -> (&'k str, &'k str, u32) {
        let of = |column: &'k Option<StringArray>, known: &'k Option<String>| match column {
            Some(column) => column.value(row),
            None => known.as_deref().unwrap_or_default(),
        };
        let checkpoints = self.checkpoints.as_ref();
        let checkpoint = checkpoints
            .map(|steps| steps.value(row))
            .or(group.checkpoint);
        (
            of(&self.models, &group.model),
            of(&self.corpora, &group.corpus),
            checkpoint.unwrap_or_default(),
        )
    }
}

/// The one number of a column, where its statistics say that there is but one.
fn number_of(statistics: &Statistics) -> Option<u32> {
    let Statistics::Int32(values) = statistics else {
        return None;
    };
    let (min, max) = (values.min_opt()?, values.max_opt()?);
    let same = min == max && values.null_count_opt() == Some(0);
    same.then_some(min.cast_unsigned())
}
