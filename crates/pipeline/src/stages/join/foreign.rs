//! Verdicts that another program found: any parquet file with `training_index`, `checkpoint` and `n_prefix_matched` or
//! `surprisal`.

use crate::failure;
use crate::stages::sets::ProbeSet;
use crate::tables::{VERDICTS, column_names, read_any};
use anyhow::{Context, Result};
use polars::prelude::*;
use std::path::Path;

/// Finds out whether the file at `path` has the columns that the sets of its model need, without reading them.
///
/// # Errors
///
/// When it cannot be read or lacks one.
pub(crate) fn check(path: &Path, sets: &[&ProbeSet<'_>]) -> Result<()> {
    let names = column_names(path).map_err(|error| {
        failure::failed(
            format_args!("{error:#}"),
            "name a parquet file as `model.verdicts`",
        )
    })?;
    let has = |name: &str| names.iter().any(|found| found == name);
    let lacking = ["training_index", "checkpoint"]
        .into_iter()
        .find(|name| !has(name));
    let unfit = |what: &str| {
        failure::failed(
            format_args!("`{}` {what}", path.display()),
            "verdicts need `training_index`, `checkpoint` and `n_prefix_matched` or `surprisal`",
        )
    };
    if let Some(name) = lacking {
        return Err(unfit(&format!("has no column `{name}`")));
    }
    if !has("n_prefix_matched") && !has("surprisal") {
        return Err(unfit(
            "has neither a column `n_prefix_matched` nor `surprisal`",
        ));
    }
    match sets.iter().find(|set| !set.own) {
        Some(set) if !has("corpus") => Err(failure::failed(
            format_args!(
                "`{}` has no column `corpus`, so that its rows may be of another one than `{}`, which `{}` was not trained on",
                path.display(),
                set.corpus.name,
                set.model.name
            ),
            "say in a column `corpus` whose probe each row is about",
        )),
        _ => Ok(()),
    }
}

/// The verdicts of a set in the file at `path`, ascending by training index, with the columns of `verdicts`; null where the file
/// does not say. A column `corpus` says whose rows are whose; without it all are of the corpus that the model was trained on.
///
/// # Errors
///
/// When the file cannot be read, holds a value that does not fit, or a training index twice.
pub(super) fn read(path: &Path, set: &ProbeSet<'_>, l: u16) -> Result<DataFrame> {
    let frame = read_any(path)?;
    of_set(&frame, set, l).with_context(|| format!("reading the verdicts in `{}`", path.display()))
}

fn of_set(frame: &DataFrame, set: &ProbeSet<'_>, l: u16) -> Result<DataFrame> {
    let mut wanted = col("checkpoint")
        .cast(DataType::Int64)
        .eq(lit(i64::from(set.checkpoint.steps)));
    if frame.column("corpus").is_ok() {
        wanted = wanted.and(col("corpus").eq(lit(set.corpus.name.clone())));
    }
    let known = |column: &crate::tables::Column| {
        let kind = column.kind.polars_type();
        if frame.column(column.name).is_ok() {
            col(column.name).strict_cast(kind)
        } else if column.name == "memorized" && frame.column("n_prefix_matched").is_ok() {
            col("n_prefix_matched")
                .strict_cast(DataType::UInt16)
                .gt_eq(lit(l))
                .alias("memorized")
        } else {
            lit(NULL).cast(kind).alias(column.name)
        }
    };
    let columns = VERDICTS
        .columns
        .iter()
        .filter(|column| column.name != "corpus");
    let found = frame
        .clone()
        .lazy()
        .filter(wanted)
        .select(columns.map(known).collect::<Vec<_>>())
        .sort(["training_index"], SortMultipleOptions::default())
        .collect()?;
    if found.height() == 0 {
        return Err(failure::failed(
            format_args!(
                "it holds nothing on `{}` at the checkpoint {}",
                set.corpus.name, set.checkpoint.steps
            ),
            "leave the checkpoint out of the run file",
        ));
    }
    let indices = found.column("training_index")?.u32()?;
    if indices.null_count() > 0 {
        return Err(failure::failed(
            "a row has no `training_index`",
            "leave it out",
        ));
    }
    let indices: Vec<u32> = indices.into_no_null_iter().collect();
    if let Some([twice, _]) = indices.array_windows().find(|[a, b]| a == b) {
        return Err(failure::failed(
            format_args!(
                "the training index {} stands there twice at the checkpoint {}",
                twice, set.checkpoint.steps
            ),
            "drop duplicates",
        ));
    }
    let surprisals = found.column("surprisal")?.f32()?.iter();
    if let Some((index, value)) = (indices.iter().zip(surprisals))
        .find_map(|(index, value)| Some((index, value.filter(|value| !value.is_finite())?)))
    {
        return Err(failure::failed(
            format_args!("`surprisal` is {value} at the training index {index}"),
            "write null where there is none",
        ));
    }
    let longest = found.column("n_prefix_matched")?.u16()?.max();
    if longest.is_some_and(|longest| longest > l) {
        return Err(failure::failed(
            format_args!(
                "`n_prefix_matched` is {} where continuations have {l} tokens",
                longest.unwrap_or(0)
            ),
            "judge the probes that `pipeline plan FILE --export-tokens` writes for this run file",
        ));
    }
    Ok(found)
}
