//! `pipeline check`: is everything there that a run needs?

use crate::config::{Overrides, Run};
use crate::inputs::{self, Depth, Inputs, Look};
use crate::output;
use crate::progress;
use crate::terminal;
use anyhow::Result;
use indicatif::{HumanBytes, HumanCount};
use std::io::Write;
use std::path::Path;
use training_order::mmididx::Dataset;

/// Says what the run's names should make one careful about.
pub(super) fn warn(run: &Run) {
    for warning in &run.warnings {
        progress::say(&format!("warning: {warning}"));
    }
}

/// Says what the run names on the hub and the cache does not hold.
pub(super) fn warn_absent(run: &Run) {
    for absent in run.absent.values() {
        progress::say(&format!(
            "warning: `{}` is not in the hub's cache; this fetches it: {}",
            absent.url, absent.command
        ));
    }
}

/// Checks the run file at `file` and reads all its inputs.
///
/// # Errors
///
/// All that is wrong.
pub(crate) fn check(file: &Path, overrides: &Overrides, full_hash: bool) -> Result<()> {
    let run = Run::load(file, overrides)?;
    warn(&run);
    output::admit(&run, true)?;
    let inputs = inputs::open(&run, Look::at(Depth::Everything, full_hash))?;
    warn_absent(&run);
    show(&mut terminal::stdout(), &run, &inputs)
}

/// Writes what was found.
///
/// # Errors
///
/// When `out` fails.
pub(super) fn show(out: &mut impl Write, run: &Run, inputs: &Inputs) -> Result<()> {
    for (corpus, order) in &inputs.orders {
        let n_sequences = HumanCount(order.n_sequences());
        let n_items = HumanCount(order.datasets().map(Dataset::n_items).sum());
        let epochs = order
            .epochs()
            .map(|epochs| format!(", {epochs:.2} epochs"))
            .unwrap_or_default();
        let n_steps = order.n_steps();
        writeln!(
            out,
            "corpus {corpus}: {n_sequences} sequences in {n_steps} steps, from {n_items} items{epochs}"
        )?;
        if let Some(source) = inputs.sources.get(corpus) {
            writeln!(out, "  order: {source}")?;
        }
    }
    for model in &run.models {
        let checkpoints: Vec<String> = model
            .checkpoints
            .iter()
            .map(|checkpoint| checkpoint.steps.to_string())
            .collect();
        writeln!(
            out,
            "model {}: checkpoints {}",
            model.name,
            checkpoints.join(", ")
        )?;
    }
    let n_bytes = inputs.files().map(|file| file.bytes).sum();
    writeln!(
        out,
        "{} input files, {}: nothing wrong{}",
        inputs.files().count(),
        HumanBytes(n_bytes),
        if run.absent.is_empty() {
            String::new()
        } else {
            format!(
                "; {} yet to fetch, without which `run` does not begin",
                run.absent.len()
            )
        }
    )?;
    Ok(())
}
