//! The main job, as a newcomer runs it, against GPT-NeoX's loader and transformers' greedy generation.

use crate::program::{
    RunFile, flags, manifest, mini, root, sorted, succeed, table, tables, u16s, u32s,
};
use gpt_neox::{DeviceChoice, GptNeox, Precision};
use polars::prelude::{DataFrame, IntoLazy, col, lit};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::fs;
use std::ops::RangeInclusive;
use training_order::npy::Array;

/// What transformers found memorized (`data/mini/README.md`), by corpus and checkpoint.
const MEMORIZED: [(&str, u32, u32); 8] = [
    ("deduped", 600, 0),
    ("deduped", 1200, 312),
    ("deduped", 1800, 993),
    ("deduped", 2400, 1115),
    ("standard", 600, 0),
    ("standard", 1200, 717),
    ("standard", 1800, 1892),
    ("standard", 2400, 2650),
];

#[test]
fn the_main_job() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // From below the root: the run file is found upward.
    let outcome = succeed(&root().join("crates"), &["--out", out.to_str().unwrap()]);
    check_summary(&outcome.stdout);
    check_positions(&table(&out, "positions.parquet"));
    let memorization = table(&out, "memorization.parquet");
    check_verdicts(&memorization);
    check_time(&memorization);
    check_bins(&memorization, &table(&out, "memorization_by_time.parquet"));
    check_exposures(&table(&out, "exposures_by_step.parquet"));
    check_planted_repetition(&memorization);
    check_conclusions(&table(&out, "trend.parquet"));
    check_surprisal(&table(&out, "surprisal_trend.parquet"));
    check_contrast(&memorization, &table(&out, "corpus_contrast.parquet"));
    let manifest = manifest(&out);
    assert_eq!(manifest["status"], "finished");
    assert_eq!(manifest["rows"]["verdicts"], 153_600 + 2 * 4800);
    assert_eq!(manifest["inputs"].as_array().unwrap().len(), 2 * 2 + 8 * 2);
}

fn check_summary(stdout: &str) {
    let line = |start: &str| {
        let found = stdout.lines().find(|line| line.starts_with(start));
        found
            .unwrap_or_else(|| panic!("no line {start} in\n{stdout}"))
            .to_owned()
    };
    let cells = |line: String| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let last = cells(line("standard  mini-standard        2400"));
    let expected = [
        "standard",
        "mini-standard",
        "2400",
        "19,200",
        "2,650",
        "13.80",
        "%",
        "14.17",
        "%",
        "13.44",
        "%",
    ];
    assert_eq!(last, expected);
    for name in [
        "positions.parquet",
        "memorization.parquet",
        "memorization_by_time.parquet",
        "run.json",
    ] {
        assert!(
            stdout.lines().any(|line| line.ends_with(name)),
            "{name} in\n{stdout}"
        );
    }
}

/// Steps, rows and samples are those of GPT-NeoX's loader.
fn check_positions(positions: &DataFrame) {
    for corpus in ["deduped", "standard"] {
        let ours = positions
            .clone()
            .lazy()
            .filter(col("corpus").eq(lit(corpus)))
            .collect()
            .unwrap();
        let index = u32s(&ours, "training_index");
        assert!(index.iter().copied().eq(0..19_200));
        assert!(
            u32s(&ours, "step")
                .into_iter()
                .eq(index.iter().map(|index| index / 8))
        );
        assert!(
            u32s(&ours, "row")
                .into_iter()
                .eq(index.iter().map(|index| index % 8))
        );
        let name = "document_train_0_indexmap_19200ns_128sl_1234s_shuffle_idx.npy";
        let shuffle_idx =
            Array::open(&mini().join(format!("reference/{corpus}_maps")).join(name)).unwrap();
        assert!(
            u32s(&ours, "sample")
                .into_iter()
                .map(i64::from)
                .eq(shuffle_idx.iter().take(19_200))
        );
    }
}

/// At every point, the shares of documents are of one whole; later, no document has been met less often.
fn check_exposures(exposures: &DataFrame) {
    for (corpus, n_documents) in [("deduped", 2148), ("standard", 4564)] {
        let ours = exposures
            .clone()
            .lazy()
            .filter(col("corpus").eq(lit(corpus)))
            .collect()
            .unwrap();
        let (checkpoint, n) = (u32s(&ours, "checkpoint"), u32s(&ours, "n_documents"));
        let width = checkpoint.iter().filter(|step| **step == 2400).count();
        let mut never = u32::MAX;
        for (point, n) in n.chunks(width).enumerate() {
            assert_eq!(n.iter().sum::<u32>(), n_documents, "{corpus} point {point}");
            assert!(n[0] <= never);
            never = n[0];
        }
        // Twelve ends of bins; the checkpoints are among them.
        assert_eq!(n.len(), 12 * width);
        assert_eq!(width, if corpus == "deduped" { 3 } else { 2 });
    }
}

