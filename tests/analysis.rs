//! `analyse` and `join` on tables as others may hand them over.

use crate::program::{RunFile, pipeline, root, succeed, table, tables, u32s, with_a_bit_flipped};
use polars::prelude::{Column, DataFrame, IntoColumn, IntoLazy, NamedFrom, Series, col, lit};
use polars_io::parquet::write::ParquetWriter;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The tables of the stage.
const ANALYSED: [&str; 6] = [
    "memorization_by_time.parquet",
    "trend.parquet",
    "surprisal_trend.parquet",
    "corpus_contrast.parquet",
    "uniformity.parquet",
    "quantiles.parquet",
];

/// A run of the scripted judge, with a contrast of two models, exposures and surprisal.
fn run_file(folder: &Path, head: &str, tail: &str) -> PathBuf {
    let path = RunFile {
        probe: "measures = [\"likelihood\"]",
        ..RunFile::default()
    }
    .write(folder);
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen(
        "seed = 1234\n",
        "seed = 1234\nexposures = true\n[corpus.contrast]\nmodels = [\"mini\", \"other\"]\ncheckpoints = [2400]\nrows = 2\nseed = 3\n",
        1,
    );
    let data = root().join("data/mini");
    let other = format!(
        r#"
[[corpus]]
name = "deduped"
data = '{0}/deduped/document'
sequence-length = 128
batch-size = 8
steps = 2400
seed = 1234

[[model]]
name = "other"
corpus = "deduped"
folder = '{0}/deduped/model/step{{checkpoint}}'
checkpoints = [2400]
"#,
        data.display()
    );
    fs::write(&path, format!("{head}\n{text}\n{other}\n{tail}")).unwrap();
    path
}

fn analysed(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &str| (name.to_owned(), fs::read(folder.join(name)).unwrap());
    ANALYSED.map(read).into()
}

#[test]
fn memorization_alone_gives_the_same_answer_in_either_layout() {
    let folder = tempfile::tempdir().unwrap();
    let path = run_file(
        folder.path(),
        "",
        "[trend]\nmargins = [1.25]\npermutations = 99\n",
    );
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let out = folder.path().join("out");
    let whole = analysed(&out);
    let trend = table(&out, "trend.parquet");
    assert!(
        trend
            .column("tost_p_1.25")
            .unwrap()
            .f64()
            .unwrap()
            .null_count()
            < trend.height()
    );

    // Without model, corpus or run file.
    let alone = folder.path().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::copy(
        out.join("memorization.parquet"),
        alone.join("memorization.parquet"),
    )
    .unwrap();
    let outcome = succeed(folder.path(), &["analyse", alone.to_str().unwrap()]);
    assert!(
        outcome
            .stdout
            .contains("mini, standard, checkpoint 2400: late/early"),
        "{}",
        outcome.stdout
    );
    assert!(analysed(&alone) == whole);

    let again = folder.path().join("again");
    let dataset = run_file(
        &again_folder(&again),
        "layout = \"dataset\"",
        "[trend]\nmargins = [1.25]\npermutations = 99\n",
    );
    succeed(&again, &["run", dataset.to_str().unwrap()]);
    let out = again.join("out");
    assert!(!out.join("memorization.parquet").exists());
    let parts = tables(&out.join("memorization"));
    let names: Vec<String> = parts
        .keys()
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "model=mini/checkpoint=2400/part-standard.parquet",
            "model=mini/checkpoint=600/part-standard.parquet",
            "model=other/checkpoint=2400/part-deduped.parquet",
            "model=other/checkpoint=2400/part-standard.parquet",
        ]
    );
    assert!(analysed(&out) == whole);
}

fn again_folder(folder: &Path) -> PathBuf {
    fs::create_dir(folder).unwrap();
    folder.to_owned()
}

