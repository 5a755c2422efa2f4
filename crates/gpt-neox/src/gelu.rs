//! GELU (Hendrycks and Gimpel 2016) on the CPU: x · Φ(x), exact to f32's resolution.
//!
//! burn's CPU backend calls the C library's `erf` for each number, which was a third of a run's time; the
//! rational approximation here compiles to vector instructions.

use crate::device::DeviceChoice;
use burn::tensor::{DType, Tensor, TensorData, activation};
use pulp::Arch;

/// GELU of every number.
pub(crate) fn gelu<const D: usize>(x: Tensor<D>, device: DeviceChoice) -> Tensor<D> {
    if device != DeviceChoice::Cpu || x.dtype() != DType::F32 {
        return activation::gelu(x);
    }
    let burn_device = x.device();
    // On this backend a tensor that nobody else holds gives its memory away and takes it back.
    let mut data: TensorData = x.into_data();
    if let Ok(numbers) = data.as_mut_slice::<f32>() {
        Arch::new().dispatch(|| {
            for x in numbers {
                *x = gelu_of(*x);
            }
        });
    } else {
        unreachable!("the data of an f32 tensor are f32");
    }
    Tensor::from_data(data, &burn_device)
}

#[inline(always)]
fn gelu_of(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Error function: an odd polynomial over an even one, as in Eigen (`generic_fast_erf_float`,
/// `MathFunctionsImpl.h`); absolute error below 5·10⁻⁷. Beyond ±4 it is ±1 in f32.
#[inline(always)]
#[expect(clippy::excessive_precision, reason = "the coefficients as published")]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let mut odd = -2.726_142_258_013_06e-10;
    for coefficient in [
        2.770_681_424_959_02e-8,
        -2.101_024_020_825_08e-6,
        -5.692_506_394_623_46e-5,
        -7.349_906_303_268_55e-4,
        -2.954_599_808_540_25e-3,
        -1.609_603_332_624_15e-2,
    ] {
        odd = odd * square + coefficient;
    }
    let mut even = -1.456_607_184_649_96e-5;
    for coefficient in [
        -2.133_740_552_789_05e-4,
        -1.682_826_974_382_03e-3,
        -7.373_329_167_204_68e-3,
        -1.426_473_905_141_89e-2,
    ] {
        even = even * square + coefficient;
    }
    x * odd / even
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_pythons_erf() {
        // 0.5 * x * (1 + math.erf(x / math.sqrt(2))) in Python 3.12, in binary64.
        let expected = [
            (-6.0, -5.919_525_869_479_969e-9),
            (-3.0, -0.004_049_694_094_890_31),
            (-1.5, -0.100_210_801_903_287_13),
            (-0.7, -0.169_374_556_556_151_1),
            (-0.1, -0.046_017_216_272_271_2),
            (0.0, 0.0),
            (0.1, 0.053_982_783_727_702_904),
            (0.7, 0.530_625_443_443_848_9),
            (1.5, 1.399_789_198_096_713),
            (3.0, 2.995_950_305_905_11),
            (6.0, 5.999_999_994_080_474),
            (40.0, 40.0),
        ];
        for (x, expected) in expected {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "the input is a short decimal"
            )]
            let found = f64::from(gelu_of(x as f32));
            assert!(
                (found - expected).abs() < 2e-6,
                "gelu({x}) is {found}, not {expected}"
            );
        }
    }
}
