//! A number that changes with time: least squares.

use super::{Number, student};
use statrs::distribution::ContinuousCDF;

/// value = intercept + slope · t, by ordinary least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearTrend {
    /// Change of the value over the whole window.
    pub slope: f64,
    /// Standard error of the slope if values vary as much at any time.
    pub se: f64,
    /// The sandwich estimate with the factor n/(n − 2) (White 1980; `MacKinnon` and White 1985, HC1).
    pub se_hc1: f64,
    /// Two-sided p of slope = 0 by t(n − 2) and `se`, as scipy's `linregress` gives it.
    pub p: f64,
}

/// Fits a [`LinearTrend`]; times run from −½, the beginning of the observed window, to ½, its end. `None` for fewer than 3
/// values, where all times or all values are equal, and where a number is not finite.
pub fn linear_trend<T: Number, V: Number>(times: &[T], values: &[V]) -> Option<LinearTrend> {
    debug_assert_eq!(times.len(), values.len(), "a value at each time");
    if times.len() < 3 {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "a number of values")]
    let n = times.len() as f64;
    let pairs = || {
        let times = times.iter().map(|time| (*time).into());
        times.zip(values.iter().map(|value| (*value).into()))
    };
    let (t_sum, y_sum) = pairs().fold((0.0, 0.0), |(t_sum, y_sum), (t, y): (f64, f64)| {
        (t_sum + t, y_sum + y)
    });
    let centred = || pairs().map(|(t, y)| (t - t_sum / n, y - y_sum / n));
    let (tt, ty, yy) = centred().fold((0.0, 0.0, 0.0), |(tt, ty, yy), (t, y)| {
        (tt + t * t, ty + t * y, yy + y * y)
    });
    let slope = ty / tt;
    if !(slope.is_finite() && yy > 0.0) {
        return None;
    }
    let (squares, meat) = centred().fold((0.0, 0.0), |(squares, meat), (t, y)| {
        let square = (y - slope * t).powi(2);
        (squares + square, meat + t * t * square)
    });
    let se = (squares / (n - 2.0) / tt).sqrt();
    Some(LinearTrend {
        slope,
        se,
        se_hc1: (meat * n / (n - 2.0)).sqrt() / tt,
        p: 2.0 * student(n - 2.0)?.sf((slope / se).abs()),
    })
}
