//! Statistics as pure functions on numbers and slices: no table, no file, no terminal.
//!
//! Time runs from 0 to 1 over an observed window, or from −½ to ½ where a trend is centred. Counts are of probes (`n`) and of
//! memorized ones among them (`hits`).

mod clopper_pearson;
mod decision;
mod excess_ratio;
mod false_discovery;
mod linear_trend;
mod negative_binomial;
mod paired_ratio;
mod poisson_quantiles;
mod rank_trend;
mod rate_ratio;
mod spread;
mod trend;
mod uniformity;
mod wilson;
mod window;

pub use clopper_pearson::exact_interval;
pub use decision::{Decision, Direction, decide, smallest_detectable};
pub use excess_ratio::{ExcessRatio, excess_ratio};
pub use false_discovery::q_values;
pub use linear_trend::{LinearTrend, linear_trend};
pub use negative_binomial::{NegativeBinomialTrend, negative_binomial_trend};
pub use paired_ratio::{PairedRatio, paired_ratio};
pub use poisson_quantiles::{QuantilePoint, poisson_quantiles};
pub use rank_trend::{Number, RankTrend, rank_trend};
pub use rate_ratio::{RateRatio, rate_ratio};
pub use spread::{Dispersion, MannKendall, dispersion, mann_kendall};
pub use trend::{Bin, PoissonTrend, poisson_trend};
pub use uniformity::{Uniformity, uniformity};
pub use wilson::wilson_interval;
pub use window::{StepCount, Window};

use statrs::distribution::StudentsT;

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// P(a standard normal number ≥ z).
fn normal_tail(z: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(z / std::f64::consts::SQRT_2)
}

/// Student's distribution with `free` degrees of freedom, which must be more than 0.
fn student(free: f64) -> Option<StudentsT> {
    StudentsT::new(0.0, 1.0, free).ok()
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod published;