/// Every verdict is transformers', save where its two best logits are nearly tied.
fn check_verdicts(memorization: &DataFrame) {
    let (mut n, mut n_excused) = (0, 0);
    for (corpus, checkpoint, n_memorized) in MEMORIZED {
        let ours = rows(memorization, corpus, checkpoint);
        assert!(u32s(&ours, "training_index").into_iter().eq(0..19_200));
        let memorized = flags(&ours, "memorized");
        let ours = u16s(&ours, "n_prefix_matched");
        assert!(memorized.iter().copied().eq(ours.iter().map(|n| *n == 32)));
        let path = mini().join(format!(
            "reference/{corpus}_step{checkpoint}_verdicts.safetensors"
        ));
        let bytes = fs::read(path).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        let theirs = reference.tensor("n_prefix_matched").unwrap().data();
        assert_eq!(theirs.len(), ours.len());
        let excused_before = n_excused;
        for (index, (&ours, &theirs)) in ours.iter().zip(theirs).enumerate() {
            n += 1;
            if ours != u16::from(theirs) {
                let place = 32 + usize::from(ours.min(u16::from(theirs)));
                let gap = gap_at(corpus, checkpoint, index, place);
                assert!(
                    gap < 1e-4,
                    "{corpus} {checkpoint} {index}: {ours}, not {theirs}; gap {gap}"
                );
                n_excused += 1;
            }
        }
        if n_excused == excused_before {
            assert_eq!(
                memorized.into_iter().filter(|memorized| *memorized).count(),
                n_memorized as usize
            );
        }
    }
    assert_eq!(n, 153_600);
    println!("{n} verdicts compared, {n_excused} differ, each at a near tie");
}

/// The difference of the two best logits for the token at `place` of a sequence.
fn gap_at(corpus: &str, checkpoint: u32, index: usize, place: usize) -> f32 {
    let tokens = Array::open(&mini().join(format!("reference/{corpus}_tokens64.npy"))).unwrap();
    let tokens: Vec<u32> = tokens
        .iter()
        .skip(index * 64)
        .take(64)
        .map(|token| u32::try_from(token).unwrap())
        .collect();
    let folder = mini().join(format!("{corpus}/model/step{checkpoint}"));
    let model = GptNeox::load(&folder, DeviceChoice::Cpu, Precision::F32).unwrap();
    let logits = model.sequence_logits(&tokens, 64).unwrap();
    let mut logits = logits
        .chunks(model.config().vocab_size)
        .nth(place - 1)
        .unwrap()
        .to_vec();
    logits.sort_by(f32::total_cmp);
    logits[logits.len() - 1] - logits[logits.len() - 2]
}

/// `seen` and `lag` follow from step and checkpoint.
fn check_time(memorization: &DataFrame) {
    let own = col("seen").is_not_null();
    let foreign = memorization
        .clone()
        .lazy()
        .filter(own.clone().not())
        .collect()
        .unwrap();
    assert_eq!(foreign.height(), 2 * 4800);
    assert_eq!(foreign.column("lag").unwrap().null_count(), 2 * 4800);
    let memorization = &memorization.clone().lazy().filter(own).collect().unwrap();
    let (step, checkpoint) = (u32s(memorization, "step"), u32s(memorization, "checkpoint"));
    let seen = flags(memorization, "seen");
    let lag = crate::program::numbers(memorization.column("lag").unwrap().i32().unwrap());
    assert_eq!(step.len(), 153_600);
    for row in 0..step.len() {
        assert_eq!(seen[row], step[row] < checkpoint[row]);
        assert_eq!(
            i64::from(lag[row]),
            i64::from(checkpoint[row]) - i64::from(step[row])
        );
    }
}

