"""Writes reference.json: what scipy and statsmodels say of the cases here, for the tests of `crates/pipeline/src/statistics`.

    pip install scipy==1.17.1 statsmodels==0.15.0 && python reference.py
"""

import json
import warnings
from pathlib import Path

import numpy as np
import scipy
import statsmodels
import statsmodels.api as sm
from scipy import optimize, special, stats

warnings.filterwarnings("ignore")
HERE = Path(__file__).resolve().parent


def binned(t, n, hits):
    """Everything that is asked of bins."""
    t, n, hits = (np.asarray(column, float) for column in (t, n, hits))
    found = {"t": t.tolist(), "n": n.tolist(), "hits": hits.tolist()}
    if len(t) > 1 and 0 < hits.sum():
        design, offset = sm.add_constant(t), np.log(n)
        model = sm.GLM(hits, design, family=sm.families.Poisson(), offset=offset)
        fit = model.fit(tol=1e-14, maxiter=200)
        found.update(intercept=fit.params[0], slope=fit.params[1], se=fit.bse[1], log_likelihood=fit.llf)
        # statsmodels does not take a scale of 0.
        if len(t) > 2 and fit.pearson_chi2 > 1e-9:
            found.update(
                dispersion_pearson=fit.pearson_chi2 / fit.df_resid,
                se_quasi=model.fit(scale="X2", tol=1e-14).bse[1],
                se_hc1=model.fit(cov_type="HC1", tol=1e-14).bse[1],
                se_jackknife=jackknife(fit, hits),
                se_without_each=without_each(fit, hits, design, offset),
            )
            negative_binomial = sm.NegativeBinomial(hits, design, offset=offset)
            best = negative_binomial.fit(disp=0, maxiter=500)
            if np.isfinite(best.llf):
                found.update(nb_slope=best.params[1], nb_alpha=best.params[2], nb_log_likelihood=likelihood(hits, best.predict(), best.params[2]))
    rate, k = hits.sum() / n.sum(), len(t)
    if k > 1 and 0 < rate < 1:
        chi2 = np.sum((hits - n * rate) ** 2 / (n * rate * (1 - rate)))
        found.update(dispersion=chi2 / (k - 1), dispersion_p=2 * min(stats.chi2.sf(chi2, k - 1), stats.chi2.cdf(chi2, k - 1)))
    if k > 2 and len(set(hits / n)) > 1:
        tau = stats.kendalltau(t, hits / n, method="asymptotic")
        found.update(mann_kendall_tau=tau.statistic, mann_kendall_p=tau.pvalue)
    return found


def jackknife(fit, hits):
    """The sandwich by statsmodels' own leverages, of fitted hits and of observed ones."""
    per_hit = fit.get_influence().hat_matrix_diag / fit.mu
    scores = fit.resid_response / np.maximum(1 - (fit.mu + hits) / 2 * per_hit, 0)
    bread = fit.normalized_cov_params @ fit.model.exog.T
    se = np.sqrt(((bread * scores) ** 2).sum(1))[1]
    return se if np.isfinite(se) else None


def without_each(fit, hits, design, offset):
    """What `jackknife` approximates: statsmodels' slopes without one bin each. None where one bin decides."""
    others = [np.arange(len(hits)) != bin for bin in range(len(hits))]
    if len(hits) > 150 or any(np.count_nonzero(hits[some]) < 2 for some in others):
        return None
    slopes = [sm.GLM(hits[some], design[some], family=sm.families.Poisson(), offset=offset[some]).fit(tol=1e-12, maxiter=200).params[1] for some in others]
    return np.sqrt(((slopes - fit.params[1]) ** 2).sum())


def likelihood(hits, mu, alpha):
    """The log-likelihood at statsmodels' estimates: its own is noise in the eighth digit where alpha is near 0."""
    rising = [np.log1p(alpha * np.arange(count)).sum() for count in hits]
    return np.sum(rising - (hits + 1 / alpha) * np.log1p(alpha * mu) + hits * np.log(mu) - special.gammaln(hits + 1))


