//! What is concluded of a trend: its direction, what could have been found, and whether halves are the same.

use super::{PoissonTrend, student};
use statrs::distribution::ContinuousCDF;

/// Which way memorization goes with training time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Sequences met later are memorized more.
    LaterMore,
    /// Sequences met later are memorized less.
    LaterLess,
    /// The interval of the slope holds 0.
    None,
}

impl Direction {
    /// As it stands in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::LaterMore => "later_more",
            Self::LaterLess => "later_less",
            Self::None => "none",
        }
    }
}

/// What the bins of a window and its single steps say together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// By the wider of two 95 % intervals of the slope: quasi-Poisson's with t(bins − 2), which allows for hits that come together
    /// within a bin, and the one clustered by step with t(steps − 2).
    pub direction: Direction,
    /// Two-sided p of slope = 0: the larger of both.
    pub p: f64,
    /// The smallest slope that this finds in 80 % of all cases: (t₀.₉₇₅ + t₀.₈) · standard error (Bloom 1995, *Evaluation Review*
    /// 19, 547–556), the larger of both.
    pub smallest_detectable: f64,
    /// The larger standard error over that of Poisson counts, at least 1: 2 where a hit is worth a quarter of a hit.
    pub spread: f64,
}

/// Decides by the fit to bins and the fit to single steps; `None` for fewer than three bins.
pub fn decide(bins: &PoissonTrend, steps: Option<&PoissonTrend>) -> Option<Decision> {
    /// No trend, but rounding: where every probe is a hit, errors are 0.
    const ROUNDING: f64 = 1e-9;
    let slope = bins.slope;
    let mut found = Decision {
        direction: Direction::None,
        p: 0.0,
        smallest_detectable: 0.0,
        spread: 1.0,
    };
    let mut half_width = ROUNDING;
    // Where one step decides the fit, nothing is known without it.
    let clustered = steps
        .filter(|steps| steps.n_bins > 2)
        .map(|steps| (steps.se_jackknife.unwrap_or(f64::INFINITY), steps.n_bins));
    for (se, n) in std::iter::once((bins.se_quasi?, bins.n_bins)).chain(clustered) {
        #[expect(clippy::cast_precision_loss, reason = "a number of steps")]
        let t = student(n as f64 - 2.0)?;
        let clear = t.inverse_cdf(0.975);
        half_width = half_width.max(clear * se);
        let detectable = (clear + t.inverse_cdf(0.8)) * se;
        found.smallest_detectable = found.smallest_detectable.max(detectable);
        found.spread = found.spread.max(se / bins.se);
        found.p = found.p.max(if slope.abs() > ROUNDING {
            2.0 * t.sf(slope.abs() / se)
        } else {
            1.0
        });
    }
    if slope.abs() > half_width {
        found.direction = if slope > 0.0 {
            Direction::LaterMore
        } else {
            Direction::LaterLess
        };
    }
    Some(found)
}

/// The same before there are verdicts, for the standard error that many hits will have: (z₀.₉₇₅ + z₀.₈) · se.
pub fn smallest_detectable(se: f64) -> f64 {
    const Z_80: f64 = 0.841_621_233_572_914_3;
    (super::Z + Z_80) * se
}
