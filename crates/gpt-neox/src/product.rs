//! Matrix products in f32, on devices, too, whose matrix units round f32 to TF32.
//!
//! burn has no other product there: 11 bits of 24, which moves logits by 10⁻². A number is therefore split into two
//! of 11 bits and a rest that no longer counts, x = high + low, and a · b ≈ high · high + low · high + high · low. Matrix units
//! also cut what they add up instead of rounding it, so that long sums are made of shorter ones, and the small terms are added up
//! by themselves (Ootomo and Yokota 2022, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32
//! theoretical peak performance").

use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};

/// The longest sum that is left to a matrix unit.
const LONGEST: usize = 256;

/// How a device multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// In the precision of its factors.
    Plain,
    /// f32 rounded to TF32.
    #[cfg_attr(
        not(any(feature = "cuda", feature = "vulkan", test)),
        expect(dead_code, reason = "the CPU does not")
    )]
    Rounded,
}

impl Product {
    /// a · b: `[…, m, k]`, `[…, k, n]` → `[…, m, n]`
    pub(crate) fn of<const D: usize>(self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        if self.is_plain(a.dtype()) {
            return a.matmul(b);
        }
        let n = a.dims()[D - 1];
        let (a_high, a_low) = split(a);
        let (b_high, b_low) = split(b);
        let small_a = Tensor::cat(vec![a_low, a_high.clone()], D - 1);
        let small_b = Tensor::cat(vec![b_high.clone(), b_low], D - 2);
        let mut sum = small_a.matmul(small_b);
        for first in (0..n).step_by(LONGEST) {
            let len = LONGEST.min(n - first);
            let a = a_high.clone().narrow(D - 1, first, len);
            let b = b_high.clone().narrow(D - 2, first, len);
            sum = sum + a.matmul(b);
        }
        sum
    }

    /// x · weight + bias: `[1, m, k]`, `[k, n]`, `[n]` → `[1, m, n]`
    pub(crate) fn linear(
        self,
        x: Tensor<3>,
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
    ) -> Tensor<3> {
        if self.is_plain(x.dtype()) {
            return linear(x, weight, bias);
        }
        let product = self.of(x, weight.unsqueeze());
        match bias {
            Some(bias) => product + bias.unsqueeze(),
            None => product,
        }
    }

    pub(crate) fn is_plain(self, dtype: DType) -> bool {
        self == Self::Plain || dtype != DType::F32
    }
}

/// x = high + low, with 11 bits in `high` (Veltkamp's splitting: Dekker 1971, "A floating-point technique for extending the
/// available precision").
fn split<const D: usize>(x: Tensor<D>) -> (Tensor<D>, Tensor<D>) {
    // 2¹³ + 1: what is left of 24 bits is 11.
    let wide = x.clone().mul_scalar(8193.0);
    let high = wide.clone() - (wide - x.clone());
    let low = x - high.clone();
    (high, low)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// As the matrix units do it.
    fn to_tf32(x: f32) -> f32 {
        f32::from_bits((x.to_bits() + 0x1000) & !0x1fff)
    }

    #[test]
    fn a_split_number_loses_nothing_to_tf32() {
        let numbers: Vec<f32> = (1..2000_u16)
            .map(|i| (f32::from(i) * 0.731).sin() * 10_f32.powi(i32::from(i % 9) - 4))
            .collect();
        let x = Tensor::<1>::from_floats(numbers.as_slice(), &Device::flex());
        let (high, low) = split(x);
        let floats = |x: Tensor<1>| -> Vec<f32> { x.try_into_vec_as().unwrap() };
        for ((x, high), low) in numbers.iter().zip(floats(high)).zip(floats(low)) {
            assert_eq!(high.to_bits(), to_tf32(high).to_bits(), "{x}: 11 bits");
            let lost = (f64::from(*x) - f64::from(high) - f64::from(to_tf32(low))).abs();
            assert!(lost <= f64::from(x.abs()) * 2_f64.powi(-23), "{x}: {lost}");
        }
    }

    #[test]
    fn three_products_are_the_product() {
        let device = Device::flex();
        let numbers =
            |n: u16, of: f32| -> Vec<f32> { (0..n).map(|i| (f32::from(i) * of).cos()).collect() };
        // Three sums, the last of them shorter.
        let n = 2 * LONGEST + 64;
        let a = Tensor::<1>::from_floats(numbers(5 * 576, 0.37).as_slice(), &device);
        let b = Tensor::<1>::from_floats(numbers(576 * 7, 0.91).as_slice(), &device);
        let (a, b) = (a.reshape([1, 5, n]), b.reshape([n, 7]));
        let bias = Tensor::<1>::from_floats(numbers(7, 1.3).as_slice(), &device);
        let plain = Product::Plain.linear(a.clone(), b.clone(), Some(bias.clone()));
        let split = Product::Rounded.linear(a, b, Some(bias));
        let largest: f32 = (plain - split).abs().max().try_into_scalar().unwrap();
        assert!(largest < 1e-4, "{largest}");
    }
}
