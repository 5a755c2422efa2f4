//! Arrays in a safetensors file.

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use std::fs;
use std::path::Path;

/// The content of a file.
pub(crate) struct Arrays(Vec<u8>);

impl Arrays {
    pub(crate) fn read(path: &Path) -> Self {
        Self(fs::read(path).unwrap())
    }

    /// An array, whatever it is stored in.
    pub(crate) fn floats(&self, name: &str) -> Vec<f64> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let array = file.tensor(name).unwrap();
        let bytes = array.data();
        let fours = || bytes.as_chunks::<4>().0.iter().copied();
        match array.dtype() {
            Dtype::F32 => fours().map(f32::from_le_bytes).map(f64::from).collect(),
            Dtype::I32 => fours().map(i32::from_le_bytes).map(f64::from).collect(),
            Dtype::U16 => {
                let twos = bytes.as_chunks::<2>().0.iter().copied();
                twos.map(u16::from_le_bytes).map(f64::from).collect()
            }
            other => panic!("{name} is stored as {other:?}"),
        }
    }

    /// An array of ids or counts.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ids and counts are small whole numbers"
    )]
    pub(crate) fn wholes(&self, name: &str) -> Vec<u32> {
        self.floats(name).into_iter().map(|n| n as u32).collect()
    }
}
