//! Every statistic against scipy's and statsmodels' (`tests/statistics/reference.py`).

use super::*;
use serde_json::Value;

fn reference() -> Value {
    serde_json::from_str(include_str!("../../tests/statistics/reference.json")).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_f64().unwrap()).collect()
}

fn pair(value: &Value) -> (u64, u64) {
    (value[0].as_u64().unwrap(), value[1].as_u64().unwrap())
}

fn bins(case: &Value) -> Vec<Bin> {
    let (t, n, hits) = (
        numbers(&case["t"]),
        numbers(&case["n"]),
        numbers(&case["hits"]),
    );
    (0..t.len())
        .map(|i| Bin {
            t: t[i],
            n: n[i],
            hits: hits[i],
        })
        .collect()
}

/// Equal where the reference has a number; no statement where it has none.
#[track_caller]
fn check(name: &str, what: &str, found: Option<f64>, expected: &Value, tolerance: f64) {
    let Some(expected) = expected.as_f64() else {
        return;
    };
    let found = found.unwrap_or_else(|| panic!("{name}: there is no {what}, but {expected}"));
    let difference = (found - expected).abs();
    assert!(
        difference <= tolerance * expected.abs() || difference < 1e-13,
        "{name}: {what} is {found}, not {expected}"
    );
}

#[test]
fn trends_equal_statsmodels() {
    let reference = reference();
    for (name, case) in reference["bins"].as_object().unwrap() {
        let bins = bins(case);
        let fit = poisson_trend(&bins);
        assert_eq!(fit.is_some(), case["slope"].is_f64(), "{name}");
        let refitted = &case["se_without_each"];
        check(
            name,
            "se_jackknife",
            fit.and_then(|fit| fit.se_jackknife),
            refitted,
            0.05,
        );
        let check = |what: &str, found: Option<f64>| check(name, what, found, &case[what], 1e-6);
        check("intercept", fit.map(|fit| fit.intercept));
        if name == "all memorized" {
            // 0 but for rounding.
            assert!(fit.unwrap().slope.abs() < 1e-12);
            let decision = decide(&fit.unwrap(), fit.as_ref()).unwrap();
            assert_eq!((decision.direction, decision.p), (Direction::None, 1.0));
            continue;
        }
        check("slope", fit.map(|fit| fit.slope));
        check("se", fit.map(|fit| fit.se));
        check("log_likelihood", fit.map(|fit| fit.log_likelihood));
        check("dispersion_pearson", fit.and_then(|fit| fit.dispersion));
        check("se_quasi", fit.and_then(|fit| fit.se_quasi));
        check("se_hc1", fit.and_then(|fit| fit.se_hc1));
        check("se_jackknife", fit.and_then(|fit| fit.se_jackknife));
        if bins.len() == 2 {
            assert_eq!(fit.unwrap().se_quasi, None);
            assert_eq!(fit.unwrap().se_jackknife, None);
            assert_eq!(decide(&fit.unwrap(), fit.as_ref()), None);
        }
    }
}

#[test]
fn a_step_that_decides_the_fit_decides_no_direction() {
    let reference = reference();
    let bins = bins(&reference["bins"]["large counts"]);
    let fit = poisson_trend(&bins).unwrap();
    assert_ne!(decide(&fit, Some(&fit)).unwrap().direction, Direction::None);
    // Forty hits at the end, and one far from them: without it, the slope could be anything.
    let far = |place: u32| Bin {
        t: f64::from(place) / 100.0 - 0.495,
        n: 1000.0,
        hits: match place {
            40 => 1.0,
            99 => 40.0,
            _ => 0.0,
        },
    };
    let steps: Vec<Bin> = (0..100).map(far).collect();
    let steps = poisson_trend(&steps).unwrap();
    assert_eq!(steps.se_jackknife, None);
    let decision = decide(&fit, Some(&steps)).unwrap();
    assert_eq!((decision.direction, decision.p), (Direction::None, 1.0));
}

