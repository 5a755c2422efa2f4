//! Which sequences and checkpoints a run file means, and what `plan` says of them.

use crate::program::{
    Outcome, RunFile, flags, manifest, mini, numbers, pipeline, root, succeed, table, tables, u32s,
};
use polars_io::parquet::write::ParquetWriter;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use training_order::npy::Array;

const SEED: &str = "seed = 1234\n";

/// The default run file with pieces of its text replaced, in a folder of its own.
fn reworded(changes: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile::default().write(folder.path());
    reword(&path, changes);
    (folder, path)
}

fn reword(path: &Path, changes: &[(&str, &str)]) {
    let mut text = fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    fs::write(path, text).unwrap();
}

fn with_selection(tables: &str) -> (TempDir, PathBuf) {
    reworded(&[(SEED, &format!("{SEED}{tables}\n"))])
}

fn planned(folder: &TempDir, path: &Path) -> polars::prelude::DataFrame {
    succeed(folder.path(), &["plan", path.to_str().unwrap()]);
    table(&folder.path().join("out"), "positions.parquet")
}

#[test]
fn checkpoints_are_numbers_ranges_and_words() {
    let steps = |checkpoints: &str| -> Outcome {
        let (folder, path) = reworded(&[("[600, 2400]", checkpoints)]);
        pipeline(folder.path(), &["check", path.to_str().unwrap()])
    };
    for (checkpoints, expected) in [
        ("\"all\"", "600, 1200, 1800, 2400"),
        ("\"log-spaced\"", "600, 1200, 2400"),
        ("\"600..=2_400 by 900\"", "600, 1500, 2400"),
        ("[1800, \"600..=1200 by 600\"]", "600, 1200, 1800"),
        ("[\"log-spaced\", 1800]", "600, 1200, 1800, 2400"),
        ("1800", "1800"),
    ] {
        let outcome = steps(checkpoints);
        let line = format!("model mini: checkpoints {expected}\n");
        assert!(outcome.stdout.contains(&line), "{checkpoints}: {outcome:?}");
    }
    for (checkpoints, expected) in [
        (
            "\"al\"",
            "`al` is neither `all` nor `log-spaced` nor a range such as `1000..=143000 by 1000`",
        ),
        (
            "\"0..=4000000000\"",
            "4000000000 lies after the last step, 2400",
        ),
        ("[600, 600]", "600 is given twice"),
        ("[]", "checkpoints: there is none"),
        (
            "[6.5]",
            "expected steps, a range or a word, or a list of them",
        ),
    ] {
        let outcome = steps(checkpoints);
        assert_eq!(outcome.code, 2, "{checkpoints}");
        assert!(
            outcome.stderr.contains(expected),
            "{checkpoints}: {}",
            outcome.stderr
        );
    }
    let (folder, path) = reworded(&[
        ("[600, 2400]", "\"all\""),
        ("/step{checkpoint}", "/step{revision}x"),
    ]);
    let none = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
    assert!(
        none.stderr.contains("no folder is there for `"),
        "{}",
        none.stderr
    );
}

#[test]
fn a_list_is_probed_as_it_stands() {
    let csv = "text,training_index\na,0\nb, 5\nc,\"19199\"\nd,19200\ne,19630\n";
    let (folder, path) = with_selection("[corpus.list]\nfile = \"some.csv\"");
    fs::write(folder.path().join("some.csv"), csv).unwrap();
    let positions = planned(&folder, &path);
    assert_eq!(
        u32s(&positions, "training_index"),
        [0, 5, 19_199, 19_200, 19_630]
    );
    assert_eq!(u32s(&positions, "step"), [0, 0, 2399, 2400, 2453]);
    assert_eq!(
        flags(&positions, "trained"),
        [true, true, true, false, false]
    );
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let out = folder.path().join("out");
    assert_eq!(table(&out, "memorization.parquet").height(), 2 * 5);
    assert_eq!(manifest(&out)["inputs"].as_array().unwrap().len(), 3);
    // What is planned names the list that it was planned from; what is found does not.
    let found = |out: &Path| {
        let mut tables = tables(out);
        tables.retain(|path, _| {
            let planned = ["positions.parquet", "exposures_by_step.parquet"];
            !planned.iter().any(|name| path.ends_with(name))
        });
        tables
    };
    let from_csv = found(&out);

    // `positions` itself is a list.
    fs::rename(
        out.join("positions.parquet"),
        folder.path().join("some.parquet"),
    )
    .unwrap();
    reword(&path, &[("some.csv", "some.parquet")]);
    let other = folder.path().join("other");
    succeed(
        folder.path(),
        &[
            "run",
            path.to_str().unwrap(),
            "--out",
            other.to_str().unwrap(),
        ],
    );
    assert_eq!(table(&other, "positions.parquet"), positions);
    assert!(!from_csv.is_empty() && found(&other) == from_csv);

    // Those of another program may be without rows.
    let file = File::create(other.join("positions.parquet")).unwrap();
    let mut none = positions.head(Some(0));
    ParquetWriter::new(file).finish(&mut none).unwrap();
    let refused = pipeline(
        folder.path(),
        &[
            "run",
            path.to_str().unwrap(),
            "--only",
            "join",
            "--out",
            other.to_str().unwrap(),
        ],
    );
    assert_eq!(refused.code, 1);
    let says = "hold no sequence of the corpus `standard`";
    assert!(refused.stderr.contains(says), "{}", refused.stderr);
}

