//! Tables of an earlier run that are those of this one: they are kept, so that nothing is planned twice.

use crate::config::{Run, Selection};
use crate::failure;
use crate::fingerprint;
use crate::inputs::{Inputs, contents};
use crate::mark::Mark;
use crate::stages::verdicts_folder;
use crate::tables::{EXPOSURES_BY_STEP, Footer, POSITIONS, Table, parts, read_metadata, verify};
use anyhow::Result;
use serde_json::Value;
use std::collections::BTreeMap;

/// The entry of a table's metadata that names what it was made from.
pub(crate) const KEY: &str = "fingerprint";

/// The fingerprint of everything that decides `positions`.
///
/// # Errors
///
/// When a setting has no JSON form.
pub(crate) fn of_positions(run: &Run, inputs: &Inputs) -> Result<String> {
    let mut corpora = Vec::new();
    for corpus in &run.corpora {
        let mut settings = serde_json::to_value(corpus)?;
        // Where the inputs lie decides nothing: what is in them does. Nor does it matter who is asked a contrast.
        remove(&mut settings, &["data", "maps", "tokenizer"]);
        if let Some(selection) = settings.get_mut("selection") {
            remove(selection, &["list"]);
        }
        if let Some(contrast) = settings.get_mut("contrast") {
            remove(contrast, &["models", "checkpoints"]);
        }
        let files = inputs.corpus_files.get(&corpus.name);
        let files = contents(files.map(Vec::as_slice).unwrap_or_default());
        let source = inputs.sources.get(&corpus.name).copied();
        let list = inputs.list_files.get(&corpus.name);
        let list = list.map(|list| &list.sha256);
        // Windows lie around them.
        let windows = matches!(corpus.selection, Selection::Windows(_));
        let checkpoints = windows.then(|| checkpoints(run).remove(corpus.name.as_str()));
        corpora.push((
            settings,
            corpus.data.weights(),
            source,
            files,
            list,
            checkpoints,
        ));
    }
    // Exposures are those of the probes' tokens.
    let exposures = run.corpora.iter().any(|corpus| corpus.exposures);
    let probe = exposures.then_some((run.probe.k, run.probe.l, run.probe.offset));
    fingerprint::of_values(&(POSITIONS.version, corpora, probe))
}

/// The fingerprint of everything that decides `exposures_by_step`.
///
/// # Errors
///
/// When a setting has no JSON form.
pub(super) fn of_exposures(run: &Run, inputs: &Inputs) -> Result<String> {
    let analysis = &run.analysis;
    let positions = of_positions(run, inputs)?;
    let checkpoints = checkpoints(run);
    fingerprint::of_values(&(EXPOSURES_BY_STEP.version, positions, checkpoints, analysis))
}

/// Those of the models that were trained on each corpus.
fn checkpoints(run: &Run) -> BTreeMap<&str, Vec<u32>> {
    let mut checkpoints: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for model in &run.models {
        let steps = model.checkpoints.iter().map(|checkpoint| checkpoint.steps);
        checkpoints.entry(&model.corpus).or_default().extend(steps);
    }
    checkpoints
}

/// The number of rows of a table that is there already, where `footer` is its own.
///
/// # Errors
///
/// When positions of another run lie there, and verdicts on them, or a table of another program.
pub(super) fn rows(run: &Run, table: &Table, footer: &Footer) -> Result<Option<u64>> {
    let path = run.out.join(table.path);
    Mark::Table(table.name).check(&path)?;
    // A damaged table is written anew.
    if !matches!(verify(&path), Ok(true)) {
        return Ok(None);
    }
    let Ok((found, n_rows)) = read_metadata(&path) else {
        return Ok(None);
    };
    if found.contains_key(KEY) && found.get(KEY) == footer.0.get(KEY) {
        let same = footer
            .0
            .iter()
            .all(|(key, value)| found.get(key) == Some(value));
        return Ok(same.then_some(n_rows));
    }
    if table.name == POSITIONS.name && !parts(&verdicts_folder(&run.out)).is_empty() {
        return Err(failure::failed(
            format_args!(
                "the positions `{}` were made by another run, and there are verdicts on them: other inputs or settings",
                path.display()
            ),
            "discard the old output with `--fresh`, or name another folder with `--out`",
        ));
    }
    Ok(None)
}

fn remove(settings: &mut Value, keys: &[&str]) {
    if let Some(settings) = settings.as_object_mut() {
        settings.retain(|key, _| !keys.contains(&key.as_str()));
    }
}