/// The bins are the table of sequences, counted.
fn check_bins(memorization: &DataFrame, by_time: &DataFrame) {
    for (corpus, checkpoint, _) in MEMORIZED {
        let sequences = rows(memorization, corpus, checkpoint);
        let bins = rows(by_time, corpus, checkpoint).lazy();
        let strata = bins.clone().filter(col("exposures").neq(lit("all")));
        let of_strata = strata.select([col("n").sum()]).collect().unwrap();
        assert_eq!(u32s(&of_strata, "n"), [19_200]);
        let bins = bins.filter(col("exposures").eq(lit("all"))).collect();
        let bins = sorted(&bins.unwrap(), &["step_lo"]);
        let (step, memorized) = (u32s(&sequences, "step"), flags(&sequences, "memorized"));
        let (lo, hi) = (u32s(&bins, "step_lo"), u32s(&bins, "step_hi"));
        assert_eq!((lo[0], hi[11]), (0, 2400));
        assert_eq!(lo[1..], hi[..11]);
        for bin in 0..12 {
            let inside = |row: &usize| (lo[bin]..hi[bin]).contains(&step[*row]);
            let n = (0..step.len()).filter(inside).count();
            let n_memorized = (0..step.len())
                .filter(inside)
                .filter(|row| memorized[*row])
                .count();
            assert_eq!(u32s(&bins, "n")[bin] as usize, n);
            assert_eq!(u32s(&bins, "n_memorized")[bin] as usize, n_memorized);
            assert_eq!(flags(&bins, "seen")[bin], lo[bin] < checkpoint);
        }
        assert_eq!(
            (
                u16s(&bins, "k")[0],
                u16s(&bins, "l")[0],
                u16s(&bins, "offset")[0]
            ),
            (32, 32, 0)
        );
    }
}

/// Repetition is planted (`documents.tsv`): texts that stand in the corpus 64 to 127 times are memorized in about half of the cases,
/// those that stand there more often in nearly all. A sequence's end cuts half of the copies of 64 tokens, so that of an exposure
/// in whole there are fewer; those without a second one are memorized in about 2 %.
fn check_planted_repetition(memorization: &DataFrame) {
    let probes = rows(memorization, "standard", 2400);
    let counts = ["exposures_before", "exposures_after", "exposures_same_step"];
    let [before, after, same] = counts.map(|name| u32s(&probes, name));
    let met: Vec<u32> = (0..before.len())
        .map(|row| before[row] + after[row] + same[row] + 1)
        .collect();
    let corpus = fs::read(mini().join("standard/document.bin")).unwrap();
    let corpus: Vec<u32> = corpus
        .chunks(2)
        .map(|token| u32::from(u16::from_le_bytes([token[0], token[1]])))
        .collect();
    let tokens = Array::open(&mini().join("reference/standard_tokens64.npy")).unwrap();
    let tokens: Vec<u32> = tokens
        .iter()
        .map(|token| u32::try_from(token).unwrap())
        .collect();
    let mut stands: HashMap<&[u32], u32> = tokens.chunks(64).map(|probe| (probe, 0)).collect();
    for window in corpus.windows(64) {
        if let Some(n) = stands.get_mut(window) {
            *n += 1;
        }
    }
    let stands: Vec<u32> = tokens.chunks(64).map(|probe| stands[probe]).collect();
    let memorized = flags(&probes, "memorized");
    let rate = |counts: &[u32], wanted: RangeInclusive<u32>| {
        let rows = (0..counts.len()).filter(|row| wanted.contains(&counts[*row]));
        let hits: Vec<bool> = rows.map(|row| memorized[row]).collect();
        assert!(hits.len() > 900, "{wanted:?}: {}", hits.len());
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let rate = hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
        println!("{wanted:?} times: {}, {rate:.3}", hits.len());
        rate
    };
    assert!((0.4..0.55).contains(&rate(&stands, 64..=127)));
    assert!(rate(&stands, 128..=u32::MAX) > 0.95);
    assert!((0.015..0.025).contains(&rate(&met, 1..=1)));
    assert!((0.55..0.7).contains(&rate(&met, 32..=63)));
    assert!(rate(&met, 64..=u32::MAX) > 0.95);
}

/// At the last checkpoint the ratio of late to early is that of the suite's own table, and no direction is clear.
fn check_conclusions(trend: &DataFrame) {
    let seen = col("stratum").eq(lit("seen"));
    let last = rows(trend, "standard", 2400)
        .lazy()
        .filter(seen)
        .collect()
        .unwrap();
    let number = |name: &str| last.column(name).unwrap().f64().unwrap().get(0).unwrap();
    let text = |name: &str| {
        last.column(name)
            .unwrap()
            .str()
            .unwrap()
            .get(0)
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        (u32s(&last, "n")[0], u32s(&last, "n_memorized")[0]),
        (19_200, 2650)
    );
    assert!((number("rate_ratio") - 0.949).abs() < 5e-4);
    assert!(number("rate_ratio_lo") < 1.0 && 1.0 < number("rate_ratio_hi"));
    assert_eq!(text("direction"), "none");
    assert!(text("conclusion").len() > 20);
    assert!(number("q_bh") > 0.05);
}

