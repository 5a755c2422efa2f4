//! Linear layers.

use crate::amx::{Amx, Weights};
use crate::product::Product;
use burn::tensor::{DType, Device, Tensor, TensorData};

/// Where linear layers are computed, and how.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) device: Device,
    pub(crate) product: Product,
    /// For layers in f32, where the device is a CPU that has it.
    pub(crate) amx: Option<Amx>,
}

/// `x · weight + bias`
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has dozens of them")]
pub(crate) enum Linear {
    /// By burn.
    Tensors {
        /// `[in, out]`: the transpose of the file's
        weight: Tensor<2>,
        bias: Option<Tensor<1>>,
        product: Product,
    },
    /// By ourselves.
    Digits {
        weights: Weights,
        bias: Option<Vec<f32>>,
    },
}

impl Place {
    /// A layer of these weights, in the file's order, `[out, in]`.
    pub(crate) fn linear(
        &self,
        weights: &[f32],
        shape: [usize; 2],
        bias: Option<Vec<f32>>,
        dtype: DType,
    ) -> Linear {
        let amx = self.amx.filter(|_| dtype == DType::F32);
        if let Some(weights) = amx.and_then(|amx| Weights::new(amx, weights, shape)) {
            return Linear::Digits { weights, bias };
        }
        let [n_out, n_in] = shape;
        let on = (&self.device, dtype);
        let bias = bias.map(|bias| Tensor::from_data(TensorData::new(bias, [n_out]), on));
        let weight = TensorData::new(transposed(weights, shape), [n_in, n_out]);
        Linear::Tensors {
            weight: Tensor::from_data(weight, on),
            bias,
            product: self.product,
        }
    }
}

impl Linear {
    /// `[b, t, in]` → `[b, t, out]`
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [b, t, n] = x.dims();
        match self {
            Self::Tensors {
                weight,
                bias,
                product,
            } => {
                let [_, n_out] = weight.dims();
                // One product of b · t rows: as it stands, this would be b products of t rows.
                let rows = x.reshape([1, b * t, n]);
                let products = product.linear(rows, weight.clone(), bias.clone());
                products.reshape([b, t, n_out])
            }
            Self::Digits { weights, bias } => {
                let device = x.device();
                let sums = weights.linear(floats(&x.into_data()), bias.as_deref());
                Tensor::from_data(TensorData::new(sums, [b, t, weights.n_out()]), &device)
            }
        }
    }
}

/// The numbers of an f32 tensor.
pub(crate) fn floats(data: &TensorData) -> &[f32] {
    let Ok(numbers) = data.as_slice() else {
        unreachable!("the data of an f32 tensor are f32");
    };
    numbers
}

/// `[rows, columns]` → `[columns, rows]`
fn transposed(weights: &[f32], shape: [usize; 2]) -> Vec<f32> {
    let [rows, columns] = shape;
    let mut turned = Vec::with_capacity(weights.len());
    for column in 0..columns {
        turned.extend((0..rows).map(|row| weights[row * columns + column]));
    }
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_many_magnitudes_are_multiplied_by_burn() {
        let place = Place {
            device: Device::flex(),
            product: Product::Plain,
            amx: Amx::get(),
        };
        // Of whole numbers, so that every product is exact.
        let (n_in, n_out) = (2000_u16, 3_u16);
        let mut weights: Vec<f32> = (0..n_in * n_out).map(|i| f32::from(i % 7)).collect();
        let shape = [usize::from(n_out), usize::from(n_in)];
        let ordinary = place.linear(&weights, shape, None, DType::F32);
        assert_eq!(
            matches!(ordinary, Linear::Digits { .. }),
            place.amx.is_some()
        );
        // Beside the first, fixed point would lose the second.
        (weights[0], weights[1]) = (1e9, 0.125);
        let layer = place.linear(&weights, shape, None, DType::F32);
        assert!(matches!(layer, Linear::Tensors { .. }));
        let mut x = vec![1.0; usize::from(n_in)];
        x[0] = 0.0;
        let x = TensorData::new(x, [1, 1, usize::from(n_in)]);
        let x = Tensor::from_data(x, (&place.device, DType::F32));
        let found = layer.forward(x).into_data();
        let rows = weights.chunks_exact(usize::from(n_in));
        let expected: Vec<f32> = rows.map(|row| row[1..].iter().sum()).collect();
        assert_eq!(floats(&found), expected);
    }
}
