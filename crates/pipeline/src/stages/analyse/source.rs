//! The table `memorization`, read once, a row group at a time: one file, or a dataset in hive layout.

use super::group::Key;
use crate::failure;
use crate::tables::{
    CHECKSUM, MEMORIZATION, Table, memorization_folder, only_text, read_metadata, verify,
};
use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, UInt32Type};
use arrow_array::{Array, BooleanArray, Float32Array, RecordBatch, StringArray, UInt32Array};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::statistics::Statistics;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The files of a table `memorization`.
pub(super) struct Source {
    /// What the user knows it as.
    pub(super) path: PathBuf,
    files: Vec<SourceFile>,
}

struct SourceFile {
    path: PathBuf,
    /// From the path, in a dataset.
    model: Option<String>,
    checkpoint: Option<u32>,
}

/// Some rows of one model, corpus and checkpoint, in the order of the table.
pub(super) struct Block {
    pub(super) key: Key,
    pub(super) training_index: UInt32Array,
    pub(super) step: UInt32Array,
    pub(super) seen: BooleanArray,
    pub(super) contrast: BooleanArray,
    pub(super) memorized: BooleanArray,
    pub(super) surprisal: Float32Array,
    /// Before, after and at the probe's own step.
    pub(super) exposures: [UInt32Array; 3],
}

/// A row group of a file, and what its statistics say is the same in all of its rows.
struct RowGroup<'a> {
    file: &'a SourceFile,
    /// That of the file, read once.
    metadata: ArrowReaderMetadata,
    number: usize,
    model: Option<String>,
    corpus: Option<String>,
    checkpoint: Option<u32>,
}

impl Source {
    /// The table at `path`: a parquet file, or a folder that holds one, or the folder of a dataset.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let file = path.join(MEMORIZATION.path);
        let folder = memorization_folder(path);
        let files = if path.is_file() {
            vec![SourceFile::alone(path)]
        } else if file.is_file() {
            vec![SourceFile::alone(&file)]
        } else if folder.is_dir() {
            dataset(&folder)?
        } else if path.is_dir() {
            dataset(path)?
        } else {
            Vec::new()
        };
        if files.is_empty() {
            return Err(failure::failed(
                format_args!("there is no table `memorization` at `{}`", path.display()),
                "run the stages before, or name a run file, the output folder of a run, or a `memorization.parquet`",
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            files,
        })
    }

    /// The metadata that all files have in common.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or is of another table, version or run.
    pub(super) fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let mut common: Option<BTreeMap<String, String>> = None;
        for file in &self.files {
            const CURE: &str = "write it anew: `pipeline run FILE --only join`";
            let read = verify(&file.path).and_then(|_| read_metadata(&file.path));
            let (mut entries, _) = read.map_err(|error| {
                failure::failed(format_args!("the table cannot be read: {error:#}"), CURE)
            })?;
            // What equal runs do not have in common, and what the writer adds.
            entries.retain(|key, _| !["ARROW:schema", CHECKSUM].contains(&key.as_str()));
            let is = |key: &str, value: &str| entries.get(key).is_some_and(|found| found == value);
            if !is("table", MEMORIZATION.name)
                || !is("table_version", &MEMORIZATION.version.to_string())
            {
                return Err(failure::failed(
                    format_args!(
                        "`{}` is not a table `{}`, version {}",
                        file.path.display(),
                        MEMORIZATION.name,
                        MEMORIZATION.version
                    ),
                    CURE,
                ));
            }
            if common.get_or_insert_with(|| entries.clone()) != &entries {
                return Err(failure::failed(
                    format_args!(
                        "`{}` is of another run than the files before",
                        file.path.display()
                    ),
                    "write the table anew: `pipeline run FILE --only join`",
                ));
            }
        }
        Ok(common.unwrap_or_default())
    }

    /// Hands every row to `take`, in the order of the table, decoding row groups side by side.
    ///
    /// # Errors
    ///
    /// Those of `take`, and when a file is damaged or lacks a column.
    pub(super) fn read(&self, mut take: impl FnMut(&Block) -> Result<()>) -> Result<()> {
        let mut groups = Vec::new();
        for file in &self.files {
            groups.extend(file.row_groups()?);
        }
        // As many at once as there are threads: memory holds no more than these.
        for some in groups.chunks(rayon::current_num_threads().max(1)) {
            let decoded: Vec<Result<Vec<Block>>> = some.par_iter().map(RowGroup::decode).collect();
            for blocks in decoded {
                blocks?.iter().try_for_each(&mut take)?;
            }
        }
        Ok(())
    }
}

