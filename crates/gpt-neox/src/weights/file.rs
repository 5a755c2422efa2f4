//! One file of weights: safetensors, or a PyTorch checkpoint whose pickle is read and never executed.

use super::LoadError;
use half::{bf16, f16};
use memmap2::Mmap;
use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A file whose tensors can be read one by one.
#[derive(Debug)]
pub(super) enum WeightFile {
    Safetensors {
        path: PathBuf,
        bytes: Mmap,
    },
    Pytorch {
        path: PathBuf,
        reader: PytorchReader,
    },
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
        let path = path.to_owned();
        if path.extension().is_some_and(|ending| ending == "bin") {
            // The reader would say of a missing file that it is no checkpoint.
            open(&path)?;
            return match PytorchReader::new(&path) {
                Ok(reader) => Ok(Self::Pytorch { path, reader }),
                Err(source) => Err(LoadError::Pytorch { path, source }),
            };
        }
        let bytes = map(&path)?;
        Ok(Self::Safetensors { path, bytes })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Safetensors { path, .. } | Self::Pytorch { path, .. } => path,
        }
    }

    /// All tensors by name.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Stored>, LoadError> {
        match self {
            Self::Safetensors { path, bytes } => {
                let (_, metadata): (usize, Metadata) =
                    SafeTensors::read_metadata(bytes).map_err(|source| LoadError::Header {
                        path: path.clone(),
                        source,
                    })?;
                let tensors = metadata.tensors().into_iter().map(|(name, info)| {
                    let stored = Stored {
                        shape: info.shape.clone(),
                        storage: of_safetensors(info.dtype),
                    };
                    (name, stored)
                });
                Ok(tensors.collect())
            }
            Self::Pytorch { reader, .. } => {
                let tensors = reader.tensors().iter().map(|(name, tensor)| {
                    let stored = Stored {
                        shape: tensor.shape().to_vec(),
                        storage: of_pytorch(tensor.dtype()),
                    };
                    (name.clone(), stored)
                });
                Ok(tensors.collect())
            }
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
        match self {
            Self::Safetensors { path, bytes } => {
                let header = |source| LoadError::Header {
                    path: path.clone(),
                    source,
                };
                let tensors = SafeTensors::deserialize(bytes).map_err(header)?;
                let view = tensors.tensor(tensor).map_err(header)?;
                Ok(storage(of_safetensors(view.dtype()))?.to_f32(view.data()))
            }
            Self::Pytorch { path, reader } => {
                let entry = reader.get(tensor).ok_or_else(|| LoadError::Missing {
                    folder: path.clone(),
                    tensor: tensor.to_owned(),
                })?;
                let storage = storage(of_pytorch(entry.dtype()))?;
                let bytes = entry.read().map_err(|source| LoadError::Pytorch {
                    path: path.clone(),
                    source: source.into(),
                })?;
                Ok(storage.to_f32(&bytes))
            }
        }
    }
}

impl Storage {
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

fn of_pytorch(dtype: DType) -> Result<Storage, String> {
    match dtype {
        DType::F32 => Ok(Storage::F32),
        DType::F16 => Ok(Storage::F16),
        DType::BF16 => Ok(Storage::Bf16),
        other => Err(format!("{other:?}")),
    }
}

fn open(path: &Path) -> Result<File, LoadError> {
    File::open(path).map_err(|source| LoadError::Io {
        path: path.to_owned(),
        source,
    })
}

#[expect(
    unsafe_code,
    reason = "the weights of large models are read in place, without a second copy in memory"
)]
fn map(path: &Path) -> Result<Mmap, LoadError> {
    let file = open(path)?;
    // SAFETY: the map is read-only, and every number is copied out of it before use. Should another process
    // change the file meanwhile, a copy holds other numbers, but no undefined value.
    unsafe { Mmap::map(&file) }.map_err(|source| LoadError::Io {
        path: path.to_owned(),
        source,
    })
}