#[test]
fn negative_binomial_is_at_least_as_likely_as_statsmodels() {
    let reference = reference();
    let mut n_compared = 0;
    for (name, case) in reference["bins"].as_object().unwrap() {
        let bins = bins(case);
        let Some(fit) = negative_binomial_trend(&bins) else {
            assert!(case["slope"].is_null(), "{name}");
            continue;
        };
        let Some(likelihood) = case["nb_log_likelihood"].as_f64() else {
            continue;
        };
        n_compared += 1;
        let tolerance = 1e-9 * likelihood.abs();
        assert!(
            fit.log_likelihood >= likelihood - tolerance,
            "{name}: {fit:?}, {likelihood}"
        );
        let poisson = poisson_trend(&bins).unwrap();
        if fit.alpha == 0.0 {
            assert_eq!(fit.slope.to_bits(), poisson.slope.to_bits(), "{name}");
        } else {
            // Both stand on a flat summit.
            check(name, "nb_slope", Some(fit.slope), &case["nb_slope"], 2e-3);
            check(name, "nb_alpha", Some(fit.alpha), &case["nb_alpha"], 2e-3);
        }
        assert!(fit.log_likelihood >= poisson.log_likelihood);
    }
    assert!(n_compared >= 10, "{n_compared}");
    let bunches = negative_binomial_trend(&bins(&reference["bins"]["in bunches"])).unwrap();
    assert!(bunches.alpha > 0.1);
    let less = negative_binomial_trend(&bins(&reference["bins"]["less than Poisson"])).unwrap();
    assert!(less.alpha == 0.0);
}

#[test]
fn spread_equals_scipy() {
    for (name, case) in reference()["bins"].as_object().unwrap() {
        let bins = bins(case);
        let spread = dispersion(&bins);
        assert_eq!(spread.is_some(), case["dispersion"].is_f64(), "{name}");
        check(
            name,
            "dispersion",
            spread.map(|d| d.index),
            &case["dispersion"],
            1e-9,
        );
        check(
            name,
            "dispersion_p",
            spread.map(|d| d.p),
            &case["dispersion_p"],
            1e-6,
        );
        let monotone = mann_kendall(&bins);
        assert_eq!(
            monotone.is_some(),
            case["mann_kendall_p"].is_f64(),
            "{name}"
        );
        check(
            name,
            "mann_kendall_tau",
            monotone.map(|m| m.tau),
            &case["mann_kendall_tau"],
            1e-9,
        );
        check(
            name,
            "mann_kendall_p",
            monotone.map(|m| m.p),
            &case["mann_kendall_p"],
            1e-6,
        );
    }
}

#[test]
fn uniformity_equals_scipy() {
    for (name, case) in reference()["times"].as_object().unwrap() {
        let found = uniformity(&numbers(&case["times"])).unwrap();
        for (what, value) in [
            ("ks_d", found.ks_d),
            ("ks_p", found.ks_p),
            ("cvm_w2", found.cvm_w2),
            ("cvm_p", found.cvm_p),
            ("ad_a2", found.ad_a2),
            ("laplace_u", found.laplace_u),
            ("laplace_p", found.laplace_p),
            ("mil_p", found.mil_p),
        ] {
            // scipy takes the expansion from 140 hits on, where ours is exact.
            let tolerance = if what == "ks_p" { 2e-5 } else { 1e-6 };
            check(name, what, Some(value), &case[what], tolerance);
        }
    }
    assert_eq!(uniformity(&[]), None);
}