/// The files below the folder of a dataset, in the order of `memorization`'s rows.
fn dataset(folder: &Path) -> Result<Vec<SourceFile>> {
    let listed = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder)
            .with_context(|| format!("reading the folder `{}`", folder.display()))?;
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect()
    };
    let value = |path: &Path, key: &str| -> Option<String> {
        let name = path.file_name()?.to_str()?;
        Some(name.strip_prefix(key)?.strip_prefix('=')?.to_owned())
    };
    let mut files = Vec::new();
    for by_model in listed(folder)? {
        let Some(model) = value(&by_model, "model") else {
            continue;
        };
        for by_checkpoint in listed(&by_model)? {
            let checkpoint = value(&by_checkpoint, "checkpoint");
            let Some(checkpoint) = checkpoint.and_then(|steps| steps.parse().ok()) else {
                continue;
            };
            for path in listed(&by_checkpoint)? {
                if path.extension().is_some_and(|ending| ending == "parquet") {
                    files.push(SourceFile {
                        path,
                        model: Some(model.clone()),
                        checkpoint: Some(checkpoint),
                    });
                }
            }
        }
    }
    // A file is of one corpus, which its name says; rows go by model, corpus and checkpoint.
    files.sort_by(|a, b| {
        let key = |file: &SourceFile| (file.model.clone(), file.name(), file.checkpoint);
        key(a).cmp(&key(b))
    });
    Ok(files)
}

impl SourceFile {
    fn alone(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            model: None,
            checkpoint: None,
        }
    }

    fn name(&self) -> Option<String> {
        Some(self.path.file_name()?.to_string_lossy().into_owned())
    }

    fn row_groups(&self) -> Result<Vec<RowGroup<'_>>> {
        let open = || -> Result<_> {
            // Without the writer's own schema: in polars' files strings differ from arrow's.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            let metadata = ArrowReaderMetadata::load(&File::open(&self.path)?, options)?;
            let schema = metadata.parquet_schema();
            let place = |name: &str| {
                (0..schema.num_columns()).find(|column| schema.column(*column).name() == name)
            };
            let (model, corpus, checkpoint) =
                (place("model"), place("corpus"), place("checkpoint"));
            let groups = metadata.metadata().row_groups().iter().enumerate();
            let groups = groups.map(|(number, group)| {
                let same = |column: Option<usize>| group.column(column?).statistics();
                RowGroup {
                    file: self,
                    metadata: metadata.clone(),
                    number,
                    model: self.model.clone().or_else(|| only_text(same(model)?)),
                    corpus: same(corpus).and_then(only_text),
                    checkpoint: self.checkpoint.or_else(|| number_of(same(checkpoint)?)),
                }
            });
            Ok(groups.collect())
        };
        open().with_context(|| format!("reading the table `{}`", self.path.display()))
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

