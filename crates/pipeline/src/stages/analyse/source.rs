//! The table `memorization`, read once, a row group at a time: one file, or a dataset in hive
//! layout.

use super::block::{Block, RowGroup};
use super::dataset::{Listed, dataset};
use super::meaning::Facts;
use crate::door;
use crate::failure;
use crate::tables::{CHECKSUM, MEMORIZATION, memorization_folder, read_metadata, verify};
use anyhow::Result;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a table is had again.
pub(super) const CURE: &str = "write it anew: `pipeline run FILE --only join`";
/// By model and checkpoint the weights that a file depends on: another in each file of a dataset.
const WEIGHTS: &str = "weights";

/// The files of a table `memorization`.
pub(super) struct Source {
    /// What the user knows it as.
    pub(super) path: PathBuf,
    /// The entries of the metadata that all files have in common, and the weights of all.
    pub(super) entries: BTreeMap<String, String>,
    files: Vec<SourceFile>,
}

/// A file of the table.
pub(super) struct SourceFile {
    pub(super) path: Arc<Path>,
    /// From the path, in a dataset.
    pub(super) model: Option<String>,
    pub(super) checkpoint: Option<u32>,
    /// Whether it is byte by byte as this program wrote it, so that its statistics hold.
    pub(super) trusted: bool,
}

/// Weights by model and checkpoint.
type Weights = BTreeMap<String, BTreeMap<u32, String>>;

impl Source {
    /// The table at `path`: a parquet file, or a folder that holds one, or the folder of a dataset.
    ///
    /// # Errors
    ///
    /// When there is none, or two, or a file cannot be read, is of another table, version or run,
    /// or is not what its dataset lists.
    pub(super) fn find(path: &Path) -> Result<Self> {
        let file = path.join(MEMORIZATION.path);
        let folder = memorization_folder(path);
        if file.is_file() && folder.is_dir() {
            return Err(failure::failed(
                format_args!(
                    "there are both `{}` and `{}`, and only one can be the table",
                    file.display(),
                    folder.display()
                ),
                "remove the older one, or name the one that is meant",
            ));
        }
        let (root, listed) = if path.is_dir() && folder.is_dir() {
            (folder.clone(), dataset(&folder)?)
        } else if path.is_dir() && !file.exists() {
            (path.to_owned(), dataset(path)?)
        } else if path.is_dir() {
            (path.to_owned(), vec![Listed::alone(&file)])
        } else if path.exists() {
            (path.to_owned(), vec![Listed::alone(path)])
        } else {
            (path.to_owned(), Vec::new())
        };
        if listed.is_empty() {
            return Err(failure::failed(
                format_args!("there is no table `memorization` at `{}`", path.display()),
                "run the stages before, or name a run file, the output folder of a run, or a `memorization.parquet`",
            ));
        }
        Self::of(path, &root, listed)
    }

    /// A file of it, whose metadata is that of all.
    pub(super) fn file(&self) -> &Path {
        self.files.first().map_or(&self.path, |file| &file.path)
    }

    fn of(path: &Path, root: &Path, listed: Vec<Listed>) -> Result<Self> {
        let mut common: Option<BTreeMap<String, String>> = None;
        let mut weights = Weights::new();
        let mut has_weights = false;
        let (mut files, mut rows) = (Vec::new(), Vec::new());
        for Listed {
            path,
            model,
            checkpoint,
        } in listed
        {
            let read = || -> Result<_> {
                door::open(&path)?;
                let trusted = verify(&path)?;
                Ok((trusted, failure::caught(|| read_metadata(&path))?))
            };
            let (trusted, (mut entries, n_rows)) = read().map_err(|error| {
                let cure = failure::hint(&error).unwrap_or_else(|| CURE.to_owned());
                failure::failed(format_args!("the table cannot be read: {error:#}"), cure)
            })?;
            check_table(&path, &entries)?;
            // What equal runs do not have in common, and what the writer adds.
            entries.retain(|key, _| !["ARROW:schema", CHECKSUM].contains(&key.as_str()));
            if let Some(text) = entries.remove(WEIGHTS) {
                has_weights = true;
                merge(&mut weights, &path, &text)?;
            }
            if common.get_or_insert_with(|| entries.clone()) != &entries {
                return Err(failure::failed(
                    format_args!(
                        "`{}` is of another run than the files before",
                        path.display()
                    ),
                    CURE,
                ));
            }
            rows.push((path.clone(), n_rows));
            files.push(SourceFile {
                path: path.into(),
                model,
                checkpoint,
                trusted,
            });
        }
        let mut entries = common.unwrap_or_default();
        if root.is_dir() {
            super::dataset::hold(root, &rows, &entries)?;
        }
        if has_weights {
            entries.insert(WEIGHTS.to_owned(), serde_json::to_string(&weights)?);
        }
        Ok(Self {
            path: path.to_owned(),
            entries,
            files,
        })
    }

    /// Hands every row to `take`, in the order of the table, decoding row groups side by side. Each
    /// row is held to `facts`.
    ///
    /// # Errors
    ///
    /// Those of `take`, and when a file is damaged, lacks a column, or a row contradicts itself.
    pub(super) fn read(
        &self,
        facts: &Facts<'_>,
        mut take: impl FnMut(&Block) -> Result<()>,
    ) -> Result<()> {
        let at_once = rayon::current_num_threads().max(1);
        // As many at once as there are threads: memory holds no more than these.
        for files in self.files.chunks(at_once) {
            let mut groups = Vec::new();
            for file in files {
                groups.extend(RowGroup::all(file)?);
            }
            for some in groups.chunks(at_once) {
                let decoded: Vec<Result<Vec<Block>>> =
                    some.par_iter().map(|group| group.decode(facts)).collect();
                for blocks in decoded {
                    blocks?.iter().try_for_each(&mut take)?;
                }
            }
        }
        Ok(())
    }
}

/// Refuses a file that does not say that it is this table.
fn check_table(path: &Path, entries: &BTreeMap<String, String>) -> Result<()> {
    let path = path.display();
    let version = MEMORIZATION.version.to_string();
    let is = |key: &str, value: &str| entries.get(key).is_some_and(|found| found == value);
    if is("table", MEMORIZATION.name) && is("table_version", &version) {
        return Ok(());
    }
    let cure = if entries.contains_key("table") {
        CURE.to_owned()
    } else {
        format!(
            "its metadata is gone, as when pandas, polars or Spark write a table anew: analyse the file that the run wrote, or have it again: {}",
            CURE.trim_start_matches("write it anew: ")
        )
    };
    Err(failure::failed(
        format_args!(
            "`{path}` is not a table `{}`, version {version}",
            MEMORIZATION.name
        ),
        cure,
    ))
}

fn merge(weights: &mut Weights, path: &Path, text: &str) -> Result<()> {
    let wrong = |problem: &str| {
        let path = path.display();
        failure::failed(
            format_args!("`{path}`: the entry `{WEIGHTS}` of its metadata {problem}"),
            CURE,
        )
    };
    let found: Weights =
        serde_json::from_str(text).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    for (model, checkpoints) in found {
        let known = weights.entry(model).or_default();
        for (checkpoint, hash) in checkpoints {
            if known.get(&checkpoint).is_some_and(|known| *known != hash) {
                return Err(wrong("is another than that of the files before"));
            }
            known.insert(checkpoint, hash);
        }
    }
    Ok(())
}
