//! What a run may ask of each probe, and how sure the answers are.

use crate::program::{RunFile, manifest, mini, succeed, table, u16s};
use polars::prelude::*;
use std::path::Path;

/// `memorization` of 320 sequences under the standard corpus' last checkpoint.
fn memorization(precision: &'static str, probe: &'static str) -> (DataFrame, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = mini().join("standard/model/step2400");
    link(&checkpoint, &folder.path().join("step40"));
    let file = RunFile {
        judge: "gpt-neox",
        steps: 40,
        checkpoints: folder.path().to_owned(),
        numbers: vec![40],
        precision,
        probe,
        ..RunFile::default()
    };
    let path = file.write(folder.path());
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let out = folder.path().join("out");
    (table(&out, "memorization.parquet"), manifest(&out))
}

fn link(from: &Path, to: &Path) {
    std::os::unix::fs::symlink(from, to).unwrap();
}

fn f32s(frame: &DataFrame, name: &str) -> Vec<f32> {
    let column = frame.column(name).unwrap().f32().unwrap();
    column.into_no_null_iter().collect()
}

#[test]
fn all_measures_agree_where_they_overlap() {
    let (exact, _) = memorization("f32", "");
    for name in ["n_matched", "surprisal", "logp_suffix", "n_top1"] {
        assert_eq!(exact.column(name).unwrap().null_count(), 320, "{name}");
    }
    let (all, _) = memorization("f32", "measures = [\"score\", \"likelihood\"]");
    assert_eq!(
        u16s(&all, "n_prefix_matched"),
        u16s(&exact, "n_prefix_matched")
    );
    let columns = u16s(&all, "n_prefix_matched")
        .into_iter()
        .zip(u16s(&all, "n_matched"))
        .zip(u16s(&all, "n_top1"));
    for ((n_prefix_matched, n_matched), n_top1) in columns {
        assert!(n_prefix_matched <= n_matched && n_matched <= 32);
        assert!(n_prefix_matched <= n_top1 && n_top1 <= 32);
        assert_eq!(n_prefix_matched == 32, n_matched == 32 && n_top1 == 32);
    }
    let margins = f32s(&all, "margin");
    for (n_prefix_matched, margin) in u16s(&all, "n_prefix_matched").into_iter().zip(margins) {
        assert_eq!(n_prefix_matched == 32, margin > 0.0);
    }
    let surprisals = f32s(&all, "surprisal");
    for (surprisal, logp) in surprisals.into_iter().zip(f32s(&all, "logp_suffix")) {
        assert!((surprisal * 32.0 + logp).abs() < 1e-3 && surprisal > 0.0);
    }
}

#[test]
fn near_ties_of_halves_are_judged_again_in_f32() {
    let (exact, _) = memorization("f32", "");
    // Coarse on purpose: at these logits bf16 moves margins by tenths.
    let (halves, plain) = memorization("bf16", "near-tie = 1.0");
    let (rechecked, run) = memorization("bf16", "near-tie = 1.0\nrecheck = true");
    let verdicts = |frame: &DataFrame| u16s(frame, "n_prefix_matched");
    let differ = |frame| {
        let pairs = verdicts(frame).into_iter().zip(verdicts(&exact));
        pairs.filter(|(a, b)| a != b).count() as u64
    };
    assert_eq!(differ(&rechecked), 0);
    assert!(differ(&halves) > 0, "there is something to mend");
    assert_eq!(plain["recheck"]["n"], 0);
    let near = |frame: &DataFrame| {
        let near = frame.column("near_tie").unwrap().bool().unwrap();
        u64::from(near.sum().unwrap())
    };
    assert_eq!(near(&rechecked), near(&halves));
    assert_eq!(run["recheck"]["n"].as_u64(), Some(near(&halves)));
    assert_eq!(run["recheck"]["n_changed"].as_u64(), Some(differ(&halves)));
}

#[test]
fn a_batch_size_changes_no_verdict() {
    let (plain, default) = memorization("f32", "measures = [\"score\"]");
    let (small, given) = memorization("f32", "measures = [\"score\"]\nbatch-size = 7");
    assert_eq!(default["batch_size"], 256);
    assert_eq!(given["batch_size"], 7);
    assert_eq!(given["run"]["batch_size"], 7);
    for column in ["n_prefix_matched", "n_matched"] {
        assert_eq!(u16s(&plain, column), u16s(&small, column));
    }
    for (plain, small) in f32s(&plain, "margin")
        .into_iter()
        .zip(f32s(&small, "margin"))
    {
        assert!((plain - small).abs() < 1e-4, "{plain} {small}");
    }
}

#[test]
fn a_run_goes_on_with_another_batch_size() {
    let folder = tempfile::tempdir().unwrap();
    let resumed = |probe: &'static str| {
        let file = RunFile {
            probe,
            ..RunFile::default()
        };
        let path = file.write(folder.path());
        let outcome = succeed(folder.path(), &["run", path.to_str().unwrap()]);
        let run = manifest(&folder.path().join("out"));
        (
            run["verdicts_resumed"].as_u64(),
            run["batch_size"].as_u64(),
            outcome.stderr,
        )
    };
    let (n, batch_size, stderr) = resumed("batch-size = 1000");
    assert_eq!((n, batch_size), (Some(0), Some(1000)));
    assert!(
        stderr.contains("probe: 1,000 probes together on `cpu`"),
        "{stderr}"
    );
    let (n, batch_size, _) = resumed("batch-size = 500");
    assert_eq!((n, batch_size), (Some(2 * 19_200), None));
}