#[test]
fn rows_out_of_order_or_twice_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile {
        steps: 150,
        numbers: vec![150],
        ..RunFile::default()
    }
    .write(folder.path());
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let out = folder.path().join("out");
    let whole = table(&out, "memorization.parquet");
    let metadata = metadata(&out.join("memorization.parquet"));
    let swapped = whole.slice(600, 600).vstack(&whole.slice(0, 600)).unwrap();
    let twice = whole.slice(0, 601).vstack(&whole.slice(600, 600)).unwrap();
    for (name, frame) in [("swapped", swapped), ("twice", twice)] {
        let damaged = folder.path().join(format!("{name}.parquet"));
        write(&damaged, frame, metadata.clone());
        let outcome = pipeline(
            folder.path(),
            &["analyse", damaged.to_str().unwrap(), "--out", name],
        );
        assert_eq!(outcome.code, 1);
        for text in ["training index", "hint: ", "drop duplicates"] {
            assert!(outcome.stderr.contains(text), "{name}: {}", outcome.stderr);
        }
        assert!(!folder.path().join(name).join("trend.parquet").exists());
    }
    let nothing = pipeline(folder.path(), &["analyse", "nowhere"]);
    assert_eq!(nothing.code, 1);
    assert!(
        nothing.stderr.contains("there is no table"),
        "{}",
        nothing.stderr
    );
}

#[test]
fn verdicts_of_another_program_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs.parquet");
    let path = RunFile {
        steps: 150,
        numbers: vec![150],
        ..RunFile::default()
    }
    .write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    let at = text.find("folder = ").unwrap();
    let end = at + text[at..].find('\n').unwrap();
    let text = format!(
        "{}verdicts = \"theirs.parquet\"{}",
        &text[..at],
        &text[end..]
    );
    fs::write(&path, text).unwrap();
    // Every third sequence, the later ones first, of the types that pandas writes.
    let indices: Vec<i64> = (0..400).rev().map(|i| i * 3).collect();
    let matched: Vec<i64> = indices.iter().map(|index| 32 - index % 2).collect();
    let columns = |indices: &[i64]| {
        vec![
            Series::new("training_index".into(), indices).into_column(),
            Series::new("checkpoint".into(), vec![150_i64; 400]).into_column(),
            Series::new("n_prefix_matched".into(), &matched).into_column(),
            Series::new("surprisal".into(), vec![0.25_f64; 400]).into_column(),
        ]
    };
    write(&theirs, frame(columns(&indices)), Vec::new());
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let memorization = table(&folder.path().join("out"), "memorization.parquet");
    let found = u32s(&memorization, "training_index");
    assert!(found.iter().copied().eq((0..400).map(|i| i * 3)));
    assert!(
        u32s(&memorization, "step")
            .into_iter()
            .eq(found.iter().map(|index| index / 8))
    );
    let memorized = crate::program::flags(&memorization, "memorized");
    assert!(
        memorized
            .into_iter()
            .eq(found.iter().map(|index| index % 2 == 0))
    );
    assert_eq!(memorization.column("margin").unwrap().null_count(), 400);

    let refused = |columns: Vec<Column>, says: &str| {
        write(&theirs, frame(columns), Vec::new());
        let outcome = pipeline(folder.path(), &["run", path.to_str().unwrap(), "--fresh"]);
        assert_eq!(outcome.code, 1);
        assert!(outcome.stderr.contains(says), "{says}: {}", outcome.stderr);
        assert!(outcome.stderr.contains("hint: "), "{}", outcome.stderr);
    };
    let mut twice = indices.clone();
    twice[7] = twice[8];
    refused(columns(&twice), "stands there twice");
    let mut beyond = indices.clone();
    beyond[0] = 1200;
    refused(columns(&beyond), "not among the positions");
    // What pandas writes where it has no number.
    let mut unknown = columns(&indices);
    unknown[3] = Series::new("surprisal".into(), vec![f64::NAN; 400]).into_column();
    refused(unknown, "row 0 (counted from 0): `surprisal` is NaN");
    refused(
        columns(&indices).drain(..2).collect(),
        "neither a column `n_prefix_matched` nor",
    );
    refused(
        columns(&indices).drain(1..).collect(),
        "no column `training_index`",
    );
    // Known before any work: what the last run has written is still there.
    fs::write(&theirs, "no parquet").unwrap();
    let outcome = pipeline(folder.path(), &["run", path.to_str().unwrap(), "--fresh"]);
    assert_eq!(outcome.code, 1);
    for text in ["theirs.parquet", "hint: name a parquet file"] {
        assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    }
    assert!(folder.path().join("out/positions.parquet").exists());

    // Without a checksum a flipped bit may be another number, but never a panic.
    write(&theirs, frame(columns(&indices)), Vec::new());
    let whole = fs::read(&theirs).unwrap();
    let mut n_refused = 0;
    for flipped in with_a_bit_flipped(&whole, 60) {
        fs::write(&theirs, flipped).unwrap();
        let outcome = pipeline(
            folder.path(),
            &["run", path.to_str().unwrap(), "--only", "join"],
        );
        assert!([0, 1].contains(&outcome.code), "{}", outcome.stderr);
        n_refused += outcome.code;
    }
    assert!(n_refused > 20, "{n_refused}");
}

