//! Runs that stop, go on, and differ; with the scripted judge, whose verdicts can be foretold.

use crate::program::{RunFile, manifest, mini, pipeline, succeed, table, tables, u16s, u32s};
use std::fs;
use std::path::Path;
use training_order::npy::Array;

#[test]
fn the_scripted_judge_sees_the_probes_of_the_run_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile {
        k: 20,
        l: 10,
        offset: 5,
        ..RunFile::default()
    }
    .write(folder.path());
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let memorization = table(&folder.path().join("out"), "memorization.parquet");
    let tokens = Array::open(&mini().join("reference/standard_tokens64.npy")).unwrap();
    let matched = u16s(&memorization, "n_prefix_matched");
    let index = u32s(&memorization, "training_index");
    let checkpoint = u32s(&memorization, "checkpoint");
    assert_eq!(matched.len(), 2 * 19_200);
    for row in 0..matched.len() {
        let first = u64::from(index[row]) * 64 + 5;
        let sum: i64 = (first..first + 30)
            .map(|place| tokens.get(place).unwrap())
            .sum();
        assert_eq!(
            i64::from(matched[row]),
            (sum + i64::from(checkpoint[row])) % 11,
            "row {row}"
        );
    }
}

#[test]
fn a_run_goes_on_where_one_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(folder.path());
    let run = || succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let out = folder.path().join("out");
    run();
    let whole = tables(&out);
    assert_eq!(whole.len(), 9 + 2 * 4);
    assert_eq!(manifest(&out)["verdicts_resumed"], 0);

    fs::remove_file(out.join("verdicts/model=mini/checkpoint=600/part-standard-00001.parquet"))
        .unwrap();
    fs::remove_file(out.join("memorization.parquet")).unwrap();
    run();
    assert!(tables(&out) == whole);
    assert_eq!(manifest(&out)["verdicts_resumed"], 2 * 19_200 - 5000);

    run();
    assert!(tables(&out) == whole);
    assert_eq!(manifest(&out)["verdicts_resumed"], 2 * 19_200);
}

#[test]
fn the_stages_one_by_one_write_the_same() {
    let whole = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(whole.path());
    succeed(whole.path(), &["run", path.to_str().unwrap()]);
    let staged = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(staged.path());
    let only = |stage| {
        pipeline(
            staged.path(),
            &["run", path.to_str().unwrap(), "--only", stage],
        )
    };
    // A stage without its input says which stage makes it.
    let early = only("join");
    assert_eq!(early.code, 1);
    assert!(
        early.stderr.contains("run the stage `plan` first"),
        "{}",
        early.stderr
    );
    for stage in ["plan", "probe", "join", "analyse"] {
        assert_eq!(only(stage).code, 0);
    }
    assert!(tables(&whole.path().join("out")) == tables(&staged.path().join("out")));
}

#[test]
fn verdicts_of_another_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = |file: &RunFile, flags: &[&str]| {
        let path = file.write(folder.path());
        pipeline(
            folder.path(),
            &[&["run", path.to_str().unwrap()], flags].concat(),
        )
    };
    assert_eq!(run(&RunFile::default(), &[]).code, 0);
    let before = tables(&folder.path().join("out/verdicts"));
    let other = RunFile {
        k: 16,
        ..RunFile::default()
    };
    let refused = run(&other, &[]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("was made by another run"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stderr.contains("hint: ") && refused.stderr.contains("`--fresh`"),
        "{}",
        refused.stderr
    );
    assert!(tables(&folder.path().join("out/verdicts")) == before);
    assert_eq!(run(&other, &["--fresh"]).code, 0);
    assert_eq!(
        footer(&folder.path().join("out/memorization.parquet"), "k"),
        "16"
    );
}

/// An entry of a parquet file's metadata.
pub(crate) fn footer(path: &Path, key: &str) -> String {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let entries = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap();
    entries
        .iter()
        .find(|entry| entry.key == key)
        .unwrap()
        .value
        .clone()
        .unwrap()
}