def uniform(u):
    """Everything that is asked of ascending times between 0 and 1."""
    u = np.sort(np.asarray(u, float))
    n, i = len(u), np.arange(1, len(u) + 1)
    ks, cvm = stats.kstest(u, "uniform"), stats.cramervonmises(u, "uniform") if n > 1 else None
    mil, laplace = 2 * np.sum(np.log(1 / u)), (u.mean() - 0.5) * np.sqrt(12 * n)
    return {
        "times": u.tolist(),
        "ks_d": ks.statistic,
        "ks_p": ks.pvalue,
        "cvm_w2": cvm.statistic if cvm else None,
        "cvm_p": cvm.pvalue if cvm else None,
        "ad_a2": -n - np.mean((2 * i - 1) * (np.log(u) + np.log1p(-u[::-1]))),
        "laplace_u": laplace,
        "laplace_p": 2 * stats.norm.sf(abs(laplace)),
        "mil_p": 2 * min(stats.chi2.cdf(mil, 2 * n), stats.chi2.sf(mil, 2 * n)),
    }


def ratio(earlier, later):
    (e, n_e), (l, n_l) = earlier, later
    exact = stats.binomtest(l, e + l).proportion_ci(method="exact")
    odds = lambda share: share / (1 - share) * n_e / n_l if share < 1 else None
    found = {"earlier": earlier, "later": later, "lo": odds(exact.low), "hi": odds(exact.high)}
    if e and l:
        log, se = np.log(l / n_l / (e / n_e)), np.sqrt(1 / e + 1 / l)
        found["ratio"] = np.exp(log)
        for margin in (1.05, 1.10):
            lower, upper = (log + np.log(margin)) / se, (log - np.log(margin)) / se
            found[f"equivalence_p_{margin:.2f}"] = max(stats.norm.sf(lower), stats.norm.cdf(upper))
    return found


def excess(earlier, later, baseline):
    """Fieller's interval, by finding where the studentized difference leaves ±z."""
    (e, l, b) = (hits / n for hits, n in (earlier, later, baseline))
    var_e, var_l, var_b = (rate * (1 - rate) / n for rate, (_, n) in zip((e, l, b), (earlier, later, baseline)))
    z = stats.norm.ppf(0.975)
    studentized = lambda x: (l - b - x * (e - b)) / np.sqrt(var_l + var_b + x * x * (var_e + var_b) - 2 * x * var_b)
    estimate = (l - b) / (e - b)
    found = {"earlier": earlier, "later": later, "baseline": baseline, "ratio": estimate}
    if abs(e - b) > z * np.sqrt(var_e + var_b):
        far = estimate + np.array([-1, 1]) * 1e6
        outside = lambda x: abs(studentized(x)) - z
        found["lo"], found["hi"] = (optimize.brentq(outside, *sorted((estimate, end)), xtol=1e-14, rtol=1e-14) for end in far)
    return found


def continuous(times, values, permutations):
    """Everything that is asked of a number beside time."""
    times, values = np.asarray(times, float), np.asarray(values, float)
    rank, line = stats.spearmanr(times, values), stats.linregress(times, values)
    sandwich = sm.OLS(values, sm.add_constant(times)).fit(cov_type="HC1")
    time_ranks, ranks = (stats.rankdata(column) - (len(times) + 1) / 2 for column in (times, values))
    permuted = stats.permutation_test((ranks,), lambda ranks: abs(time_ranks @ ranks), permutation_type="pairings", alternative="greater", n_resamples=permutations, rng=20)
    return {
        "times": times.tolist(),
        "values": values.tolist(),
        "rho": rank.statistic,
        "rho_p": rank.pvalue,
        "permutation_p": permuted.pvalue,
        "slope": line.slope,
        "se": line.stderr,
        "se_hc1": sandwich.bse[1],
        "p": line.pvalue,
    }


def share(hits, n):
    interval = stats.binomtest(hits, n).proportion_ci(method="exact")
    return {"hits": hits, "n": n, "lo": interval.low, "hi": interval.high}


def middles(k):
    return (np.arange(k) + 0.5) / k - 0.5


