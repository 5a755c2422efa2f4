//! `--fresh`: what a run has written goes, and nothing else.

use super::{DATASETS, places};
use crate::claims;
use crate::failure;
use crate::log;
use crate::mark::Mark;
use crate::progress;
use crate::tables::{MEMORIZATION, VERDICTS, parts, remove_with_empty_folders};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Removes what a run has written to the folder `out`; says before what that is, and what stays.
///
/// # Errors
///
/// When another process is at work there, or a file cannot be removed.
pub(crate) fn discard(out: &Path) -> Result<()> {
    if let Some(other) = claims::others(out).first() {
        return Err(failure::failed(
            format_args!(
                "the process {} on {} is at work in `{}`",
                other.pid,
                other.host,
                out.display()
            ),
            "end it first, or name another folder with `--out`",
        ));
    }
    // Each with the last folder around it that may go.
    let mut all: Vec<(PathBuf, Mark, PathBuf)> = Vec::new();
    for (place, mark) in places() {
        all.push((out.join(place), mark, out.join(place)));
    }
    for (dataset, table) in DATASETS.into_iter().zip([VERDICTS.name, MEMORIZATION.name]) {
        let folder = out.join(dataset);
        for part in parts(&folder) {
            all.push((folder.join(part), Mark::Table(table), folder.clone()));
        }
    }
    let logs = out.join(log::FOLDER);
    for entry in fs::read_dir(&logs).into_iter().flatten().flatten() {
        all.push((entry.path(), Mark::Log, logs.clone()));
    }
    let mut removed = Vec::new();
    for (path, mark, last) in all {
        let found = mark.is_on(&path);
        match found.with_context(|| format!("discarding `{}`", path.display()))? {
            Some(true) => removed.push((path, last)),
            Some(false) => progress::say(&format!(
                "`{}` was not written by this program: it stays",
                path.display()
            )),
            None => {}
        }
    }
    for together in removed.chunk_by(|(_, one), (_, other)| one == other) {
        let what = match together {
            [(path, _)] => format!("`{}`", path.display()),
            [(_, folder), ..] => format!("{} files in `{}`", together.len(), folder.display()),
            [] => continue,
        };
        progress::say(&format!("removing {what}"));
    }
    for (path, last) in removed {
        remove_with_empty_folders(&path, &last)
            .with_context(|| format!("discarding `{}`", path.display()))?;
    }
    let failures = out.join(claims::FOLDER).join("failures");
    if failures.is_dir() {
        fs::remove_dir_all(&failures)
            .with_context(|| format!("discarding `{}`", failures.display()))?;
    }
    Ok(())
}