impl RowGroup<'_> {
    fn decode(&self) -> Result<Vec<Block>> {
        self.decoded()
            .with_context(|| format!("reading the table `{}`", self.file.path.display()))
    }

    fn decoded(&self) -> Result<Vec<Block>> {
        let table: &Table = &MEMORIZATION;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            File::open(&self.file.path)?,
            self.metadata.clone(),
        );
        let mut columns = vec![
            "training_index",
            "step",
            "seen",
            "contrast",
            "memorized",
            "surprisal",
            "exposures_before",
            "exposures_after",
            "exposures_same_step",
        ];
        for (name, known) in [
            ("model", self.model.is_some()),
            ("corpus", self.corpus.is_some()),
            ("checkpoint", self.checkpoint.is_some()),
        ] {
            if !known {
                columns.push(name);
            }
        }
        for column in table.columns {
            if !columns.contains(&column.name) {
                continue;
            }
            let field = builder.schema().field_with_name(column.name)?;
            let expected = column.kind.arrow_type();
            if field.data_type() != &expected {
                bail!(
                    "the column `{}` is {}, not {expected}",
                    column.name,
                    field.data_type()
                );
            }
        }
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let n_rows = builder.metadata().row_group(self.number).num_rows();
        let reader = builder
            .with_projection(mask)
            .with_row_groups(vec![self.number])
            .with_batch_size(usize::try_from(n_rows)?.max(1))
            .build()?;
        let mut blocks = Vec::new();
        for batch in reader {
            self.cut(&batch?, &mut blocks)?;
        }
        Ok(blocks)
    }

    /// Cuts a batch where model, corpus or checkpoint changes.
    fn cut(&self, batch: &RecordBatch, blocks: &mut Vec<Block>) -> Result<()> {
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column.with_context(|| format!("there is no column `{name}`"))
        };
        let texts = |name: &str, known: bool| -> Result<Option<StringArray>> {
            Ok(if known {
                None
            } else {
                Some(column(name)?.as_string::<i32>().clone())
            })
        };
        let models = texts("model", self.model.is_some())?;
        let corpora = texts("corpus", self.corpus.is_some())?;
        let checkpoints = match self.checkpoint {
            Some(_) => None,
            None => Some(column("checkpoint")?.as_primitive::<UInt32Type>().clone()),
        };
        let of = |texts: &Option<StringArray>, known: Option<&str>, row: usize| match texts {
            Some(texts) => texts.value(row).to_owned(),
            None => known.unwrap_or_default().to_owned(),
        };
        let key = |row: usize| Key {
            model: of(&models, self.model.as_deref(), row),
            corpus: of(&corpora, self.corpus.as_deref(), row),
            checkpoint: checkpoints
                .as_ref()
                .map_or(self.checkpoint.unwrap_or(0), |steps| steps.value(row)),
        };
        let known = models.is_none() && corpora.is_none() && checkpoints.is_none();
        let numbers = |name: &str| -> Result<UInt32Array> {
            Ok(column(name)?.as_primitive::<UInt32Type>().clone())
        };
        let flags = |name: &str| -> Result<BooleanArray> { Ok(column(name)?.as_boolean().clone()) };
        let training_index = numbers("training_index")?;
        let step = numbers("step")?;
        let (seen, contrast, memorized) = (flags("seen")?, flags("contrast")?, flags("memorized")?);
        let surprisal = column("surprisal")?.as_primitive::<Float32Type>().clone();
        let exposures = [
            numbers("exposures_before")?,
            numbers("exposures_after")?,
            numbers("exposures_same_step")?,
        ];
        for array in [&training_index, &step] {
            if array.null_count() > 0 {
                bail!("a row has no `training_index` or no `step`");
            }
        }
        let n_rows = batch.num_rows();
        let mut first = 0;
        while first < n_rows {
            let begun = key(first);
            let end = if known {
                n_rows
            } else {
                (first..n_rows)
                    .find(|row| key(*row) != begun)
                    .unwrap_or(n_rows)
            };
            let len = end - first;
            blocks.push(Block {
                key: begun,
                training_index: training_index.slice(first, len),
                step: step.slice(first, len),
                seen: seen.slice(first, len),
                contrast: contrast.slice(first, len),
                memorized: memorized.slice(first, len),
                surprisal: surprisal.slice(first, len),
                exposures: exposures.clone().map(|counts| counts.slice(first, len)),
            });
            first = end;
        }
        Ok(())
    }
}