def main():
    random = np.random.default_rng(20)
    bins, times = {}, {}
    for name, n in {"one": 1, "two": 2, "few": 9, "some": 500, "many": 3_000}.items():
        times[name] = uniform(random.uniform(size=n))
    times["late"] = uniform(random.beta(1.3, 1, size=400))
    times["early, many"] = uniform(random.beta(1, 1.05, size=2_000))
    several = {
        "tiny counts": (middles(8), np.full(8, 40), [0, 1, 0, 0, 2, 0, 1, 1]),
        "zeros at one end": (middles(6), np.full(6, 100), [0, 0, 0, 0, 3, 5]),
        "unequal denominators": (middles(7), [10, 900, 33, 512, 512, 7, 250], [1, 40, 3, 30, 28, 0, 19]),
        "last partial bin": ([-0.45, -0.25, -0.05, 0.15, 0.35, 0.475], [200, 200, 200, 200, 200, 50], [31, 35, 30, 41, 44, 12]),
        "one bin": ([0.0], [100], [7]),
        "two bins": (middles(2), [100, 120], [7, 12]),
        "three bins": (middles(3), [100, 120, 90], [7, 12, 14]),
        "all memorized": (middles(5), np.full(5, 64), np.full(5, 64)),
        "none memorized": (middles(5), np.full(5, 64), np.zeros(5)),
        "in bunches": (middles(40), np.full(40, 4000), random.negative_binomial(2, 2 / 42, size=40)),
        "large counts": (middles(143), np.full(143, 1_024_000), random.poisson(16_660 * np.exp(0.12 * middles(143)))),
        "few hits in many bins": (middles(143), np.full(143, 1_024_000), random.poisson(1.7, size=143)),
        "a trend": (middles(50), np.full(50, 20_480), random.poisson(4.8 * np.exp(0.5 * middles(50)))),
        "small bunches": (middles(143), np.full(143, 1_024_000), random.negative_binomial(15, 15 / 24, size=143)),
        "less than Poisson": (middles(12), np.full(12, 100), [9, 10, 9, 10, 10, 10, 9, 11, 10, 11, 10, 10]),
    }
    for name, case in several.items():
        bins[name] = binned(*case)
    noise = random.normal(size=300)
    continua = {
        # All 720 permutations.
        "six": continuous(middles(6), [0.3, -1.2, 0.8, 0.9, 0.1, 2.0], np.inf),
        "falling": continuous(middles(300), noise - 0.6 * middles(300), 9_999),
        "many ties": continuous(np.repeat(middles(30), 10), np.round(noise, 1), 9_999),
        "spread that grows": continuous(middles(300), noise * np.exp(2 * middles(300)), 9_999),
        "a clear trend": continuous(middles(300), noise + 3 * middles(300), 9_999),
        "out of order": continuous(random.permutation(middles(60)), noise[:60], 9_999),
    }
    ps = [0.21, 0.576, 0.0899, 0.000166, 5.27e-12, 0.0, 1.0, 0.0899]
    found = {
        "versions": {"scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "bins": bins,
        "times": times,
        # The second four: Pythia v0, memorized among the first 23,552,000 sequences and the other 122,880,000 (70M, 1B, 12B).
        "ratios": [ratio(*case) for case in [((3, 10), (5, 10)), ((0, 50), (4, 60)), ((4, 60), (0, 50)), ((627, 73_216_000), (623, 73_216_000)), ((74_935, 23_552_000), (389_018, 122_880_000)), ((200_486, 23_552_000), (1_055_655, 122_880_000)), ((364_028, 23_552_000), (2_018_298, 122_880_000))]],
        "excesses": [excess(*case) for case in [((265, 51_200), (290, 51_200), (235, 51_200)), ((900, 9_600), (1_000, 9_600), (300, 9_600)), ((50, 1_000), (60, 1_000), (0, 1_000))]],
        "continua": continua,
        "shares": [share(*case) for case in [(0, 10), (10, 10), (1, 3), (5, 20), (2_650, 19_200), (1, 1_024_000), (2_382_326, 146_432_000)]],
        "p": ps,
        "q": stats.false_discovery_control(ps).tolist(),
    }
    plain = lambda value: value.item() if isinstance(value, np.generic) else value
    (HERE / "reference.json").write_text(json.dumps(found, default=plain, indent=1) + "\n")


if __name__ == "__main__":
    main()