#[test]
fn a_list_that_cannot_be_used_is_refused_by_row() {
    let refused = |csv: &str, expected: &str| {
        let (folder, path) = with_selection("[corpus.list]\nfile = \"bad.csv\"");
        fs::write(folder.path().join("bad.csv"), csv).unwrap();
        let outcome = pipeline(folder.path(), &["run", path.to_str().unwrap()]);
        assert_eq!(outcome.code, 1, "{csv}");
        for text in [expected, "bad.csv", "hint: "] {
            assert!(
                outcome.stderr.contains(text),
                "no `{text}` in {}",
                outcome.stderr
            );
        }
        assert!(tables(&folder.path().join("out")).is_empty());
    };
    refused(
        "training_index\n3\n9\n9\n",
        "bad.csv`, row 3: 9 stands in the row before, too",
    );
    refused(
        "training_index\n3\n9\n4\n",
        "bad.csv`, row 3: 4 comes after 9",
    );
    refused(
        "training_index\n19631\n",
        "row 1: 19631 is not among the 19631 sequences",
    );
    refused(
        "training_index\n-1\n",
        "row 1: -1 is not among the 19631 sequences",
    );
    refused(
        "index\n3\n",
        "there is no column `training_index` of whole numbers: the first line names none",
    );
    refused(
        "training_index,x\n3,1\n,2\n",
        "row 2: there is no `training_index`",
    );
    refused("training_index\n", "has no rows");

    let (folder, path) = with_selection("[corpus.list]\nfile = \"bad.csv\"");
    fs::write(folder.path().join("bad.csv"), "training_index\n3\n4.0\n").unwrap();
    let outcome = pipeline(folder.path(), &["run", path.to_str().unwrap()]);
    assert!(
        outcome
            .stderr
            .contains("bad.csv`, row 2: `4.0` is no whole number"),
        "{}",
        outcome.stderr
    );
    let (folder, path) =
        with_selection("[corpus.list]\nfile = \"some.txt\"\n[corpus.windows]\nsteps = 3");
    let outcome = pipeline(folder.path(), &["check", path.to_str().unwrap()]);
    assert_eq!(outcome.code, 2);
    for text in [
        "give one of `sample`, `list` and `windows`",
        "`some.txt` is neither a `.parquet` nor a `.csv` file",
    ] {
        assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    }
}

#[test]
fn windows_reach_beyond_the_end_of_training() {
    let (folder, path) = with_selection("[corpus.windows]\nsteps = 3");
    let positions = planned(&folder, &path);
    // Whole steps before and after 600 and 2400.
    let expected = (597 * 8..603 * 8).chain(2397 * 8..2403 * 8);
    let index = u32s(&positions, "training_index");
    assert!(index.iter().copied().eq(expected));
    let trained = flags(&positions, "trained");
    assert!(
        trained
            .iter()
            .zip(&index)
            .all(|(trained, index)| *trained == (*index < 19_200))
    );
    // GPT-NeoX's own map goes on, too.
    let name =
        "reference/standard_maps/document_train_0_indexmap_19200ns_128sl_1234s_shuffle_idx.npy";
    let shuffle_idx = Array::open(&mini().join(name)).unwrap();
    for (index, sample) in index.iter().zip(u32s(&positions, "sample")) {
        assert_eq!(shuffle_idx.get(u64::from(*index)), Some(i64::from(sample)));
    }
    // The last checkpoint has a baseline that no checkpoint has seen.
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let memorization = table(&folder.path().join("out"), "memorization.parquet");
    let checkpoint = u32s(&memorization, "checkpoint");
    let seen = flags(&memorization, "seen");
    let unseen = |at: u32| {
        (0..seen.len())
            .filter(|row| checkpoint[*row] == at && !seen[*row])
            .count()
    };
    assert_eq!((unseen(600), unseen(2400)), (24 + 48, 24));

    // Of 60 steps after the end the loader has made 431 sequences, and says so.
    let (folder, path) = with_selection("[corpus.windows]\nsteps = 60");
    let outcome = succeed(folder.path(), &["plan", path.to_str().unwrap()]);
    let text = "corpus `standard`: 49 sequences of the windows lie beyond what its files hold";
    assert!(outcome.stderr.contains(text), "{}", outcome.stderr);
    let positions = table(&folder.path().join("out"), "positions.parquet");
    assert_eq!(positions.height(), 8 * 180 + 431);

    // Some rows of each step, where windows overlap once.
    let (folder, path) = with_selection("[corpus.windows]\nsteps = 1000\nrows = 2\nseed = 5");
    let positions = planned(&folder, &path);
    let (steps, rows) = (u32s(&positions, "step"), u32s(&positions, "row"));
    assert_eq!(steps[..4], [0, 0, 1, 1]);
    assert!(steps.is_sorted() && rows.chunks_exact(2).all(|rows| rows[1] == rows[0] + 1));
    assert!(steps.iter().filter(|step| **step < 2400).count() == 2 * 2400);
}

