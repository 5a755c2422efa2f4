//! One file of weights: safetensors, or a PyTorch checkpoint.

use super::LoadError;
use super::opened::OpenFile;
use super::pickle::ElementType;
use super::pytorch::PytorchFile;
use crate::json;
use half::{bf16, f16};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::path::Path;

/// A file whose tensors can be read one by one.
#[derive(Debug)]
pub(super) enum WeightFile {
    Safetensors {
        file: OpenFile,
        metadata: Metadata,
        /// Where the first tensor begins, in bytes.
        data: u64,
    },
    Pytorch(PytorchFile),
}

/// What a file says of a tensor.
pub(super) struct Stored {
    pub(super) shape: Vec<usize>,
    /// How the weights are stored; the name of the type where it is none for weights.
    pub(super) storage: Result<Storage, String>,
}

/// The types that weights are stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    F32,
    F16,
    Bf16,
}

impl WeightFile {
    /// Reads what a file says of its tensors, and none of the weights.
    pub(super) fn open(path: &Path) -> Result<Self, LoadError> {
        let file = OpenFile::open(path)?;
        if path.extension().is_some_and(|ending| ending == "bin") {
            return PytorchFile::open(file).map(Self::Pytorch);
        }
        let (metadata, data) = header(&file)?;
        Ok(Self::Safetensors {
            file,
            metadata,
            data,
        })
    }

    pub(super) fn file(&self) -> &OpenFile {
        match self {
            Self::Safetensors { file, .. } => file,
            Self::Pytorch(pytorch) => pytorch.file(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.file().path()
    }

    /// All tensors by name.
    pub(super) fn tensors(&self) -> BTreeMap<String, Stored> {
        match self {
            Self::Safetensors { metadata, .. } => {
                let tensors = metadata.tensors().into_iter().map(|(name, info)| {
                    let stored = Stored {
                        shape: info.shape.clone(),
                        storage: of_safetensors(info.dtype),
                    };
                    (name, stored)
                });
                tensors.collect()
            }
            Self::Pytorch(pytorch) => {
                let tensors = pytorch.tensors().iter().map(|(name, tensor)| {
                    let stored = Stored {
                        shape: tensor.shape.clone(),
                        storage: of_pytorch(tensor.element),
                    };
                    (name.clone(), stored)
                });
                tensors.collect()
            }
        }
    }

    /// The shape of a tensor, where the file has it.
    pub(super) fn shape(&self, tensor: &str) -> Option<&[usize]> {
        match self {
            Self::Safetensors { metadata, .. } => Some(&metadata.info(tensor)?.shape),
            Self::Pytorch(pytorch) => Some(&pytorch.tensors().get(tensor)?.shape),
        }
    }

    /// The weights of a tensor, row by row.
    pub(super) fn read(&self, tensor: &str) -> Result<Vec<f32>, LoadError> {
        let storage = |storage: Result<Storage, String>| {
            storage.map_err(|found| LoadError::Storage {
                path: self.path().to_owned(),
                tensor: tensor.to_owned(),
                found,
            })
        };
        let missing = || LoadError::Missing {
            folder: self.path().to_owned(),
            tensor: tensor.to_owned(),
        };
        match self {
            Self::Safetensors {
                file,
                metadata,
                data,
            } => {
                let info = metadata.info(tensor).ok_or_else(missing)?;
                let storage = storage(of_safetensors(info.dtype))?;
                let (start, end) = info.data_offsets;
                let bytes = file.read_at(data + start as u64, (end - start) as u64)?;
                Ok(storage.to_f32(&bytes))
            }
            Self::Pytorch(pytorch) => {
                let entry = pytorch.tensors().get(tensor).ok_or_else(missing)?;
                let storage = storage(of_pytorch(entry.element))?;
                let bytes = pytorch.read(tensor).ok_or_else(missing)??;
                Ok(storage.to_f32(&bytes))
            }
        }
    }
}

impl Storage {
    /// As safetensors calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        }
    }

    /// The numbers of little-endian bytes.
    fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        let fours = || bytes.as_chunks::<4>().0.iter();
        let twos = || bytes.as_chunks::<2>().0.iter();
        match self {
            Self::F32 => fours().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Self::F16 => twos()
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect(),
            Self::Bf16 => twos()
                .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                .collect(),
        }
    }
}

fn of_safetensors(dtype: Dtype) -> Result<Storage, String> {
    match dtype {
        Dtype::F32 => Ok(Storage::F32),
        Dtype::F16 => Ok(Storage::F16),
        Dtype::BF16 => Ok(Storage::Bf16),
        other => Err(format!("{other:?}")),
    }
}

fn of_pytorch(element: ElementType) -> Result<Storage, String> {
    match element.name {
        "F32" => Ok(Storage::F32),
        "F16" => Ok(Storage::F16),
        "BF16" => Ok(Storage::Bf16),
        other => Err(other.to_owned()),
    }
}

/// Reads what a safetensors file says of its tensors, and where the first of them begins.
///
/// Weights are then read one tensor at a time: a map of the file would count as memory beside the
/// tensors made of it.
fn header(file: &OpenFile) -> Result<(Metadata, u64), LoadError> {
    const LENGTH: u64 = 8;
    /// As in safetensors' own reader.
    const LONGEST: u64 = 100_000_000;
    let damaged = |source| LoadError::Header {
        path: file.path().to_owned(),
        source,
    };
    if file.len() < LENGTH {
        return Err(damaged(SafeTensorError::HeaderTooSmall));
    }
    let mut length = [0; size_of::<u64>()];
    length.copy_from_slice(&file.read_at(0, LENGTH)?);
    let n = u64::from_le_bytes(length);
    if n > LONGEST {
        return Err(damaged(SafeTensorError::HeaderTooLarge));
    }
    if LENGTH + n > file.len() {
        return Err(damaged(SafeTensorError::InvalidHeaderLength));
    }
    let text = file.read_at(LENGTH, n)?;
    let invalid = |error| damaged(SafeTensorError::InvalidHeaderDeserialization(error));
    // Of a name that stands twice, safetensors would take the last.
    json::check_keys(&text).map_err(invalid)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(invalid)?;
    if metadata.data_len() as u64 != file.len() - LENGTH - n {
        return Err(damaged(SafeTensorError::MetadataIncompleteBuffer));
    }
    Ok((metadata, LENGTH + n))
}
