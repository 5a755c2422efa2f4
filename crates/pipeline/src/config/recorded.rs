//! `run.json` as a run file: what it keeps of the file it was made from.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The run file that `run.json` was made from.
pub(super) struct Recorded {
    pub(super) text: String,
    /// The folder that its paths are relative to.
    pub(super) folder: PathBuf,
    /// The SHA-256 of every input, as it was.
    pub(super) inputs: BTreeMap<PathBuf, String>,
}

/// What is read of `run.json`.
#[derive(Deserialize)]
struct Manifest {
    run_file: RunFile,
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct RunFile {
    folder: PathBuf,
    keys: toml::Table,
}

#[derive(Deserialize)]
struct Input {
    path: PathBuf,
    sha256: String,
}

/// Reads the text of a `run.json`.
///
/// # Errors
///
/// When it is none.
pub(super) fn read(text: &str) -> Result<Recorded, String> {
    let Manifest { run_file, inputs } = serde_json::from_str(text).map_err(|error| {
        format!("it is no `run.json` that a run of this version wrote: {error}")
    })?;
    let is_hash = |text: &str| text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit());
    if let Some(input) = inputs.iter().find(|input| !is_hash(&input.sha256)) {
        let path = input.path.display();
        return Err(format!(
            "`inputs`: `{}` is not the SHA-256 of `{path}`",
            input.sha256
        ));
    }
    let text = toml::to_string(&run_file.keys)
        .map_err(|error| format!("its keys are no run file: {error}"))?;
    Ok(Recorded {
        text,
        folder: run_file.folder,
        inputs: inputs
            .into_iter()
            .map(|input| (input.path, input.sha256))
            .collect(),
    })
}