#[test]
fn verdicts_on_another_corpus_must_say_whose_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("theirs.parquet");
    let path = run_file(folder.path(), "", "");
    let text = fs::read_to_string(&path).unwrap();
    // The model of the other corpus, which the contrast asks about this one, too.
    let at = text.rfind("folder = ").unwrap();
    let end = at + text[at..].find('\n').unwrap();
    let verdicts = "verdicts = \"theirs.parquet\"";
    fs::write(&path, format!("{}{verdicts}{}", &text[..at], &text[end..])).unwrap();
    let rows = |corpora: Option<[&str; 4]>| {
        let mut columns = vec![
            Series::new("training_index".into(), [3_i64, 4, 5, 6]).into_column(),
            Series::new("checkpoint".into(), [2400_i64; 4]).into_column(),
            Series::new("n_prefix_matched".into(), [32_i64, 0, 32, 7]).into_column(),
        ];
        columns.extend(corpora.map(|names| Series::new("corpus".into(), names).into_column()));
        frame(columns)
    };
    write(&theirs, rows(None), Vec::new());
    let refused = pipeline(folder.path(), &["run", path.to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("has no column `corpus`"),
        "{}",
        refused.stderr
    );

    let named = ["deduped", "standard", "deduped", "standard"];
    write(&theirs, rows(Some(named)), Vec::new());
    succeed(folder.path(), &["run", path.to_str().unwrap(), "--fresh"]);
    let memorization = table(&folder.path().join("out"), "memorization.parquet");
    let of = |corpus: &str| {
        let wanted = col("model")
            .eq(lit("other"))
            .and(col("corpus").eq(lit(corpus.to_owned())));
        let rows = memorization
            .clone()
            .lazy()
            .filter(wanted)
            .collect()
            .unwrap();
        (
            u32s(&rows, "training_index"),
            rows.column("seen").unwrap().null_count(),
        )
    };
    assert_eq!(of("deduped"), (vec![3, 5], 0));
    assert_eq!(of("standard"), (vec![4, 6], 2));
}

fn frame(columns: Vec<Column>) -> DataFrame {
    DataFrame::new_infer_height(columns).unwrap()
}

pub(crate) fn write(path: &Path, mut frame: DataFrame, metadata: Vec<(String, String)>) {
    use polars_io::parquet::write::{KeyValueMetadata, ParquetCompression};
    // As pandas and Spark do unless they are told otherwise.
    ParquetWriter::new(File::create(path).unwrap())
        .with_compression(ParquetCompression::Snappy)
        .with_key_value_metadata(Some(KeyValueMetadata::from_static(metadata)))
        .finish(&mut frame)
        .unwrap();
}

/// The entries of a parquet file's metadata that are ours.
pub(crate) fn metadata(path: &Path) -> Vec<(String, String)> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let reader = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
    let entries = reader.metadata().file_metadata().key_value_metadata();
    let entries = entries.unwrap().iter();
    entries
        .filter(|entry| entry.key != "ARROW:schema")
        .map(|entry| (entry.key.clone(), entry.value.clone().unwrap()))
        .collect()
}
