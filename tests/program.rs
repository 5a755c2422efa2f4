//! Runs the executable, and reads what it leaves.

use polars::prelude::{ChunkedArray, DataFrame, PolarsNumericType, SortMultipleOptions};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of the executable gave.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The miniature suite.
pub(crate) fn mini() -> PathBuf {
    root().join("data/mini")
}

/// Runs `pipeline` with `arguments` in `folder`.
pub(crate) fn pipeline(folder: &Path, arguments: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
        .args(arguments)
        .current_dir(folder)
        .env("HF_HUB_CACHE", folder.join("hub"))
        .output()
        .unwrap();
    let outcome = Outcome {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    for panic in ["panicked", "this program has a mistake"] {
        assert!(!outcome.stderr.contains(panic), "{}", outcome.stderr);
    }
    outcome
}

/// Runs it and expects success.
pub(crate) fn succeed(folder: &Path, arguments: &[&str]) -> Outcome {
    let outcome = pipeline(folder, arguments);
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.stderr);
    outcome
}

/// A run file on the miniature suite's standard corpus, with the keys that tests vary.
#[derive(Clone, Debug)]
pub(crate) struct RunFile {
    pub(crate) judge: &'static str,
    pub(crate) precision: &'static str,
    /// Further lines of `[probe]`.
    pub(crate) probe: &'static str,
    pub(crate) k: u32,
    pub(crate) l: u32,
    pub(crate) offset: u32,
    pub(crate) part_size: u32,
    pub(crate) steps: u32,
    pub(crate) data: PathBuf,
    pub(crate) checkpoints: PathBuf,
    pub(crate) numbers: Vec<u32>,
    pub(crate) device: &'static str,
    /// `file`, `dataset`, or nothing for the program's choice.
    pub(crate) layout: &'static str,
    pub(crate) bins: u32,
    pub(crate) seed: u32,
}

impl Default for RunFile {
    fn default() -> Self {
        Self {
            judge: "scripted",
            precision: "f32",
            probe: "",
            k: 32,
            l: 32,
            offset: 0,
            part_size: 5000,
            steps: 2400,
            data: mini().join("standard/document"),
            checkpoints: mini().join("standard/model"),
            numbers: vec![600, 2400],
            device: "cpu",
            layout: "",
            bins: 12,
            seed: 1234,
        }
    }
}

impl RunFile {
    /// Writes it to `folder/run.toml`; its output folder is `folder/out`.
    pub(crate) fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("run.toml");
        fs::write(&path, self.text()).unwrap();
        path
    }

    /// The run file as TOML.
    pub(crate) fn text(&self) -> String {
        let Self {
            judge,
            precision,
            probe,
            k,
            l,
            offset,
            part_size,
            steps,
            data,
            checkpoints,
            numbers,
            device,
            layout,
            bins,
            seed,
        } = self;
        let layout = match *layout {
            "" => String::new(),
            layout => format!("layout = \"{layout}\"\n"),
        };
        format!(
            r#"
suite = "test"
out = "out"
device = "{device}"
precision = "{precision}"
{layout}
[probe]
k = {k}
l = {l}
offset = {offset}
judge = "{judge}"
part-size = {part_size}
{probe}
[memorization-by-time]
bins = {bins}

[[corpus]]
name = "standard"
data = '{}'
sequence-length = 128
batch-size = 8
steps = {steps}
seed = {seed}

[[model]]
name = "mini"
corpus = "standard"
folder = '{}/step{{checkpoint}}'
checkpoints = {numbers:?}
"#,
            data.display(),
            checkpoints.display(),
        )
    }
}

/// A file's bytes, each time with another bit flipped: `n` of them, spread over the whole.
pub(crate) fn with_a_bit_flipped(bytes: &[u8], n: usize) -> impl Iterator<Item = Vec<u8>> {
    (0..n).map(move |flip| {
        let mut flipped = bytes.to_vec();
        flipped[flip * (bytes.len() - 1) / (n - 1)] ^= 1 << (flip * 5 % 8);
        flipped
    })
}

/// A table of the output folder.
pub(crate) fn table(out: &Path, name: &str) -> DataFrame {
    let file = File::open(out.join(name)).unwrap();
    ParquetReader::new(file).finish().unwrap()
}

/// The rows of `frame` in the order of these columns.
pub(crate) fn sorted(frame: &DataFrame, by: &[&str]) -> DataFrame {
    frame
        .sort(by.iter().copied(), SortMultipleOptions::default())
        .unwrap()
}

/// The numbers of a column.
pub(crate) fn numbers<T: PolarsNumericType>(column: &ChunkedArray<T>) -> Vec<T::Native> {
    assert_eq!(column.null_count(), 0);
    column.into_no_null_iter().collect()
}

/// A whole column of u32.
pub(crate) fn u32s(frame: &DataFrame, name: &str) -> Vec<u32> {
    numbers(frame.column(name).unwrap().u32().unwrap())
}

/// A whole column of u16.
pub(crate) fn u16s(frame: &DataFrame, name: &str) -> Vec<u16> {
    numbers(frame.column(name).unwrap().u16().unwrap())
}

/// A whole column of bool.
pub(crate) fn flags(frame: &DataFrame, name: &str) -> Vec<bool> {
    frame
        .column(name)
        .unwrap()
        .bool()
        .unwrap()
        .iter()
        .map(Option::unwrap)
        .collect()
}

/// The bytes of every parquet file below `out`, by its path there.
pub(crate) fn tables(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "parquet") {
                found.insert(
                    path.strip_prefix(out).unwrap().to_owned(),
                    fs::read(&path).unwrap(),
                );
            }
        }
    }
    found
}

/// `run.json` of the output folder.
pub(crate) fn manifest(out: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(out.join("run.json")).unwrap()).unwrap()
}
