//! Values of other programs: what fits is taken exactly, and the rest is refused with file, row and
//! cure, by `check` as by `run`.

mod hub;
mod tables;

use crate::program::{Outcome, RunFile, mini, pipeline, succeed, table, tables, u32s};
use arrow_array::types::{Int8Type, Int32Type};
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int64Array, LargeStringArray, NullArray, RecordBatch,
    StringArray, StructArray, Time64MicrosecondArray, TimestampNanosecondArray, UInt8Array,
    UInt16Array, UInt32Array,
};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Sequences of the run, in batches of 8.
const N: i64 = 160;

fn run_file(folder: &Path, corpus: &str, model: &str) -> PathBuf {
    let path = RunFile {
        steps: 20,
        numbers: vec![20],
        ..RunFile::default()
    }
    .write(folder);
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen("seed = 1234\n", &format!("seed = 1234\n{corpus}"), 1);
    let at = text.find("folder = ").unwrap();
    let end = at + text[at..].find('\n').unwrap();
    let model = if model.is_empty() {
        &text[at..end]
    } else {
        model
    };
    fs::write(&path, format!("{}{model}{}", &text[..at], &text[end..])).unwrap();
    path
}

/// The columns of verdicts on every sequence, at every second step's all right.
fn columns() -> Vec<(&'static str, ArrayRef)> {
    let rows = 0..N;
    let matched: Vec<i64> = rows.clone().map(|row| 32 * (row % 2)).collect();
    let memorized: Vec<bool> = rows.clone().map(|row| row % 2 == 1).collect();
    let margin: Vec<f64> = rows
        .clone()
        .map(|row| if row % 2 == 1 { 0.5 } else { -0.5 })
        .collect();
    let n = rows.clone().count();
    vec![
        ("corpus", Arc::new(StringArray::from(vec!["standard"; n]))),
        ("checkpoint", Arc::new(Int64Array::from(vec![20; n]))),
        (
            "training_index",
            Arc::new(Int64Array::from_iter_values(rows)),
        ),
        (
            "n_prefix_matched",
            Arc::new(Int64Array::from(matched.clone())),
        ),
        ("memorized", Arc::new(BooleanArray::from(memorized))),
        ("margin", Arc::new(Float64Array::from(margin))),
        ("near_tie", Arc::new(BooleanArray::from(vec![false; n]))),
        ("n_matched", Arc::new(Int64Array::from(matched))),
        ("surprisal", Arc::new(Float64Array::from(vec![0.25; n]))),
        ("logp_suffix", Arc::new(Float64Array::from(vec![-8.0; n]))),
        ("n_top1", Arc::new(Int64Array::from(vec![32; n]))),
    ]
}

fn with(name: &'static str, array: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    let mut all = columns();
    match all.iter_mut().find(|(found, _)| *found == name) {
        Some((_, found)) => *found = array,
        None => all.push((name, array)),
    }
    all
}

