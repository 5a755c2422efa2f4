//! `run.json`: everything the tables depend on, and how the run went.

use crate::config::{Run, Source};
use crate::description::Description;
use crate::files;
use crate::fingerprint::FileFingerprint;
use crate::inputs::Inputs;
use crate::judges::Recheck;
use crate::mark::Mark;
use crate::tables::{Staged, VERDICTS, stage, write_atomically};
use anyhow::Result;
use gpt_neox::DeviceChoice;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// The file's name in the output folder.
pub(crate) const FILE: &str = "run.json";

/// The libraries whose version can change a number.
const LIBRARIES: [&str; 6] = [
    "burn",
    "gemm",
    "parquet",
    "polars",
    "safetensors",
    "tokenizers",
];

/// The content of `run.json`.
#[derive(Serialize)]
pub(crate) struct Manifest<'a> {
    status: Status,
    program: Program,
    /// The run file, with which the run can be done again.
    run_file: &'a Source,
    /// The same as resolved: every key, absolute paths, overrides applied.
    run: &'a Run,
    inputs: Vec<&'a FileFingerprint>,
    /// Names, lengths and hashes of the inputs, by what they are, wherever they lie.
    contents: Value,
    device: String,
    /// Products in f32 were put together on the CPU's matrix unit.
    amx: bool,
    precision: String,
    /// Rows of each table.
    rows: BTreeMap<&'static str, u64>,
    /// Verdicts that an earlier run of the same folder had left.
    verdicts_resumed: u64,
    /// Probes that were judged again in f32.
    recheck: Recheck,
    /// The fewest probes that the device decided about together, in this process.
    batch_size: Option<usize>,
    /// Wall time of each stage that ran, in seconds.
    seconds: BTreeMap<&'static str, f64>,
}

/// How far a run got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// It is running, or it was ended before it finished.
    Unfinished,
    Finished,
}

/// What was run.
#[derive(Serialize)]
struct Program {
    version: &'static str,
    /// `unknown` when built outside a git checkout; `-dirty` is added where the checkout had changes.
    git_commit: &'static str,
    burn_features: Vec<&'static str>,
    libraries: BTreeMap<String, String>,
}

impl<'a> Manifest<'a> {
    /// The manifest of a run that begins.
    pub(crate) fn new(run: &'a Run, inputs: &'a Inputs, description: &Description) -> Self {
        Self {
            status: Status::Unfinished,
            program: Program {
                version: env!("CARGO_PKG_VERSION"),
                git_commit: env!("PIPELINE_GIT_COMMIT"),
                burn_features: gpt_neox::device::burn_features(),
                libraries: library_versions(),
            },
            run_file: &run.source,
            run,
            inputs: inputs.files().collect(),
            contents: description.contents().clone(),
            device: run.device.to_string(),
            amx: run.device == DeviceChoice::Cpu && gpt_neox::device::has_amx(),
            precision: run.precision.to_string(),
            rows: BTreeMap::new(),
            verdicts_resumed: 0,
            recheck: Recheck::default(),
            batch_size: None,
            seconds: BTreeMap::new(),
        }
    }

    /// Notes the rows of a table.
    pub(crate) fn rows(&mut self, table: &'static str, n: u64) {
        self.rows.insert(table, n);
    }

    /// Notes how many verdicts were there before.
    pub(crate) fn resumed(&mut self, n: u64) {
        self.verdicts_resumed = n;
    }

    /// Notes how many probes were judged twice.
    pub(crate) fn recheck(&mut self, recheck: Recheck) {
        self.recheck = recheck;
    }

    /// Notes how many probes were decided about together.
    pub(crate) fn batch_size(&mut self, batch_size: Option<usize>) {
        self.batch_size = batch_size;
    }

    /// Notes the wall time of a stage.
    pub(crate) fn seconds(&mut self, stage: &'static str, seconds: f64) {
        self.seconds.insert(stage, seconds);
    }

    /// The text of the file.
    ///
    /// # Errors
    ///
    /// When a value has no JSON form.
    pub(crate) fn text(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    /// Writes `run.json` to the output folder where there is none: the record of an earlier run stays until this
    /// one is finished.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub(crate) fn begin(&self) -> Result<()> {
        let path = self.run.out.join(FILE);
        if path.symlink_metadata().is_ok() {
            return Ok(());
        }
        write_atomically(&path, Mark::Record, |file| {
            Ok(file.write_all(&self.text()?)?)
        })
    }

    /// Writes the record of a finished run, which waits to take its place with the tables.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub(crate) fn finish(mut self) -> Result<Staged> {
        self.status = Status::Finished;
        let path = self.run.out.join(FILE);
        let write = |file: &mut BufWriter<&mut File>| Ok(file.write_all(&self.text()?)?);
        Ok(stage(&path, Mark::Record, write)?.1)
    }
}

/// Probes decided in a second by the finished run whose `run.json` lies at `path`, where it was on the same device and in
/// the same precision as `run`.
pub(crate) fn measured_speed(path: &Path, run: &Run) -> Option<f64> {
    let manifest: serde_json::Value =
        serde_json::from_slice(&files::read(path, files::TEXT).ok()?).ok()?;
    let number = |value: &serde_json::Value| value.as_f64();
    let same = manifest["status"] == "finished"
        && manifest["device"] == run.device.to_string()
        && manifest["precision"] == run.precision.to_string();
    let resumed = number(&manifest["verdicts_resumed"])?;
    let n = number(&manifest["rows"][VERDICTS.name])? - resumed;
    let seconds = number(&manifest["seconds"]["probe"])?;
    (same && n > 0.0 && seconds > 0.0).then_some(n / seconds)
}

/// The versions in the lock file this program was built with.
fn library_versions() -> BTreeMap<String, String> {
    const LOCK: &str = include_str!("../../../Cargo.lock");
    let mut versions = BTreeMap::new();
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        let Some(name) = quoted(line, "name = ") else {
            continue;
        };
        if let (true, Some(version)) = (
            LIBRARIES.contains(&name),
            lines.next().and_then(|line| quoted(line, "version = ")),
        ) {
            versions.insert(name.to_owned(), version.to_owned());
        }
    }
    versions
}

fn quoted<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    line.strip_prefix(key)?.strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_library_has_a_version() {
        assert_eq!(library_versions().len(), LIBRARIES.len());
    }
}
