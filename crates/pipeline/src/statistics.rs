//! Statistics as pure functions on numbers and slices: no table, no file, no terminal.
//!
//! Time runs from 0 to 1 over an observed window, or from −½ to ½ where a trend is centred. Counts are of probes (`n`) and of
//! memorized ones among them (`hits`).

mod excess_ratio;
mod false_discovery;
mod negative_binomial;
mod paired_ratio;
mod rate_ratio;
mod spread;
mod trend;
mod uniformity;
mod wilson;

pub use excess_ratio::{ExcessRatio, excess_ratio};
pub use false_discovery::q_values;
pub use negative_binomial::{NegativeBinomialTrend, negative_binomial_trend};
pub use paired_ratio::{PairedRatio, paired_ratio};
pub use rate_ratio::{RateRatio, rate_ratio};
pub use spread::{Dispersion, MannKendall, dispersion, mann_kendall};
pub use trend::{Bin, Direction, PoissonTrend, direction, poisson_trend, smallest_detectable};
pub use uniformity::{Uniformity, uniformity};
pub use wilson::wilson_interval;

/// The 97.5 % quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// P(a standard normal number ≥ z).
fn normal_tail(z: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod golden;
