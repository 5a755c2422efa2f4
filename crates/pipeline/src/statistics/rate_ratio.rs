//! One rate over another, and whether they are the same within a margin.

use super::clopper_pearson::beta_quantile;
use super::normal_tail;

/// The ratio of two rates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRatio {
    /// Later rate / earlier rate; `None` without an earlier hit.
    pub ratio: Option<f64>,
    /// Lower end of its exact 95 % interval: given all hits, the later ones are binomial, with Clopper and Pearson's interval
    /// (Przyborowski and Wilenski 1940).
    pub lo: f64,
    /// Upper end; infinite without an earlier hit.
    pub hi: f64,
    /// Standard error of ln ratio: √(1/hits + 1/hits).
    pub se: f64,
}

/// Compares (hits, probes) of an earlier and a later time; `None` where there are no probes in one, or no hit in both.
pub fn rate_ratio(earlier: (u64, u64), later: (u64, u64)) -> Option<RateRatio> {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2⁵³")]
    let [e, n_e, l, n_l] = [earlier.0, earlier.1, later.0, later.1].map(|count| count as f64);
    if n_e == 0.0 || n_l == 0.0 || e + l == 0.0 {
        return None;
    }
    let odds = |share: f64| share / (1.0 - share) * n_e / n_l;
    Some(RateRatio {
        ratio: (e > 0.0).then(|| l / n_l / (e / n_e)),
        lo: if l == 0.0 {
            0.0
        } else {
            odds(beta_quantile(0.025, l, e + 1.0)?)
        },
        hi: if e == 0.0 {
            f64::INFINITY
        } else {
            odds(beta_quantile(0.975, l + 1.0, e)?)
        },
        se: (1.0 / e + 1.0 / l).sqrt(),
    })
}

impl RateRatio {
    /// Whether the rates are the same within a factor `margin`: the larger p of two one-sided tests on ln ratio (Schuirmann
    /// 1987, with Wald's standard error); `None` where one of the rates is 0.
    pub fn equivalence_p(&self, margin: f64) -> Option<f64> {
        self.equivalence_p_in_bunches(margin, 1.0)
    }

    /// The same for hits that may come in bunches: with the standard error times [`Decision::spread`](super::Decision::spread).
    pub fn equivalence_p_in_bunches(&self, margin: f64, spread: f64) -> Option<f64> {
        let (log, margin, se) = (self.ratio?.ln(), margin.ln(), self.se * spread);
        let p = normal_tail((log + margin) / se).max(normal_tail((margin - log) / se));
        p.is_finite().then_some(p)
    }
}
