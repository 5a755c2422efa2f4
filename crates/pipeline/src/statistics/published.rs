//! Every statistic on published results: the counts of eight models, and the reference values of the study behind this program.

use super::*;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int8Type, Int32Type, Int64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Sequences of the standard run, and the earlier ones of them.
const SEQUENCES: u64 = 146_432_000;
const EARLY: u64 = 23_552_000;

/// Earlier and later hits by model.
fn early_and_late() -> Vec<(String, u64, u64)> {
    let table = include_str!("../../tests/statistics/pythia_v0_early_late.tsv");
    let lines = table.lines().filter(|line| !line.starts_with('#')).skip(1);
    let row = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let number = |place: usize| cells[place].parse().unwrap();
        (cells[0].to_owned(), number(1), number(2))
    };
    lines.map(row).collect()
}

fn compare((_, early, late): &(String, u64, u64)) -> RateRatio {
    rate_ratio((*early, EARLY), (*late, SEQUENCES - EARLY)).unwrap()
}

/// Two-sided p of ratio = 1.
fn p(ratio: &RateRatio) -> f64 {
    2.0 * normal_tail((ratio.ratio.unwrap().ln() / ratio.se).abs())
}

#[test]
fn later_is_more_with_the_size_of_the_model() {
    let expected = [
        ("70m", "0.9950 0.987 1.003", -1.3, "1.05"),
        ("160m", "0.9982 0.992 1.005", -0.6, "1.05"),
        ("410m", "1.0047 0.999 1.010", 1.7, "1.05"),
        ("1b", "1.0092 1.004 1.014", 3.8, "1.05"),
        ("1.4b", "1.0162 1.012 1.021", 6.9, "1.05"),
        ("2.8b", "1.0269 1.023 1.031", 12.5, "1.05"),
        ("6.9b", "1.0489 1.045 1.053", 25.1, "1.10"),
        ("12b", "1.0627 1.059 1.066", 33.8, "1.10"),
    ];
    let models = early_and_late();
    let found: Vec<RateRatio> = models.iter().map(compare).collect();
    for ((model, found), (name, numbers, z, margin)) in models.iter().zip(&found).zip(expected) {
        assert_eq!(model.0, name);
        let ratio = found.ratio.unwrap();
        assert_eq!(
            format!("{ratio:.4} {:.3} {:.3}", found.lo, found.hi),
            numbers,
            "{name}"
        );
        assert!((ratio.ln() / found.se - z).abs() < 0.05, "{name}");
        let same = |margin| found.equivalence_p(margin).unwrap() < 0.05;
        let tightest = if same(1.05) {
            "1.05"
        } else if same(1.10) {
            "1.10"
        } else {
            "none"
        };
        assert_eq!(tightest, margin, "{name}");
    }
    let q = q_values(&found.iter().map(p).collect::<Vec<_>>());
    let clear: Vec<bool> = q.iter().map(|q| *q < 0.05).collect();
    assert_eq!(clear, [false, false, false, true, true, true, true, true]);
    assert_eq!(
        [q[0], q[1], q[2]].map(|q| format!("{q:.2}")),
        ["0.24", "0.58", "0.12"]
    );
    let ratios: Vec<f64> = found.iter().map(|found| found.ratio.unwrap()).collect();
    let sizes: Vec<u32> = (0..8).collect();
    assert!((rank_trend(&sizes, &ratios, 0, 0).unwrap().rho - 1.0).abs() < 1e-12);
}

/// Keys of the reference values that no statistic of this program has, and why.
const NOT_OURS: [(&str, &str); 18] = [
    ("n", "input"),
    ("T", "input"),
    ("K", "input"),
    ("mil189_chi2", "only its p is in a table"),
    ("mil189_df", "twice the number of hits"),
    ("disp_p_over", "one-sided; the table has the two-sided p"),
    ("chisq_uniform_p", "as disp_p_over"),
    (
        "nb_se1",
        "the negative binomial slope has no error in a table",
    ),
    ("tost_pois_p_1.05", "score tests; the table has Wald's"),
    ("tost_pois_p_1.1", "as tost_pois_p_1.05"),
    ("tost_pois_p_1.25", "as tost_pois_p_1.05"),
    (
        "gap_cv",
        "gaps are geometric: tests of gaps reject every census",
    ),
    ("gap_ks_D", "as gap_cv"),
    ("gap_ks_p_naive", "as gap_cv"),
    ("gap_lillie_D", "as gap_cv"),
    ("gap_lillie_p", "as gap_cv"),
    ("gap_ljungbox10", "as gap_cv"),
    ("gap_ljungbox10_p", "as gap_cv"),
];

