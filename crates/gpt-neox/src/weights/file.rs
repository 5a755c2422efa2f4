//! One file of weights: safetensors, or a PyTorch checkpoint whose pickle is read and never executed.

use super::LoadError;
use half::{bf16, f16};
use pytorch_reader::{DType, PytorchReader};
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// A file whose tensors can be read one by one.
#[derive(Debug)]
pub(super) enum WeightFile {
    Safetensors {
        path: PathBuf,
        metadata: Metadata,
        /// Where the first tensor begins, in bytes.
        data: u64,
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
        let (metadata, data) = header(&path)?;
        Ok(Self::Safetensors {
            path,
            metadata,
            data,
        })
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Safetensors { path, .. } | Self::Pytorch { path, .. } => path,
        }
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
            Self::Pytorch { reader, .. } => {
                let tensors = reader.tensors().iter().map(|(name, tensor)| {
                    let stored = Stored {
                        shape: tensor.shape().to_vec(),
                        storage: of_pytorch(tensor.dtype()),
                    };
                    (name.clone(), stored)
                });
                tensors.collect()
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
        let missing = |path: &Path| LoadError::Missing {
            folder: path.to_owned(),
            tensor: tensor.to_owned(),
        };
        match self {
            Self::Safetensors {
                path,
                metadata,
                data,
            } => {
                let info = metadata.info(tensor).ok_or_else(|| missing(path))?;
                let storage = storage(of_safetensors(info.dtype))?;
                let (start, end) = info.data_offsets;
                let mut bytes = vec![0; end - start];
                let mut read = || -> io::Result<()> {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(data + start as u64))?;
                    file.read_exact(&mut bytes)
                };
                read().map_err(|source| LoadError::Io {
                    path: path.clone(),
                    source,
                })?;
                Ok(storage.to_f32(&bytes))
            }
            Self::Pytorch { path, reader } => {
                let entry = reader.get(tensor).ok_or_else(|| missing(path))?;
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

/// Reads what a safetensors file says of its tensors, and where the first of them begins.
///
/// Weights are then read one tensor at a time: a map of the file would count as memory beside the tensors made of it.
fn header(path: &Path) -> Result<(Metadata, u64), LoadError> {
    const LENGTH: u64 = 8;
    /// As in safetensors' own reader.
    const LONGEST: u64 = 100_000_000;
    let mut file = open(path)?;
    let io = |source| LoadError::Io {
        path: path.to_owned(),
        source,
    };
    let damaged = |source| LoadError::Header {
        path: path.to_owned(),
        source,
    };
    let n_bytes = file.metadata().map_err(io)?.len();
    if n_bytes < LENGTH {
        return Err(damaged(SafeTensorError::HeaderTooSmall));
    }
    let mut length = [0; size_of::<u64>()];
    file.read_exact(&mut length).map_err(io)?;
    let n = u64::from_le_bytes(length);
    if n > LONGEST {
        return Err(damaged(SafeTensorError::HeaderTooLarge));
    }
    if LENGTH + n > n_bytes {
        return Err(damaged(SafeTensorError::InvalidHeaderLength));
    }
    let mut text = Vec::new();
    file.take(n).read_to_end(&mut text).map_err(io)?;
    let metadata: Metadata = serde_json::from_slice(&text)
        .map_err(|error| damaged(SafeTensorError::InvalidHeaderDeserialization(error)))?;
    if LENGTH + n + metadata.data_len() as u64 != n_bytes {
        return Err(damaged(SafeTensorError::MetadataIncompleteBuffer));
    }
    Ok((metadata, LENGTH + n))
}