#[test]
fn a_plan_says_what_a_run_takes_and_could_show() {
    let sample = "[corpus.sample]\nevery = 10\nrows = 4\nseed = 1";
    let (folder, path) = with_selection(sample);
    reword(
        &path,
        &[("[600, 2400]", "[600, 2400]\nassumed-rate = 0.05")],
    );
    let arguments = ["plan", path.to_str().unwrap()];
    let stdout = succeed(folder.path(), &arguments).stdout;
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let cells = |start: &str| -> String {
        let mut lines = stdout.lines();
        words(
            lines
                .find(|line| line.starts_with(start))
                .unwrap_or_default(),
        )
    };
    assert_eq!(
        cells("standard"),
        "standard 4 rows of every 10 steps 960 0 61,440 120.00 KiB"
    );
    // 2 checkpoints; at 2400, all are seen; 48 hits: 2.8016 · √(12 / 48) = 1.4008, exp(0.7004) = 2.0146.
    assert_eq!(cells("total"), "total 2 1,920 122,880 240.00 KiB –");
    let trend = "mini standard 2400 960 0 5.000 % 48 1.4008 2.0146";
    assert!(stdout.lines().any(|line| words(line) == trend), "{stdout}");
    assert!(stdout.contains("speed: none is known"), "{stdout}");
    assert!(
        stdout.contains("assumed rate of mini: the run file"),
        "{stdout}"
    );
    assert!(stdout.ends_with("exposures_by_step.parquet\n"), "{stdout}");

    // What a run writes, and no more; then its speed is known.
    let out = folder.path().join("out");
    let before = tables(&out);
    assert_eq!(before.len(), 2);
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let after = tables(&out);
    assert!(before.iter().all(|(name, bytes)| after[name] == *bytes));
    let dry = |arguments: &[&str]| {
        succeed(
            folder.path(),
            &[&["run", path.to_str().unwrap(), "--dry-run"], arguments].concat(),
        )
    };
    let said = dry(&[]).stdout;
    for text in [
        "2 input files, ",
        "nothing wrong",
        "speed: measured by the run of `",
        "1,920",
    ] {
        assert!(said.contains(text), "no `{text}` in {said}");
    }
    assert!(tables(&out) == after);
    let elsewhere = folder.path().join("elsewhere");
    let said = dry(&["--out", elsewhere.to_str().unwrap()]).stdout;
    assert!(
        said.contains("speed: none is known") && !elsewhere.exists(),
        "{said}"
    );

    let stated = succeed(
        folder.path(),
        &[&arguments[..], &["--probes-per-second", "0.8"]].concat(),
    );
    // 1,920 / 0.8 / 3600
    assert!(
        stated
            .stdout
            .lines()
            .any(|line| line.starts_with("total") && line.ends_with(" 0.67")),
        "{}",
        stated.stdout
    );
    let nonsense = pipeline(
        folder.path(),
        &[&arguments[..], &["--probes-per-second", "0"]].concat(),
    );
    assert_eq!(nonsense.code, 2, "{}", nonsense.stderr);
}

#[test]
fn the_probes_of_a_plan_are_exported_for_other_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("probes.parquet");
    let run_file = root().join("pipelines/mini.toml");
    let out = folder.path().join("out");
    let plan = |path: &Path| {
        let [run_file, out, path] = [&run_file, &out, path].map(|path| path.to_str().unwrap());
        pipeline(
            folder.path(),
            &["plan", run_file, "--out", out, "--export-tokens", path],
        )
    };
    assert_eq!(plan(&path).code, 0);
    let probes = table(folder.path(), "probes.parquet");
    assert_eq!(probes.height(), 2 * 19_200);
    let positions = table(&out, "positions.parquet");
    assert_eq!(
        u32s(&probes, "training_index"),
        u32s(&positions, "training_index")
    );
    let reference = |corpus: &str| {
        let array = Array::open(&mini().join(format!("reference/{corpus}_tokens64.npy"))).unwrap();
        array
            .iter()
            .map(|token| u32::try_from(token).unwrap())
            .collect::<Vec<u32>>()
    };
    let expected = [reference("deduped"), reference("standard")].concat();
    let lists = probes.column("tokens").unwrap().list().unwrap();
    let tokens = lists.amortized_iter().flat_map(|tokens| {
        let tokens = tokens.unwrap().deep_clone();
        numbers(tokens.u32().unwrap())
    });
    assert!(tokens.eq(expected));
    let refused = plan(&folder.path().join("probes.csv"));
    assert_eq!(refused.code, 2);
    let text = "is no name for a table";
    assert!(refused.stderr.contains(text), "{}", refused.stderr);
}