fn save(path: &Path, columns: Vec<(&'static str, ArrayRef)>) {
    let fields = columns
        .iter()
        .map(|(name, array)| Field::new(*name, array.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn refused(outcome: &Outcome, texts: &[&str]) {
    assert!([1, 2].contains(&outcome.code), "{outcome:?}");
    for text in texts.iter().chain(&["error: ", "hint: "]) {
        assert!(
            outcome.stderr.contains(text),
            "no `{text}` in {}",
            outcome.stderr
        );
    }
}

/// Numbers, with another one in row 7.
fn numbers(of: impl Fn(i64) -> i64, other: Option<i64>) -> ArrayRef {
    let number = |row| if row == 7 { other } else { Some(of(row)) };
    Arc::new((0..N).map(number).collect::<Int64Array>())
}

fn reals(value: f64, other: f64) -> ArrayRef {
    let number = |row| if row == 7 { other } else { value };
    Arc::new(Float64Array::from_iter_values((0..N).map(number)))
}

fn matched(row: i64) -> i64 {
    32 * (row % 2)
}

#[test]
fn foreign_verdicts_that_contradict_themselves_are_refused_by_check_and_run() {
    let text = |other: Option<&'static str>| -> ArrayRef {
        let name = |row| if row == 7 { other } else { Some("standard") };
        Arc::new((0..N).map(name).collect::<StringArray>())
    };
    let flags = |other: Option<bool>| -> ArrayRef {
        let flag = |row| if row == 7 { other } else { Some(row % 2 == 1) };
        Arc::new((0..N).map(flag).collect::<BooleanArray>())
    };
    let row = |row| row;
    let same = |value: i64| move |_| value;
    // Row 7 is memorized.
    let cases: Vec<(&str, ArrayRef, &str)> = vec![
        ("corpus", text(None), "`corpus` is null"),
        ("corpus", text(Some("standrad")), "`corpus` is `standrad`"),
        (
            "checkpoint",
            numbers(same(20), None),
            "`checkpoint` is null",
        ),
        (
            "checkpoint",
            numbers(same(20), Some(-1)),
            "`checkpoint` is -1",
        ),
        (
            "training_index",
            numbers(row, None),
            "`training_index` is null",
        ),
        ("training_index", numbers(row, Some(1 << 32)), "4294967296"),
        (
            "training_index",
            numbers(row, Some(6)),
            "stands there twice",
        ),
        ("training_index", numbers(row, Some(160)), "is not among"),
        (
            "n_prefix_matched",
            numbers(matched, Some(33)),
            "is 33 where",
        ),
        ("n_prefix_matched", numbers(matched, Some(-1)), "is -1"),
        (
            "n_prefix_matched",
            numbers(matched, Some(65_568)),
            "is 65568",
        ),
        (
            "n_prefix_matched",
            numbers(matched, Some(31)),
            "`memorized` is true",
        ),
        ("memorized", flags(Some(false)), "`memorized` is false"),
        ("memorized", numbers(|row| row % 2, Some(2)), "is 2, which"),
        ("margin", reals(0.0, f64::NAN), "`margin` is NaN"),
        ("margin", reals(0.0, -0.5), "`margin` is -0.5, but no token"),
        ("near_tie", numbers(same(0), Some(3)), "`near_tie` is 3"),
        ("n_matched", numbers(matched, Some(33)), "`n_matched` is 33"),
        ("n_matched", numbers(matched, Some(5)), "`n_matched` is 5"),
        ("n_top1", numbers(same(32), Some(33)), "`n_top1` is 33"),
        (
            "surprisal",
            reals(0.25, f64::INFINITY),
            "`surprisal` is inf",
        ),
        ("surprisal", reals(0.25, -0.25), "`surprisal` is -0.25"),
        ("surprisal", reals(0.25, 0.5), "`logp_suffix` -8"),
        ("logp_suffix", reals(-8.0, 8.0), "`logp_suffix` is 8"),
        ("logp_suffix", reals(-8.0, f64::NAN), "`logp_suffix` is NaN"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = run_file(folder.path(), "", "verdicts = 'v.parquet'");
    for (name, array, says) in cases {
        save(&folder.path().join("v.parquet"), with(name, array));
        for command in ["check", "run"] {
            let outcome = pipeline(folder.path(), &[command, path.to_str().unwrap()]);
            refused(&outcome, &["v.parquet", "row 7 (counted from 0)", says]);
        }
    }
    assert!(tables(&folder.path().join("out")).is_empty());
}

#[test]
fn foreign_verdicts_of_unfit_types_are_refused_by_check_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = run_file(folder.path(), "", "verdicts = 'v.parquet'");
    let of_types: Vec<(&str, ArrayRef, &str)> = vec![
        (
            "checkpoint",
            Arc::new(StringArray::from(vec!["step20"; 160])),
            "`checkpoint` holds text",
        ),
        (
            "n_prefix_matched",
            Arc::new(Decimal128Array::from(vec![0; 160])),
            "`n_prefix_matched` holds decimals",
        ),
        (
            "surprisal",
            Arc::new(TimestampNanosecondArray::from(vec![0; 160])),
            "`surprisal` holds times",
        ),
    ];
    for (name, array, says) in of_types {
        save(&folder.path().join("v.parquet"), with(name, array));
        for command in ["check", "run"] {
            let outcome = pipeline(folder.path(), &[command, path.to_str().unwrap()]);
            refused(&outcome, &["v.parquet", says]);
        }
    }
}

#[test]
fn foreign_verdicts_of_every_exact_type_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = run_file(folder.path(), "", "verdicts = 'v.parquet'");
    let joined = || {
        let checked = succeed(folder.path(), &["check", path.to_str().unwrap()]);
        assert!(checked.stdout.contains("nothing wrong"), "{checked:?}");
        assert!(!checked.stderr.contains("warning"), "{checked:?}");
        succeed(folder.path(), &["run", path.to_str().unwrap(), "--fresh"]);
        table(&folder.path().join("out"), "memorization.parquet")
    };
    save(&folder.path().join("v.parquet"), columns());
    let expected = joined();
    assert_eq!(expected.height(), 160);
    let category: DictionaryArray<Int32Type> = vec!["standard"; 160].into_iter().collect();
    let bytes: DictionaryArray<Int8Type> = DictionaryArray::new(
        (0..160_u8)
            .map(|row| Some(i8::from(row % 2 == 1)))
            .collect::<Int8Array>(),
        Arc::new(UInt8Array::from(vec![0, 32])),
    );
    let narrow = |n: i64| u8::try_from(n).unwrap();
    let inner = Arc::new(Field::new("training_index", DataType::Int64, true));
    let nested = StructArray::from(vec![(inner, numbers(|_| 5, Some(5)))]);
    let cases: Vec<(&'static str, ArrayRef)> = vec![
        ("corpus", Arc::new(category)),
        (
            "corpus",
            Arc::new(LargeStringArray::from(vec!["standard"; 160])),
        ),
        ("checkpoint", Arc::new(Int8Array::from(vec![20; 160]))),
        ("checkpoint", Arc::new(UInt16Array::from(vec![20; 160]))),
        ("checkpoint", Arc::new(Float64Array::from(vec![20.0; 160]))),
        (
            "training_index",
            Arc::new(UInt8Array::from_iter_values((0..N).map(narrow))),
        ),
        (
            "training_index",
            Arc::new(Int16Array::from_iter_values(0..160)),
        ),
        ("n_prefix_matched", Arc::new(bytes)),
        (
            "n_prefix_matched",
            Arc::new(Float32Array::from_iter_values(
                (0..160_u8).map(|row| 32.0 * f32::from(row % 2)),
            )),
        ),
        (
            "memorized",
            Arc::new(UInt8Array::from_iter_values((0..160).map(|row| row % 2))),
        ),
        // Columns that nobody asks for.
        ("when", Arc::new(Time64MicrosecondArray::from(vec![1; 160]))),
        ("day", Arc::new(Date32Array::from(vec![1; 160]))),
        ("much", Arc::new(Decimal128Array::from(vec![1; 160]))),
        ("nested", Arc::new(nested)),
        ("nothing", Arc::new(NullArray::new(160))),
    ];
    for (name, array) in cases {
        let kind = array.data_type().clone();
        save(&folder.path().join("v.parquet"), with(name, array));
        assert!(joined().equals_missing(&expected), "{name} as {kind}");
    }
}

#[test]
fn rows_and_probes_that_are_left_out_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = run_file(folder.path(), "", "verdicts = 'v.parquet'");
    let rows: Vec<i64> = (0..120).collect();
    let checkpoints: Vec<i64> = rows.iter().map(|row| 20 + row / 100 * (row % 5)).collect();
    save(
        &folder.path().join("v.parquet"),
        vec![
            ("checkpoint", Arc::new(Int64Array::from(checkpoints))),
            ("training_index", Arc::new(Int64Array::from(rows))),
            (
                "n_prefix_matched",
                Arc::new(UInt32Array::from(vec![3; 120])),
            ),
        ],
    );
    // Of the last 20 rows 16 are of the checkpoints 21 to 24.
    for command in ["check", "run"] {
        let outcome = succeed(folder.path(), &[command, path.to_str().unwrap()]);
        for text in [
            "has no verdict on 56 of 160 probes of `standard` for `mini` at checkpoint 20",
            "16 rows of 4 checkpoints that the run file does not name for `mini` are left out",
        ] {
            assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
        }
    }
    let memorization = table(&folder.path().join("out"), "memorization.parquet");
    assert_eq!(memorization.height(), 104);
}

#[test]
fn lists_are_read_through_the_same_door() {
    let folder = tempfile::tempdir().unwrap();
    let planned = |name: &str| {
        let list = format!("[corpus.list]\nfile = '{name}'\n");
        let path = run_file(folder.path(), &list, "");
        let outcome = pipeline(folder.path(), &["run", path.to_str().unwrap(), "--fresh"]);
        let checked = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
        assert_eq!(outcome.code, checked.code, "{outcome:?} {checked:?}");
        (outcome.code == 0).then(|| {
            let positions = table(&folder.path().join("out"), "positions.parquet");
            u32s(&positions, "training_index")
        })
    };
    let csv = |text: &str| {
        fs::write(folder.path().join("l.csv"), text).unwrap();
        planned("l.csv")
    };
    let five_and_nine = Some(vec![5, 9]);
    assert_eq!(
        csv("text,training_index\n\"a, 3\",5\n\"b, 4\",9\n"),
        five_and_nine
    );
    assert_eq!(
        csv("\u{feff}training_index,t\r\n5,\"x\r\ny\"\r\n9,\"\"\"\"\r\n"),
        five_and_nine
    );
    assert_eq!(csv("training_index,training_index\n5,6\n9,10\n"), None);
    assert_eq!(csv("training_index,text\n5,a, b\n9,c\n"), None);
    let parquet = |array: ArrayRef| {
        let times = Arc::new(TimestampNanosecondArray::from(vec![0; array.len()]));
        let columns = vec![("t", times as ArrayRef), ("training_index", array)];
        save(&folder.path().join("l.parquet"), columns);
        planned("l.parquet")
    };
    assert_eq!(
        parquet(Arc::new(UInt8Array::from(vec![5, 9]))),
        five_and_nine
    );
    assert_eq!(
        parquet(Arc::new(Int16Array::from(vec![5, 9]))),
        five_and_nine
    );
    assert_eq!(
        parquet(Arc::new(Float64Array::from(vec![5.0, 9.0]))),
        five_and_nine
    );
    let dictionary: DictionaryArray<Int8Type> = DictionaryArray::new(
        Int8Array::from(vec![1, 0]),
        Arc::new(UInt16Array::from(vec![9, 5])),
    );
    assert_eq!(parquet(Arc::new(dictionary)), five_and_nine);
    assert_eq!(parquet(Arc::new(Float64Array::from(vec![5.0, 9.5]))), None);
    assert_eq!(parquet(Arc::new(StringArray::from(vec!["5", "9"]))), None);
    assert_eq!(
        parquet(Arc::new(Int64Array::from(vec![Some(5), None]))),
        None
    );
}

#[test]
fn only_regular_files_are_opened_and_impostors_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let make_pipe = |name: &str| {
        let path = folder.path().join(name);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    make_pipe("p.parquet");
    make_pipe("p.csv");
    make_pipe("p.json");
    symlink("/dev/zero", folder.path().join("z.json")).unwrap();
    fs::write(folder.path().join("e.parquet"), "Entry not found").unwrap();
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    fs::write(folder.path().join("g.parquet"), lfs).unwrap();
    fs::write(folder.path().join("c.parquet"), "a,b\n1,2\n").unwrap();
    let whole = fs::read_to_string(mini().join("tokenizer.json")).unwrap();
    let cut = &whole[..whole.find("\"decoder\"").unwrap() + 30];
    fs::write(folder.path().join("t.json"), cut).unwrap();
    let list = |name: &str| (format!("[corpus.list]\nfile = '{name}'\n"), String::new());
    let verdicts = |name: &str| (String::new(), format!("verdicts = '{name}'"));
    let tokenizer = |name: &str| (format!("tokenizer = '{name}'\n"), String::new());
    let cases = [
        (list("p.parquet"), "p.parquet", "is a pipe"),
        (list("p.csv"), "p.csv", "is a pipe"),
        (verdicts("p.parquet"), "p.parquet", "is a pipe"),
        (tokenizer("p.json"), "p.json", "is a pipe"),
        (tokenizer("z.json"), "z.json", "is a device"),
        (tokenizer("t.json"), "t.json", "EOF while parsing"),
        (
            verdicts("e.parquet"),
            "e.parquet",
            "error message of a server",
        ),
        (verdicts("g.parquet"), "g.parquet", "pointer of git-LFS"),
        (list("c.parquet"), "c.parquet", "is a CSV file"),
    ];
    for ((corpus, model), name, says) in cases {
        let path = run_file(folder.path(), &corpus, &model);
        let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
        refused(&outcome, &[name, says]);
    }
}

#[test]
fn the_run_file_s_analysis_is_in_its_limits() {
    let folder = tempfile::tempdir().unwrap();
    let path = run_file(folder.path(), "", "");
    let text = fs::read_to_string(&path).unwrap();
    let cases = [
        ("margins = [nan]", "trend.margins: NaN is not in 1.01 … 100"),
        (
            "margins = [1.2, inf]",
            "trend.margins: inf is not in 1.01 … 100",
        ),
        ("margins = [1.2, 1.2]", "both be the column `tost_p_1.20`"),
        (
            "exposures = [4294967295]",
            "trend.exposures: 4294967295 is not in",
        ),
        (
            "exposures = [3, 2]",
            "trend.exposures: the numbers must ascend",
        ),
        ("permutations = 4000000000", "trend.permutations"),
    ];
    for (line, says) in cases {
        fs::write(&path, format!("{text}\n[trend]\n{line}\n")).unwrap();
        let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
        assert_eq!(outcome.code, 2, "{line}");
        assert!(outcome.stderr.contains(says), "{line}: {}", outcome.stderr);
    }
}

#[test]
fn ids_beyond_the_tokenizer_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    fs::write(folder.path().join("t.json"), tokenizer).unwrap();
    let path = run_file(folder.path(), "tokenizer = 't.json'\n", "");
    let outcome = succeed(
        folder.path(),
        &["inspect", "sequence", "3", "--file", path.to_str().unwrap()],
    );
    let says = "token ids are left out of the text: the tokenizer does not know them";
    assert!(outcome.stdout.contains(says), "{}", outcome.stdout);
}
