//! Which folders a run may write to: its own, and those where nobody's files lie.

use super::{DATASETS, places};
use crate::claims;
use crate::config::{Corpus, Run};
use crate::description::Description;
use crate::failure;
use crate::files;
use crate::log;
use crate::manifest;
use crate::mark::{self, Mark, SCRIPT};
use crate::stages::{ANALYSED, verdicts_folder};
use crate::tables::{MEMORIZATION, PARTIAL, POSITIONS, memorization_folder, parts};
use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Where `slurm` writes unless it is told otherwise.
const SLURM: &str = "slurm";

/// Refuses an output folder that is not this run's to write to, before anything is written. A run that does not
/// plan may take positions that another program wrote.
///
/// # Errors
///
/// When other files than a run's lie there, or at the place of one of its tables, when it lies in the folder of
/// another run, or an input lies where an output goes.
pub(crate) fn admit(run: &Run, plans: bool) -> Result<()> {
    refuse_inputs(run)?;
    refuse_nested(&run.out)?;
    refuse_foreign(&run.out)?;
    for folder in [claims::FOLDER, log::FOLDER].into_iter().chain(DATASETS) {
        refuse_link(&run.out.join(folder))?;
    }
    let dataset = memorization_folder(&run.out);
    for part in parts(&dataset) {
        Mark::Table(MEMORIZATION.name).check(&dataset.join(part))?;
    }
    for (place, mark) in places() {
        if plans || place != POSITIONS.path {
            mark.check(&run.out.join(place))?;
        }
    }
    Ok(())
}

/// The same for a folder that takes nothing but the tables of an analysis of the table at `source`.
///
/// # Errors
///
/// Those of [`admit`].
pub(crate) fn admit_analysis(source: &Path, out: &Path) -> Result<()> {
    let beside = resolved(source).starts_with(resolved(out));
    if !beside {
        refuse_nested(out)?;
        refuse_foreign(out)?;
    }
    ANALYSED
        .into_iter()
        .try_for_each(|table| Mark::Table(table.name).check(&out.join(table.path)))
}

/// What a link leads to may be anybody's.
fn refuse_link(folder: &Path) -> Result<()> {
    if !folder.is_symlink() {
        return Ok(());
    }
    Err(failure::failed(
        format_args!("`{}` is a link, not a folder of the run", folder.display()),
        "remove it; the output folder itself may be a link",
    ))
}

/// Refuses a place for a file that a command writes beside the tables, before any work.
///
/// # Errors
///
/// When an input or another program's file lies there, or it is the place of a table of the run.
pub(crate) fn admit_file(run: &Run, path: &Path, mark: Mark) -> Result<()> {
    mark.check(path)?;
    let found = resolved(path);
    let out = resolved(&run.out);
    if let Ok(inside) = found.strip_prefix(&out)
        && is_output(inside)
    {
        return Err(failure::usage(
            format_args!("`{}` is the place of an output of the run", path.display()),
            "name another file",
        ));
    }
    match inputs(run).find(|input| resolved(input) == found) {
        None => Ok(()),
        Some(_) => Err(failure::usage(
            format_args!("`{}` is an input of the run", path.display()),
            "name another file",
        )),
    }
}

/// Every path that the run file names as an input.
fn inputs(run: &Run) -> impl Iterator<Item = &Path> {
    let of_models = run.models.iter().flat_map(|model| {
        let folders = model
            .checkpoints
            .iter()
            .filter(|_| model.verdicts.is_none());
        let folders = folders.map(|checkpoint| checkpoint.folder.as_path());
        folders.chain(model.verdicts.as_deref())
    });
    run.corpora.iter().flat_map(Corpus::paths).chain(of_models)
}

/// Whether a path inside an output folder is that of an output.
fn is_output(inside: &Path) -> bool {
    let first = inside
        .iter()
        .next()
        .and_then(OsStr::to_str)
        .unwrap_or_default();
    let mut folders = [claims::FOLDER, log::FOLDER].into_iter().chain(DATASETS);
    folders.any(|folder| first == folder) || places().any(|(place, _)| inside == Path::new(place))
}

/// Refuses a folder with verdicts that this run cannot go on from, and says in what they differ.
///
/// # Errors
///
/// When there are any.
pub(crate) fn refuse_conflicts(out: &Path, description: &Description) -> Result<()> {
    let Some(record) = mark::read_record(&out.join(manifest::FILE)) else {
        return Ok(());
    };
    if parts(&verdicts_folder(out)).is_empty() {
        return Ok(());
    }
    let conflicts = description.conflicts(&Description::of_record(&record));
    if conflicts.is_empty() {
        return Ok(());
    }
    Err(failure::failed(
        format_args!(
            "what lies in the output folder `{}` was made by another run: {}",
            out.display(),
            conflicts.join("; ")
        ),
        "discard the old output with `--fresh`, or name another folder with `--out`",
    ))
}

