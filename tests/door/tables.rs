//! The table `memorization`, spoilt by another program: refused with file, row and cure.

use super::refused;
use crate::analysis::{metadata, write};
use crate::program::{RunFile, pipeline, succeed, table, u32s};
use polars::prelude::{
    Column, DataFrame, DataType, IntoColumn, IntoLazy, NamedFrom, Series, col, lit,
};
use std::fs;
use std::path::Path;

/// A finished run, its table and the metadata of it.
fn finished(folder: &Path) -> (DataFrame, Vec<(String, String)>) {
    let path = RunFile {
        steps: 20,
        numbers: vec![10, 20],
        ..RunFile::default()
    }
    .write(folder);
    succeed(folder, &["run", path.to_str().unwrap()]);
    let file = folder.join("out/memorization.parquet");
    (
        table(&folder.join("out"), "memorization.parquet"),
        metadata(&file),
    )
}

#[test]
fn a_table_that_contradicts_itself_is_refused_by_row() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, metadata) = finished(folder.path());
    let path = folder.path().join("memorization.parquet");
    write(&path, whole.clone(), metadata.clone());
    succeed(folder.path(), &["analyse", "memorization.parquet"]);
    // Row 7 is of step 0 at checkpoint 10.
    let u32 = |name: &str, value: u32| -> Column {
        let mut values = u32s(&whole, name);
        values[7] = value;
        Series::new(name.into(), values).into_column()
    };
    let flag = |name: &str, value: Option<bool>| -> Column {
        let values = whole.column(name).unwrap().bool().unwrap().iter();
        let mut values: Vec<Option<bool>> = values.collect();
        values[7] = value;
        Series::new(name.into(), values).into_column()
    };
    let real = |name: &str, value: f32| -> Column {
        let values = (0..whole.height()).map(|row| (row == 7).then_some(value));
        Series::new(name.into(), values.collect::<Vec<_>>()).into_column()
    };
    let lag = {
        let values = whole.column("lag").unwrap().i32().unwrap().iter();
        let mut values: Vec<Option<i32>> = values.collect();
        values[7] = Some(3);
        Series::new("lag".into(), values).into_column()
    };
    let matched = {
        let values = whole.column("n_prefix_matched").unwrap().u16().unwrap();
        let mut values: Vec<Option<u16>> = values.iter().collect();
        values[7] = Some(33);
        Series::new("n_prefix_matched".into(), values).into_column()
    };
    let is = whole.column("memorized").unwrap().bool().unwrap().get(7);
    let cases = [
        (
            u32("step", 1),
            "`step` is 1 at the training index 7, in batches of 8",
        ),
        (
            u32("training_index", 8),
            "`step` is 0 at the training index 8",
        ),
        (
            flag("seen", Some(false)),
            "`seen` is false at step 0 and checkpoint 10",
        ),
        (flag("seen", None), "one of `seen` and `lag` is null"),
        (lag, "`lag` is 3 at step 0 and checkpoint 10"),
        (
            flag("trained", Some(false)),
            "`trained` is false at step 0 of 20 steps",
        ),
        (flag("memorized", is.map(|is| !is)), "`memorized` is "),
        (matched, "`n_prefix_matched` is 33"),
        (real("surprisal", f32::NAN), "`surprisal` is NaN"),
        (real("surprisal", -1.0), "`surprisal` is -1"),
        (real("logp_suffix", 1.0), "`logp_suffix` is 1"),
        (
            real("learning_rate", f32::INFINITY),
            "`learning_rate` is inf",
        ),
        (flag("contrast", None), "`contrast` is null"),
    ];
    for (column, says) in cases {
        let mut frame = whole.clone();
        frame.with_column(column).unwrap();
        write(&path, frame, metadata.clone());
        let outcome = pipeline(folder.path(), &["analyse", "memorization.parquet"]);
        refused(
            &outcome,
            &["memorization.parquet", "row 7 (counted from 0)", says],
        );
    }
}

#[test]
fn steps_ascend_in_tables_of_older_versions_too() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, metadata) = finished(folder.path());
    let path = folder.path().join("memorization.parquet");
    // Without the batch size, as tables of older versions are, steps must still ascend.
    let older: Vec<(String, String)> = metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.replace(",\"batch_size\":8", "")))
        .collect();
    assert!(older != metadata);
    write(&path, whole.clone(), older.clone());
    succeed(folder.path(), &["analyse", "memorization.parquet"]);
    let mut frame = whole.clone();
    let mut steps = u32s(&whole, "step");
    steps.swap(7, 8);
    let steps: Column = Series::new("step".into(), steps).into_column();
    frame.with_column(steps).unwrap();
    let fixed = frame
        .lazy()
        .with_columns([
            (col("checkpoint").cast(DataType::Int64) - col("step"))
                .cast(DataType::Int32)
                .alias("lag"),
            col("step").lt(col("checkpoint")).alias("seen"),
            col("step").lt(lit(20)).alias("trained"),
        ])
        .collect()
        .unwrap();
    write(&path, fixed, older);
    let outcome = pipeline(folder.path(), &["analyse", "memorization.parquet"]);
    refused(
        &outcome,
        &["memorization.parquet", "row 8", "stands behind step 1"],
    );
}

