//! Why a checkpoint cannot be loaded.

use crate::config::ConfigError;
use crate::device::DeviceError;
use pytorch_reader::PytorchError;
use safetensors::tensor::SafeTensorError;
use std::io;
use std::path::PathBuf;

/// Why a checkpoint cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("reading `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no file of weights.
    #[error(
        "`{folder}` holds neither `model.safetensors` nor `pytorch_model.bin`, nor a list of their shards"
    )]
    NoWeights {
        /// The checkpoint.
        folder: PathBuf,
    },
    /// The configuration describes no model of ours.
    #[error("`{path}`")]
    Config {
        /// The `config.json`.
        path: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// The list of shards cannot be understood.
    #[error("`{path}` is no list of shards")]
    ShardList {
        /// The `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The file is no safetensors file, or not a whole one.
    #[error("`{path}` is no whole safetensors file")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SafeTensorError,
    },
    /// The file is no PyTorch checkpoint, or not a whole one.
    #[error("`{path}` is no whole PyTorch checkpoint")]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PytorchError,
    },
    /// The list of shards says that a tensor is in another file.
    #[error("`{path}` holds the tensor `{tensor}`, which the list of shards places in `{listed}`")]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The file of the list.
        listed: String,
    },
    /// The model needs a tensor that is not there.
    #[error("`{folder}` lacks the tensor `{tensor}`")]
    Missing {
        /// The checkpoint.
        folder: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The file holds a tensor that the model does not have.
    #[error(
        "`{path}` holds the tensor `{tensor}`, which the model of its `config.json` does not have"
    )]
    Unused {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is in two shards.
    #[error("`{path}` holds the tensor `{tensor}`, which another shard holds, too")]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor is of another shape than the configuration asks for.
    #[error(
        "`{path}`: the tensor `{tensor}` has the shape {found:?}, the `config.json` asks for {expected:?}"
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape of the model's tensor.
        expected: Vec<usize>,
    },
    /// A tensor holds other numbers than weights are stored in.
    #[error("`{path}`: the tensor `{tensor}` is stored as {found}, not as F32, F16 or BF16")]
    Storage {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        found: String,
    },
    /// A weight is infinite or not a number.
    #[error("`{path}`: the weight {place} of the tensor `{tensor}` is {found}")]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its place among the tensor's weights, from 0.
        place: usize,
        /// The weight.
        found: f32,
    },
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl LoadError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "a checkpoint is a folder with `config.json` and `model.safetensors`: check the run file's `model.folder`, or download it"
            }
            Self::NoWeights { .. } => {
                "download the checkpoint's weights: its safetensors, or its `.bin` files"
            }
            Self::Header { .. } | Self::Pytorch { .. } => {
                "the file was cut short on its way: download it again"
            }
            Self::Missing { .. }
            | Self::Unused { .. }
            | Self::Shape { .. }
            | Self::Twice { .. }
            | Self::Elsewhere { .. } => {
                "`config.json` and the weights do not belong together: download both from the same revision"
            }
            Self::NotFinite { .. } => {
                "the checkpoint is damaged, or its training had diverged: download it again"
            }
            Self::Device(error) => return error.hint(),
            Self::Io { .. }
            | Self::Config { .. }
            | Self::ShardList { .. }
            | Self::Storage { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
