//! The files of a dataset: those that a run wrote, all of them, and none besides.

use super::source::CURE;
use crate::failure;
use anyhow::{Context, Result};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Entries of the metadata of each file: how many files the dataset has, their rows, and a digest
/// of paths and rows.
const N_FILES: &str = "dataset_files";
const N_ROWS: &str = "dataset_rows";
const DIGEST: &str = "dataset_digest";

/// A file that is there.
pub(super) struct Listed {
    pub(super) path: PathBuf,
    /// From the path, in a dataset.
    pub(super) model: Option<String>,
    pub(super) checkpoint: Option<u32>,
}

impl Listed {
    pub(super) fn alone(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            model: None,
            checkpoint: None,
        }
    }
}

/// The files below the folder of a dataset, in the order of `memorization`'s rows; none where it is
/// no dataset.
///
/// # Errors
///
/// When a folder cannot be read, or holds a table that is not one of the dataset's.
pub(super) fn dataset(folder: &Path) -> Result<Vec<Listed>> {
    let (mut files, mut strangers) = (Vec::new(), Vec::new());
    for by_model in listed(folder)? {
        let Some(model) = value(&by_model, "model").filter(|_| by_model.is_dir()) else {
            strangers.extend(Some(by_model).filter(|path| is_table(path)));
            continue;
        };
        for by_checkpoint in listed(&by_model)? {
            let steps = value(&by_checkpoint, "checkpoint");
            let steps = steps.filter(|_| by_checkpoint.is_dir());
            let Some(steps) = steps.and_then(|steps| steps.parse().ok()) else {
                strangers.push(by_checkpoint);
                continue;
            };
            for path in listed(&by_checkpoint)? {
                if is_part(&path) {
                    files.push(Listed {
                        path,
                        model: Some(model.clone()),
                        checkpoint: Some(steps),
                    });
                } else {
                    strangers.extend(Some(path).filter(|path| is_table(path) || path.is_dir()));
                }
            }
        }
    }
    // The tables of a run may lie beside one another; within a dataset every reader would take them
    // for parts.
    if let (false, Some(stranger)) = (files.is_empty(), strangers.first()) {
        return Err(failure::failed(
            format_args!(
                "`{}` is not a part of the table in `{}`: parts are `model=…/checkpoint=…/part-CORPUS.parquet`",
                stranger.display(),
                folder.display()
            ),
            "move it out of the folder",
        ));
    }
    // A file is of one corpus, which its name says; rows go by model, corpus and checkpoint.
    files.sort_by(|a, b| {
        let key = |file: &Listed| {
            (
                file.model.clone(),
                file.path.file_name().map(ToOwned::to_owned),
                file.checkpoint,
            )
        };
        key(a).cmp(&key(b))
    });
    Ok(files)
}

/// Whether a folder is that of a dataset.
pub(crate) fn is_dataset(folder: &Path) -> bool {
    let is_model = |path: &PathBuf| value(path, "model").is_some() && path.is_dir();
    listed(folder).is_ok_and(|paths| paths.iter().any(is_model))
}

/// What lies in a folder, without what other programs hide or mark there.
fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let reading = || format!("reading the folder `{}`", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && !name.as_encoded_bytes().starts_with(b"_")
        {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn value(path: &Path, key: &str) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_prefix(key)?.strip_prefix('=')?.to_owned())
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "parquet")
}

fn is_part(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    is_table(path) && name.is_some_and(|name| name.starts_with("part-"))
}

/// Holds the files of a dataset to what its metadata lists. A dataset of an older version lists
/// nothing.
///
/// # Errors
///
/// When files are missing, or there are others.
pub(super) fn hold(
    folder: &Path,
    files: &[(PathBuf, u64)],
    entries: &BTreeMap<String, String>,
) -> Result<()> {
    let (Some(n_files), Some(n_rows), Some(digest)) = (
        entries.get(N_FILES),
        entries.get(N_ROWS),
        entries.get(DIGEST),
    ) else {
        return Ok(());
    };
    let refused = |problem: String| {
        let folder = folder.display();
        Err(failure::failed(
            format_args!("the table in `{folder}` {problem}"),
            CURE,
        ))
    };
    let found = files.len();
    let Ok(listed) = n_files.parse::<usize>() else {
        return refused(format!("says that it has `{n_files}` files"));
    };
    if found < listed {
        return refused(format!("lacks files: {found} of {listed} are there"));
    }
    if found > listed {
        return refused(format!(
            "holds files that are not its own: {found} are there, {listed} were written"
        ));
    }
    let sum: u64 = files.iter().map(|(_, n)| n).sum();
    if *n_rows != sum.to_string() {
        return refused(format!("has {sum} rows, {n_rows} were written"));
    }
    if *digest != digest_of(folder, files) {
        return refused("holds other files than were written".to_owned());
    }
    Ok(())
}

/// The SHA-256 of a line `PATH:ROWS` for each file, by path.
fn digest_of(folder: &Path, files: &[(PathBuf, u64)]) -> String {
    let mut lines: Vec<String> = files
        .iter()
        .map(|(path, n)| {
            let path = path.strip_prefix(folder).unwrap_or(path);
            let parts = path.iter().map(|part| part.to_string_lossy());
            format!("{}:{n}\n", parts.collect::<Vec<_>>().join("/"))
        })
        .collect();
    lines.sort();
    crate::fingerprint::hex(&Sha256::digest(lines.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_held_to_its_files() {
        let file = |name: &str, n| (PathBuf::from("t").join(name), n);
        let files = [
            file("model=b/checkpoint=2/part-c.parquet", 7),
            file("model=a/checkpoint=10/part-c.parquet", 5),
        ];
        // printf 'model=a/checkpoint=10/part-c.parquet:5\nmodel=b/checkpoint=2/part-c.parquet:7\n'
        // | sha256sum
        let digest = "dbaf3418b249d4e3c2cb130731a26a7c94b16fa66141fc5920a40c151211394f";
        let entries = |n_files: &str, n_rows: &str, digest: &str| {
            let entries = [(N_FILES, n_files), (N_ROWS, n_rows), (DIGEST, digest)];
            entries
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into()
        };
        let held = |entries| hold(Path::new("t"), &files, &entries);
        held(BTreeMap::new()).unwrap();
        held(entries("2", "12", digest)).unwrap();
        let cases = [
            (entries("3", "12", digest), "lacks files: 2 of 3 are there"),
            (
                entries("1", "12", digest),
                "holds files that are not its own",
            ),
            (entries("2", "13", digest), "has 12 rows, 13 were written"),
            (entries("2", "12", "0"), "holds other files"),
        ];
        for (entries, says) in cases {
            let error = held(entries).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