#[test]
fn metadata_is_held_to_the_limits_of_a_run_file() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, metadata) = finished(folder.path());
    let path = folder.path().join("memorization.parquet");
    let analysis = |of: &str, to: &str| {
        let text = &metadata
            .iter()
            .find(|(key, _)| key == "analysis")
            .unwrap()
            .1;
        assert!(text.contains(of), "{text}");
        text.replace(of, to)
    };
    let bins = "\"time\":{\"bins\":12}";
    let cases = [
        (
            "analysis",
            analysis(bins, "\"time\":{\"bins\":0}"),
            "0 is not in 1",
        ),
        (
            "analysis",
            analysis(bins, "\"time\":{\"steps\":0}"),
            "0 is not in 1",
        ),
        (
            "analysis",
            analysis(":999", ":4000000000"),
            "trend.permutations: 4000000000",
        ),
        (
            "analysis",
            analysis("[1,5]", "[4294967295]"),
            "trend.exposures: 4294967295",
        ),
        ("analysis", String::new(), "cannot be read: EOF"),
        ("corpora", "{".to_owned(), "cannot be read: EOF"),
        (
            "corpora",
            "{\"standard\":{\"steps\":20,\"seed\":1,\"batch_size\":0}}".to_owned(),
            "`batch_size` of `standard` is 0",
        ),
        (
            "corpora",
            "{}".to_owned(),
            "`corpus` is `standard`, which the metadata does not know",
        ),
        ("l", "0".to_owned(), "is `0`, not a whole number"),
        ("k", "70000".to_owned(), "is `70000`, not a whole number"),
    ];
    for (key, value, says) in cases {
        let mut changed = metadata.clone();
        changed
            .iter_mut()
            .find(|(found, _)| found == key)
            .unwrap()
            .1 = value;
        write(&path, whole.clone(), changed);
        let outcome = pipeline(folder.path(), &["analyse", "."]);
        refused(&outcome, &["memorization.parquet", says]);
    }
    // As pandas writes a table anew.
    write(&path, whole, Vec::new());
    let outcome = pipeline(folder.path(), &["analyse", "."]);
    refused(
        &outcome,
        &["is not a table `memorization`", "its metadata is gone"],
    );
    let missing: Vec<_> = metadata.into_iter().filter(|(key, _)| key != "l").collect();
    write(
        &path,
        table(&folder.path().join("out"), "memorization.parquet"),
        missing,
    );
    let outcome = pipeline(folder.path(), &["analyse", "."]);
    refused(
        &outcome,
        &[
            "memorization.parquet",
            "the entry `l` of its metadata is missing",
        ],
    );
}

#[test]
fn a_dataset_holds_its_own_files_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile {
        steps: 20,
        numbers: vec![10, 20],
        ..RunFile::default()
    }
    .write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("layout = \"dataset\"\n{text}")).unwrap();
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let dataset = folder.path().join("out/memorization");
    let part = dataset.join("model=mini/checkpoint=10/part-standard.parquet");
    succeed(folder.path(), &["analyse", "out"]);
    succeed(folder.path(), &["analyse", "out/memorization"]);
    // What other programs hide or mark is no table.
    fs::write(dataset.join("_SUCCESS"), "").unwrap();
    fs::write(dataset.join(".hidden.parquet"), "").unwrap();
    succeed(folder.path(), &["analyse", "out"]);
    let strangers = [
        ("extra.parquet", "is not a part"),
        ("model=mini/extra.parquet", "is not a part"),
        ("model=mini/checkpoint=10/extra.parquet", "is not a part"),
        (
            "model=mini/checkpoint=10/part-other.parquet",
            "is not a table",
        ),
    ];
    let positions = folder.path().join("out/positions.parquet");
    for (stranger, says) in strangers {
        fs::copy(&positions, dataset.join(stranger)).unwrap();
        let outcome = pipeline(folder.path(), &["analyse", "out"]);
        refused(&outcome, &[stranger, says]);
        fs::remove_file(dataset.join(stranger)).unwrap();
    }
    fs::copy(&part, folder.path().join("out/memorization.parquet")).unwrap();
    let outcome = pipeline(folder.path(), &["analyse", "out"]);
    refused(&outcome, &["there are both", "memorization.parquet"]);
}
