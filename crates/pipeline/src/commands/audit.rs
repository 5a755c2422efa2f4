//! `pipeline audit`: do the checkpoints hold what their names say?

use super::check;
use super::columns::write_columns;
use crate::audit::{Audit, audit};
use crate::config::{Overrides, Run};
use crate::failure;
use crate::terminal;
use anyhow::Result;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Compares the tensors of all checkpoints of the run file at `file`.
///
/// # Errors
///
/// When the run file cannot be read, or a checkpoint is damaged or not what its name says.
pub(crate) fn run(file: &Path) -> Result<()> {
    let run = Run::load(file, &Overrides::default())?;
    check::warn(&run);
    check::warn_absent(&run);
    let mut out = terminal::stdout();
    let mut n_problems = 0;
    // By the hash of all tensors: the first that has them.
    let mut holders: BTreeMap<String, (&str, u32)> = BTreeMap::new();
    for (number, model) in run.models.iter().enumerate() {
        let checkpoints: Vec<(u32, &Path)> = model
            .present(&run)
            .map(|checkpoint| (checkpoint.steps, checkpoint.folder.as_path()))
            .collect();
        let mut found = audit(model, &checkpoints)?;
        for audited in &found.checkpoints {
            let Some(tensors) = &audited.tensors else {
                continue;
            };
            let holder = (model.name.as_str(), audited.steps);
            let (name, steps) = *holders.entry(tensors.clone()).or_insert(holder);
            if name == model.name {
                continue;
            }
            let what = format!(
                "checkpoint {} has the weights of `{name}` at checkpoint {steps}",
                audited.steps
            );
            if (audited.steps, steps) == (0, 0) {
                found.notes.push(format!("{what}: they were begun alike"));
            } else {
                found.problems.push(what);
            }
        }
        if number > 0 {
            writeln!(out)?;
        }
        show(&mut out, &model.name, &found)?;
        n_problems += found.problems.len();
    }
    if n_problems == 0 {
        return Ok(());
    }
    Err(failure::failed(
        format_args!("the checkpoints have {n_problems} problems"),
        "download what is wrong again; what stays wrong is so at its source: leave it out of `model.checkpoints`",
    ))
}

fn show(out: &mut impl Write, model: &str, found: &Audit) -> Result<()> {
    let short = |hash: &Option<String>| {
        let hash = hash.as_deref().and_then(|hash| hash.get(..16));
        hash.unwrap_or("–").to_owned()
    };
    let mut rows = vec![
        [
            "model",
            "tensors",
            "files",
            "stored as",
            "checkpoint",
            "distance per step",
        ]
        .map(str::to_owned),
    ];
    rows.extend(found.checkpoints.iter().map(|audited| {
        [
            model.to_owned(),
            short(&audited.tensors),
            short(&audited.files),
            audited.stored.clone(),
            audited.steps.to_string(),
            audited
                .speed
                .map_or_else(|| "–".to_owned(), |speed| format!("{speed:.2e}")),
        ]
    }));
    write_columns(out, &rows, 4)?;
    for note in &found.notes {
        writeln!(out, "note: {model}: {note}")?;
    }
    for problem in &found.problems {
        writeln!(out, "wrong: {model}: {problem}")?;
    }
    if found.problems.is_empty() {
        writeln!(out, "{model}: nothing wrong")?;
    }
    Ok(())
}