/// A folder of the study: `reference_statistics.py` in it made the values from the files beside it.
fn study() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases/analysis");
    folder.exists().then_some(folder)
}

/// Values by key, with the largest differences, relative and absolute.
struct Values(Vec<(&'static str, Vec<f64>, f64, f64)>);

impl Values {
    fn add(&mut self, key: &'static str, value: f64) {
        self.0.push((key, vec![value], 1e-6, 0.0));
    }

    /// Every key of `expected` is one of these values, or not ours.
    fn check(&self, name: &str, expected: &Value, not_ours: &[(&str, &str)]) {
        let expected = expected.as_object().unwrap();
        let mut left: BTreeSet<&str> = expected.keys().map(String::as_str).collect();
        let mut wrong = Vec::new();
        for (key, values, relative, absolute) in &self.0 {
            assert!(left.remove(key), "{name} has no {key}");
            let expected = match &expected[*key] {
                Value::Array(several) => several.clone(),
                one => vec![one.clone()],
            };
            assert_eq!(values.len(), expected.len(), "{name}: {key}");
            for (value, expected) in values.iter().zip(expected) {
                let expected = expected.as_f64().unwrap();
                if (value - expected).abs() > relative * expected.abs() + absolute {
                    wrong.push(format!("{key} is {value}, not {expected}"));
                }
            }
        }
        for (key, _) in not_ours {
            assert!(left.remove(key), "{name} has no {key}");
        }
        assert!(left.is_empty(), "{name}: nothing covers {left:?}");
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
}

/// What the program says of the positions of hits in a window of `n` sequences and in `k` bins.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::too_many_lines,
    reason = "one value after another; numbers of bins"
)]
fn values(positions: &[u64], n: u64, k: usize) -> Values {
    let float = |count: usize| f64::from(u32::try_from(count).unwrap());
    let n = f64::from(u32::try_from(n).unwrap());
    let mut times: Vec<f64> = positions
        .iter()
        .map(|position| (f64::from(u32::try_from(*position).unwrap()) + 0.5) / n)
        .collect();
    times.sort_by(f64::total_cmp);
    let mut found = Values(Vec::new());
    let tests = uniformity(&times).unwrap();
    found.add("ks_D", tests.ks_d);
    // The expansion of 1,000 hits and more leaves out 1/n².
    found.0.push(("ks_p", vec![tests.ks_p], 2e-5, 0.0));
    found.add("cvm_W2", tests.cvm_w2);
    found.add("cvm_p", tests.cvm_p);
    found.add("ad_A2", tests.ad_a2);
    found.add("laplace_U", tests.laplace_u);
    found.add("laplace_p", tests.laplace_p);
    found.add("mil189_p", tests.mil_p);

    let bin = |of: usize| {
        times
            .iter()
            .filter(|time| (*time * float(k)) as usize == of)
            .count()
    };
    let counts: Vec<f64> = (0..k).map(|of| float(bin(of))).collect();
    let bins = |n: f64| -> Vec<Bin> {
        let middle = |place: usize| (float(place) + 0.5) / float(k) - 0.5;
        let bin = |(place, hits): (usize, &f64)| Bin {
            t: middle(place),
            n,
            hits: *hits,
        };
        counts.iter().enumerate().map(bin).collect()
    };
    // With so many probes the variance is Poisson's, which the study took.
    let spread = dispersion(&bins(1e15)).unwrap();
    found.add("disp_index", spread.index);
    found.add("disp_chi2", spread.index * (float(k) - 1.0));
    found.add("chisq_uniform", spread.index * (float(k) - 1.0));
    found.add("disp_p_two", spread.p);
    // The study's rates are counts.
    let fit = poisson_trend(&bins(1.0)).unwrap();
    found.add("pois_b0", fit.intercept);
    found.add("pois_b1", fit.slope);
    found.add("pois_se1", fit.se);
    // A difference of two numbers, from a fit that the study stopped at 1e-8.
    for (key, z) in [("pois_ci_lo", -Z), ("pois_ci_hi", Z)] {
        found
            .0
            .push((key, vec![fit.slope + z * fit.se], 1e-6, 1e-7));
    }
    found.add("pois_pearson_scale", fit.dispersion.unwrap());
    found.add("quasi_se1", fit.se_quasi.unwrap());
    found.add("hc1_se1", fit.se_hc1.unwrap());
    let likelihood = |mean: &dyn Fn(f64) -> f64| -> f64 {
        let of_bin = |hits: &f64| {
            let mean = mean(*hits);
            let term = if *hits > 0.0 { hits * mean.ln() } else { 0.0 };
            term - mean - statrs::function::gamma::ln_gamma(hits + 1.0)
        };
        counts.iter().map(of_bin).sum()
    };
    let mean = float(times.len()) / float(k);
    found.add(
        "pois_lrt",
        2.0 * (fit.log_likelihood - likelihood(&|_| mean)),
    );
    found.add(
        "pois_dev",
        2.0 * (likelihood(&|hits| hits) - fit.log_likelihood),
    );
    let negative = negative_binomial_trend(&bins(1.0)).unwrap();
    // statsmodels stops short of the optimum, and gives noise where it is at α = 0.
    found.0.push(("nb_b1", vec![negative.slope], 2e-3, 0.0));
    found.0.push(("nb_alpha", vec![negative.alpha], 2e-3, 1e-5));
    let monotone = mann_kendall(&bins(1.0)).unwrap();
    found.add("mk_tau", monotone.tau);
    found.add("mk_p", monotone.p);

    let late = times.iter().filter(|time| **time >= 0.5).count() as u64;
    let early = times.len() as u64 - late;
    let half = u64::from(u32::MAX);
    let halves = rate_ratio((early, half), (late, half)).unwrap();
    let ratio = halves.ratio.unwrap();
    found.add("early", float(usize::try_from(early).unwrap()));
    found.add("late", float(usize::try_from(late).unwrap()));
    found.add("rr", ratio);
    found.add("rr_wald_lo", ratio * (-Z * halves.se).exp());
    found.add("rr_wald_hi", ratio * (Z * halves.se).exp());
    found.add("rr_exact_lo", halves.lo);
    found.add("rr_exact_hi", halves.hi);
    for (key, margin) in [
        ("tost_p_1.05", 1.05),
        ("tost_p_1.1", 1.1),
        ("tost_p_1.25", 1.25),
    ] {
        found.add(key, halves.equivalence_p(margin).unwrap());
    }
    let counts: Vec<u32> = counts.iter().map(|count| *count as u32).collect();
    let (_, points) = poisson_quantiles(&counts).unwrap();
    let squares = points.iter().map(|point| {
        let difference = f64::from(point.count) - f64::from(point.quantile);
        f64::from(point.n_windows) * difference * difference
    });
    found.add("qq_rmse", (squares.sum::<f64>() / float(k)).sqrt());
    let quantiles: Vec<f64> = points
        .iter()
        .flat_map(|point| std::iter::repeat_n(f64::from(point.quantile), point.n_windows as usize))
        .collect();
    found
        .0
        .push(("qq_first5", quantiles[..5].to_vec(), 0.0, 0.0));
    found
        .0
        .push(("qq_last5", quantiles[k - 5..].to_vec(), 0.0, 0.0));
    found
}

/// Positions of the study's samples, one a line.
fn sample(folder: &Path, name: &str) -> Vec<u64> {
    let text = fs::read_to_string(folder.join(name)).unwrap();
    text.lines()
        .skip(1)
        .map(|line| line.parse().unwrap())
        .collect()
}

/// Positions of the memorized among 51,200 sequences of the first 1,000 steps, by checkpoint.
fn first_steps(folder: &Path) -> BTreeMap<i32, Vec<u64>> {
    let file = fs::File::open(folder.join("duan_steps0_1000.parquet")).unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let columns = ["index", "checkpoint", "mem"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut found: BTreeMap<i32, Vec<u64>> = BTreeMap::new();
    for batch in builder.with_projection(mask).build().unwrap() {
        let batch = batch.unwrap();
        let column = |name: &str| batch.column_by_name(name).unwrap();
        let index = column("index").as_primitive::<Int64Type>();
        let checkpoint = column("checkpoint").as_primitive::<Int32Type>();
        let memorized = column("mem").as_primitive::<Int8Type>();
        for row in 0..batch.num_rows() {
            let hits = found.entry(checkpoint.value(row)).or_default();
            if memorized.value(row) == 1 {
                hits.push(index.value(row).try_into().unwrap());
            }
        }
    }
    found
}

#[test]
fn statistics_equal_the_study_on_its_data() {
    let Some(folder) = study() else {
        eprintln!("skipped: the study's data are not beside the repository");
        return;
    };
    let text = fs::read_to_string(folder.join("golden_stats.json")).unwrap();
    // Python writes numbers that JSON does not have.
    let study: Value = serde_json::from_str(&text.replace("NaN", "null")).unwrap();
    let mut left: BTreeSet<&str> = study
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut check = |name: &str, positions: &[u64], n: u64, k: usize| {
        assert!(left.remove(name), "there is no {name}");
        values(positions, n, k).check(name, &study[name], &NOT_OURS);
    };
    for (name, file) in [
        (
            "pythia70m_deduped_sample1250",
            "pythia70m_deduped_memorized_sample_1250.csv",
        ),
        (
            "v0_duped_union_sample500",
            "pythia_v0_duped_union_memorized_sample_500.csv",
        ),
    ] {
        check(name, &sample(&folder, file), SEQUENCES, 143);
    }
    for (checkpoint, positions) in first_steps(&folder) {
        // The study leaves out what has fewer than 100 hits.
        if positions.len() >= 100 {
            check(
                &format!("duan_steps0_1000@{checkpoint}"),
                &positions,
                1_024_000,
                50,
            );
        }
    }

    let name = "pythia_v0_duped_early16pct_vs_rest";
    assert!(left.remove(name));
    let models = early_and_late();
    let found: Vec<RateRatio> = models.iter().map(compare).collect();
    let qs = q_values(&found.iter().map(p).collect::<Vec<_>>());
    let rows = study[name].as_array().unwrap();
    assert_eq!(rows.len(), models.len());
    for (((model, early, late), found), (q, row)) in
        models.iter().zip(&found).zip(qs.iter().zip(rows))
    {
        assert_eq!(row["model"], **model);
        let mut values = Values(Vec::new());
        values.add("early_n", f64::from(u32::try_from(*early).unwrap()));
        values.add("late_n", f64::from(u32::try_from(*late).unwrap()));
        let ratio = found.ratio.unwrap();
        values.add("rr", ratio);
        values.add("lo", ratio * (-Z * found.se).exp());
        values.add("hi", ratio * (Z * found.se).exp());
        values.add("z", ratio.ln() / found.se);
        values.add("p", p(found));
        values.add("tost5", found.equivalence_p(1.05).unwrap());
        values.add("tost10", found.equivalence_p(1.10).unwrap());
        values.add("p_bh", *q);
        let not_ours = [("model", "input"), ("p_score", "a score test")];
        values.check(model, row, &not_ours);
    }
    // Spearman's ρ of the ratios with size: `later_is_more_with_the_size_of_the_model`.
    assert!(left.remove("rr_vs_size_spearman"));
    assert_eq!(study["rr_vs_size_spearman"][0], 1.0);
    assert!(left.is_empty(), "nothing covers {left:?}");
}