/// Whether a run has written to the folder.
fn is_run_folder(folder: &Path) -> bool {
    let has = |inside: &str| folder.join(inside).symlink_metadata().is_ok();
    let worked = has(POSITIONS.path) || DATASETS.into_iter().any(has) || has(MEMORIZATION.path);
    (worked && mark::read_record(&folder.join(manifest::FILE)).is_some())
        || folder.join(claims::FOLDER).join(manifest::FILE).is_file()
}

fn refuse_nested(out: &Path) -> Result<()> {
    let out = resolved(out);
    match out.ancestors().skip(1).find(|folder| is_run_folder(folder)) {
        None => Ok(()),
        Some(other) => Err(failure::failed(
            format_args!(
                "the output folder `{}` lies in that of another run, `{}`",
                out.display(),
                other.display()
            ),
            "name a folder of its own with `--out`, or in the run file",
        )),
    }
}

fn refuse_foreign(out: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(out) else {
        // What is no folder is said where it is written to.
        return Ok(());
    };
    if is_run_folder(out) {
        return Ok(());
    }
    for entry in entries {
        let entry = entry.with_context(|| format!("reading the folder `{}`", out.display()))?;
        if !is_of_a_run(&entry.path(), &entry.file_name()) {
            return Err(failure::failed(
                format_args!(
                    "the output folder `{}` is no run's, and not empty: it holds `{}`",
                    out.display(),
                    entry.file_name().to_string_lossy()
                ),
                "name an empty folder, or one that does not exist yet, with `--out` or in the run file",
            ));
        }
    }
    Ok(())
}

/// Whether an entry of a folder without a record may be a run's all the same: of one that has just begun, or of
/// tables that another program wrote in a stage's place.
fn is_of_a_run(path: &Path, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let all = |folder: &Path, fits: &dyn Fn(&Path, &str) -> bool| {
        let mut entries = fs::read_dir(folder).into_iter().flatten().flatten();
        folder.is_dir()
            && entries.all(|entry| {
                let name = entry.file_name();
                name.to_str().is_some_and(|name| fits(&entry.path(), name))
            })
    };
    match name {
        // The second is ext's own, at the root of a disk.
        claims::FOLDER | "lost+found" => path.is_dir(),
        SLURM => all(path, &|path, name| {
            let script = || {
                Mark::Script
                    .is_on(path)
                    .is_ok_and(|mark| mark == Some(true))
            };
            name == "logs" || name.starts_with(PARTIAL) || script() || is_edited_script(path)
        }),
        log::FOLDER => all(path, &|path, _| {
            // A process that has just begun has not written its first line.
            let empty =
                || fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
            Mark::Log.is_on(path).is_ok_and(|mark| mark == Some(true)) || empty()
        }),
        _ if name.starts_with(PARTIAL) => true,
        _ if DATASETS.contains(&name) => holds_parts(path, name),
        _ => places().any(|(place, _)| place == name) && path.is_file(),
    }
}

/// Whether a folder holds nothing but parts of a table.
fn holds_parts(folder: &Path, table: &str) -> bool {
    let table = DATASETS.into_iter().find(|dataset| *dataset == table);
    let ours = |path: PathBuf| {
        let mark = table.map(|table| Mark::Table(table).is_on(&path));
        matches!(mark, Some(Ok(Some(true))))
    };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        if folder.is_symlink() {
            return false;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if entry.path().is_dir()
                && (name.starts_with("model=") || name.starts_with("checkpoint="))
            {
                folders.push(entry.path());
            } else if !name.starts_with(PARTIAL) && !ours(entry.path()) {
                return false;
            }
        }
    }
    true
}

/// Whether a person has changed what `slurm` wrote, as it asks for.
fn is_edited_script(path: &Path) -> bool {
    let begins = files::read_text(path, files::TEXT).ok();
    begins.is_some_and(|text| {
        text.lines()
            .nth(1)
            .is_some_and(|line| line.starts_with(SCRIPT))
    })
}

/// Refuses inputs that lie where an output goes.
fn refuse_inputs(run: &Run) -> Result<()> {
    let out = resolved(&run.out);
    for input in inputs(run) {
        for found in [resolved(input), crate::config::absolute(input)] {
            let Ok(inside) = found.strip_prefix(&out) else {
                continue;
            };
            if is_output(inside) {
                return Err(failure::failed(
                    format_args!(
                        "the input `{}` lies where the run writes its outputs, in `{}`",
                        input.display(),
                        run.out.display()
                    ),
                    "move it elsewhere, or name another folder with `--out` or in the run file",
                ));
            }
        }
    }
    Ok(())
}

/// A path without links, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = crate::config::absolute(path);
    for folder in path.ancestors() {
        if let (Ok(found), Ok(rest)) = (folder.canonicalize(), path.strip_prefix(folder)) {
            // `join` of nothing would end with a slash.
            return if rest.as_os_str().is_empty() {
                found
            } else {
                found.join(rest)
            };
        }
    }
    path
}
