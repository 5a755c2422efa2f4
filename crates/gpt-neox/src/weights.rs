//! A checkpoint folder in Hugging Face layout: every tensor there, of the right shape, and no other.

use crate::config::{ConfigError, GptNeoxConfig};
use crate::device::DeviceError;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Buffers that published files carry and that follow from the configuration: causal mask, its filling, and
/// rotary frequencies.
const BUFFERS: [&str; 3] = [
    "attention.bias",
    "attention.masked_bias",
    "attention.rotary_emb.inv_freq",
];

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
    #[error("`{folder}` holds neither `model.safetensors` nor `model.safetensors.index.json`")]
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
        /// The `model.safetensors.index.json`.
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
    #[error("`{path}`: the tensor `{tensor}` is stored as {found:?}, not as F32, F16 or BF16")]
    Storage {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// How it is stored.
        found: Dtype,
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

/// A checkpoint whose files are mapped and known to hold exactly the tensors that its model needs.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    config: GptNeoxConfig,
    files: Vec<(PathBuf, Mmap)>,
    /// By tensor: the file it is in.
    places: BTreeMap<String, usize>,
}

/// `model.safetensors.index.json`
#[derive(Deserialize)]
struct ShardList {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder` and checks everything but the weights' values.
    pub(crate) fn open(folder: &Path) -> Result<Self, LoadError> {
        let config_path = folder.join("config.json");
        let text = fs::read(&config_path).map_err(|source| LoadError::Io {
            path: config_path.clone(),
            source,
        })?;
        let config = GptNeoxConfig::from_json(&text).map_err(|source| LoadError::Config {
            path: config_path,
            source,
        })?;
        let files = weight_files(folder)?
            .into_iter()
            .map(|path| Ok((map(&path)?, path)).map(|(map, path)| (path, map)));
        let files = files.collect::<Result<Vec<_>, LoadError>>()?;
        let places = check_tensors(folder, &config, &files)?;
        Ok(Self {
            config,
            files,
            places,
        })
    }

    pub(crate) fn config(&self) -> &GptNeoxConfig {
        &self.config
    }

    /// The weights of a tensor, row by row.
    pub(crate) fn read(&self, tensor: &str) -> Result<Vec<f32>, LoadError> {
        let missing = || LoadError::Missing {
            folder: self
                .files
                .first()
                .and_then(|(path, _)| path.parent())
                .unwrap_or(Path::new(""))
                .to_owned(),
            tensor: tensor.to_owned(),
        };
        let (path, bytes) = self
            .places
            .get(tensor)
            .map(|&file| &self.files[file])
            .ok_or_else(missing)?;
        let header = |source| LoadError::Header {
            path: path.clone(),
            source,
        };
        let tensors = SafeTensors::deserialize(bytes).map_err(header)?;
        let view = tensors.tensor(tensor).map_err(header)?;
        let data = view.data();
        let weights: Vec<f32> = match view.dtype() {
            Dtype::F32 => data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
            Dtype::F16 => data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
                .collect(),
            Dtype::BF16 => data
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
                .collect(),
            found => {
                return Err(LoadError::Storage {
                    path: path.clone(),
                    tensor: tensor.to_owned(),
                    found,
                });
            }
        };
        match weights.iter().position(|weight| !weight.is_finite()) {
            None => Ok(weights),
            Some(place) => {
                let found = weights[place];
                Err(LoadError::NotFinite {
                    path: path.clone(),
                    tensor: tensor.to_owned(),
                    place,
                    found,
                })
            }
        }
    }
}

/// Name of a tensor of a layer.
pub(crate) fn in_layer(layer: usize, name: &str) -> String {
    format!("gpt_neox.layers.{layer}.{name}")
}

/// Every tensor of a model with its shape (`GPTNeoXForCausalLM` in transformers' `modeling_gpt_neox.py`).
fn expected_tensors(config: &GptNeoxConfig) -> BTreeMap<String, Vec<usize>> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let mut expected = BTreeMap::new();
    expected.insert(
        "gpt_neox.embed_in.weight".to_owned(),
        vec![config.vocab_size, hidden],
    );
    if !config.tie_word_embeddings {
        expected.insert(
            "embed_out.weight".to_owned(),
            vec![config.vocab_size, hidden],
        );
    }
    expected.insert("gpt_neox.final_layer_norm.weight".to_owned(), vec![hidden]);
    expected.insert("gpt_neox.final_layer_norm.bias".to_owned(), vec![hidden]);
    for layer in 0..config.num_hidden_layers {
        let mut linear = |name: &str, shape: [usize; 2], bias: bool| {
            expected.insert(in_layer(layer, &format!("{name}.weight")), shape.to_vec());
            if bias {
                expected.insert(in_layer(layer, &format!("{name}.bias")), vec![shape[0]]);
            }
        };
        linear(
            "attention.query_key_value",
            [3 * hidden, hidden],
            config.attention_bias,
        );
        linear("attention.dense", [hidden, hidden], config.attention_bias);
        linear("mlp.dense_h_to_4h", [inner, hidden], true);
        linear("mlp.dense_4h_to_h", [hidden, inner], true);
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            expected.insert(in_layer(layer, &format!("{norm}.weight")), vec![hidden]);
            expected.insert(in_layer(layer, &format!("{norm}.bias")), vec![hidden]);
        }
    }
    expected
}

/// Finds every expected tensor in the files; refuses any other but [`BUFFERS`].
fn check_tensors(
    folder: &Path,
    config: &GptNeoxConfig,
    files: &[(PathBuf, Mmap)],
) -> Result<BTreeMap<String, usize>, LoadError> {
    let expected = expected_tensors(config);
    let mut places = BTreeMap::new();
    for (number, (path, bytes)) in files.iter().enumerate() {
        let header = |source| LoadError::Header {
            path: path.clone(),
            source,
        };
        let (_, metadata): (usize, Metadata) = SafeTensors::read_metadata(bytes).map_err(header)?;
        let tensors: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
        for (tensor, info) in tensors {
            let Some(shape) = expected.get(&tensor) else {
                if is_buffer(&tensor, config.num_hidden_layers)
                    || (config.tie_word_embeddings && tensor == "embed_out.weight")
                {
                    continue;
                }
                return Err(LoadError::Unused {
                    path: path.clone(),
                    tensor,
                });
            };
            if info.shape != *shape {
                let (found, expected) = (info.shape.clone(), shape.clone());
                return Err(LoadError::Shape {
                    path: path.clone(),
                    tensor,
                    found,
                    expected,
                });
            }
            if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                return Err(LoadError::Storage {
                    path: path.clone(),
                    tensor,
                    found: info.dtype,
                });
            }
            if places.contains_key(&tensor) {
                return Err(LoadError::Twice {
                    path: path.clone(),
                    tensor,
                });
            }
            places.insert(tensor, number);
        }
    }
    match expected
        .into_keys()
        .find(|tensor| !places.contains_key(tensor))
    {
        None => Ok(places),
        Some(tensor) => Err(LoadError::Missing {
            folder: folder.to_owned(),
            tensor,
        }),
    }
}

fn is_buffer(tensor: &str, n_layers: usize) -> bool {
    (0..n_layers).any(|layer| {
        BUFFERS
            .iter()
            .any(|buffer| tensor == in_layer(layer, buffer))
    })
}

/// The one file of weights, or its shards.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let single = folder.join("model.safetensors");
    if single.exists() {
        return Ok(vec![single]);
    }
    let path = folder.join("model.safetensors.index.json");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(LoadError::NoWeights {
                folder: folder.to_owned(),
            });
        }
        Err(source) => return Err(LoadError::Io { path, source }),
    };
    let list: ShardList =
        serde_json::from_slice(&text).map_err(|source| LoadError::ShardList { path, source })?;
    let names: BTreeSet<String> = list.weight_map.into_values().collect();
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

#[expect(
    unsafe_code,
    reason = "the weights of large models are read in place, without a second copy in memory"
)]
fn map(path: &Path) -> Result<Mmap, LoadError> {
    let failed = |source| LoadError::Io {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is read-only, and every number is copied out of it before use. Should another process
    // change the file meanwhile, a copy holds other numbers, but no undefined value.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

impl LoadError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "a checkpoint is a folder with `config.json` and `model.safetensors`: check the run file's `model.folder`, or download it"
            }
            Self::NoWeights { .. } => {
                "download the checkpoint's weights, or convert its `.bin` files to safetensors"
            }
            Self::Header { .. } => "the file was cut short on its way: download it again",
            Self::Missing { .. }
            | Self::Unused { .. }
            | Self::Shape { .. }
            | Self::Twice { .. } => {
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