#[test]
fn ratios_equal_scipy() {
    let reference = reference();
    for case in reference["ratios"].as_array().unwrap() {
        let found = rate_ratio(pair(&case["earlier"]), pair(&case["later"])).unwrap();
        let name = case.to_string();
        check(&name, "ratio", found.ratio, &case["ratio"], 1e-12);
        check(&name, "lo", Some(found.lo), &case["lo"], 1e-6);
        check(&name, "hi", Some(found.hi), &case["hi"], 1e-6);
        assert_eq!(found.hi.is_infinite(), case["hi"].is_null());
        for (margin, what) in [(1.05, "equivalence_p_1.05"), (1.1, "equivalence_p_1.10")] {
            check(&name, what, found.equivalence_p(margin), &case[what], 1e-6);
        }
    }
    assert_eq!(rate_ratio((0, 0), (1, 2)), None);
    assert_eq!(rate_ratio((0, 5), (0, 5)), None);
    for case in reference["excesses"].as_array().unwrap() {
        let found = excess_ratio(
            pair(&case["earlier"]),
            pair(&case["later"]),
            pair(&case["baseline"]),
        )
        .unwrap();
        let name = case.to_string();
        check(&name, "ratio", found.ratio, &case["ratio"], 1e-9);
        assert_eq!(found.interval.is_some(), case["lo"].is_f64(), "{name}");
        check(
            &name,
            "lo",
            found.interval.map(|interval| interval.0),
            &case["lo"],
            1e-6,
        );
        check(
            &name,
            "hi",
            found.interval.map(|interval| interval.1),
            &case["hi"],
            1e-6,
        );
    }
}

#[test]
fn numbers_against_time_equal_scipy() {
    for (name, case) in reference()["continua"].as_object().unwrap() {
        let (times, values) = (numbers(&case["times"]), numbers(&case["values"]));
        let n_permutations = 9_999;
        let found = rank_trend(&times, &values, n_permutations, 20).unwrap();
        check(name, "rho", Some(found.rho), &case["rho"], 1e-12);
        check(name, "rho_p", Some(found.p), &case["rho_p"], 1e-6);
        // Four standard errors of two random samples, of which scipy's is the whole where there are few.
        let p = case["permutation_p"].as_f64().unwrap();
        let tolerance = 4.0 * (2.0 * p * (1.0 - p) / f64::from(n_permutations)).sqrt();
        assert!(
            (found.permutation_p.unwrap() - p).abs() < tolerance + 1e-4,
            "{name}: {found:?}, {p}"
        );
        let line = linear_trend(&times, &values).unwrap();
        for (what, value) in [
            ("slope", line.slope),
            ("se", line.se),
            ("se_hc1", line.se_hc1),
            ("p", line.p),
        ] {
            check(name, what, Some(value), &case[what], 1e-6);
        }
    }
    assert_eq!(rank_trend(&[1_u32, 2, 3], &[0.5_f32; 3], 9, 0), None);
    assert_eq!(
        rank_trend(&[1_u32, 2, 3], &[0.5, f64::NAN, 1.0], 9, 0),
        None
    );
    assert_eq!(linear_trend(&[1_u32, 2, 3], &[0.5_f32; 3]), None);
    assert_eq!(linear_trend(&[1_u32, 2, 3], &[0.5, f64::NAN, 1.0]), None);
}

#[test]
fn permutations_do_not_depend_on_threads() {
    let values: Vec<f32> = (0_u8..200).map(|i| f32::from(i.wrapping_mul(37))).collect();
    let times: Vec<u32> = (0..200).collect();
    let with = |n_threads| {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(n_threads);
        threads
            .build()
            .unwrap()
            .install(|| rank_trend(&times, &values, 999, 7))
            .unwrap()
    };
    assert_eq!(with(1), with(3));
    assert_ne!(
        with(1).permutation_p,
        rank_trend(&times, &values, 999, 8).unwrap().permutation_p
    );
}

#[test]
fn exact_intervals_equal_scipy() {
    for case in reference()["shares"].as_array().unwrap() {
        let (hits, n) = (case["hits"].as_u64().unwrap(), case["n"].as_u64().unwrap());
        let (lo, hi) = exact_interval(hits.try_into().unwrap(), n.try_into().unwrap());
        let name = case.to_string();
        check(&name, "lo", Some(lo), &case["lo"], 1e-6);
        check(&name, "hi", Some(hi), &case["hi"], 1e-6);
    }
    assert_eq!(exact_interval(0, 0), (0.0, 1.0));
}

#[test]
fn q_values_equal_scipy() {
    let reference = reference();
    let found = q_values(&numbers(&reference["p"]));
    for (found, expected) in found.iter().zip(reference["q"].as_array().unwrap()) {
        check("q", "q", Some(*found), expected, 1e-12);
    }
}