/// What the verdicts leave open, the surprisal beside the other corpus' model shows: later is known better.
fn check_surprisal(trend: &DataFrame) {
    let corrected = col("reference")
        .eq(lit("mini-deduped"))
        .and(col("stratum").eq(lit("seen")));
    let last = rows(trend, "standard", 2400)
        .lazy()
        .filter(corrected)
        .collect()
        .unwrap();
    assert_eq!(u32s(&last, "n"), [4800]);
    let number = |name: &str| last.column(name).unwrap().f64().unwrap().get(0).unwrap();
    println!(
        "ρ {:.3}, p {:.1e}, slope {:.4}",
        number("rho"),
        number("rho_p"),
        number("slope")
    );
    assert!((-0.12..-0.04).contains(&number("rho")));
    assert!(number("rho_p") < 1e-3 && number("slope") < 0.0);
    assert!((number("rho_p_permutation") - 0.001).abs() < 1e-9);
    // The other corpus' model met the probes in another order: nothing goes with this one.
    let placebo = col("model")
        .eq(lit("mini-deduped"))
        .and(col("reference").is_null());
    let placebo = rows(trend, "standard", 2400)
        .lazy()
        .filter(placebo)
        .collect()
        .unwrap();
    assert_eq!(u32s(&placebo, "n"), [4800]);
    assert!(
        placebo
            .column("rho_p")
            .unwrap()
            .f64()
            .unwrap()
            .get(0)
            .unwrap()
            > 0.001
    );
}

/// The counts of pairs are those of `memorization`.
fn check_contrast(memorization: &DataFrame, contrast: &DataFrame) {
    let asked = memorization
        .clone()
        .lazy()
        .filter(col("contrast").and(col("corpus").eq(lit("standard"))));
    for checkpoint in [1200, 2400] {
        let hits = |model: &str| {
            let wanted = col("model").eq(lit(model.to_owned()));
            let wanted = wanted.and(col("checkpoint").eq(lit(checkpoint)));
            let rows = asked.clone().filter(wanted).collect().unwrap();
            let rows = sorted(&rows, &["training_index"]);
            assert_eq!(rows.column("surprisal").unwrap().null_count(), 0);
            (u32s(&rows, "training_index"), flags(&rows, "memorized"))
        };
        let (probes, own) = hits("mini-standard");
        let (same, other) = hits("mini-deduped");
        assert_eq!((probes.len(), &probes), (4800, &same));
        let count = |which: fn(bool, bool) -> bool| {
            let pairs = own.iter().zip(&other);
            pairs.filter(|(own, other)| which(**own, **other)).count()
        };
        let row = rows(contrast, "standard", checkpoint).lazy();
        let row = row
            .filter(col("exposures").eq(lit("all")))
            .collect()
            .unwrap();
        assert_eq!(u32s(&row, "n"), [4800]);
        for (name, expected) in [
            ("n_memorized", count(|own, _| own)),
            ("n_memorized_other", count(|_, other| other)),
            ("n_memorized_both", count(|own, other| own && other)),
        ] {
            assert_eq!(u32s(&row, name)[0] as usize, expected, "{name}");
        }
    }
}

/// Of the model that was trained on the corpus, where the table is of models that were not, too.
fn rows(frame: &DataFrame, corpus: &str, checkpoint: u32) -> DataFrame {
    let mut wanted = col("corpus")
        .eq(lit(corpus))
        .and(col("checkpoint").eq(lit(checkpoint)));
    if frame.column("seen").is_ok() {
        wanted = wanted.and(col("seen").is_not_null());
    }
    frame.clone().lazy().filter(wanted).collect().unwrap()
}

#[test]
fn two_runs_of_a_model_write_identical_tables() {
    let checkpoints = tempfile::tempdir().unwrap();
    let step = checkpoints.path().join("step150");
    fs::create_dir(&step).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(
            mini().join("standard/model/step2400").join(file),
            step.join(file),
        )
        .unwrap();
    }
    let run_file = RunFile {
        judge: "gpt-neox",
        steps: 150,
        checkpoints: checkpoints.path().to_owned(),
        numbers: vec![150],
        ..RunFile::default()
    };
    let runs = [(); 2].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        let path = run_file.write(folder.path());
        succeed(folder.path(), &["run", path.to_str().unwrap()]);
        tables(&folder.path().join("out"))
    });
    assert_eq!(runs[0].len(), 10);
    assert!(runs[0] == runs[1]);
}
