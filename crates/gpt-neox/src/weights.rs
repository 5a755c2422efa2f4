//! A checkpoint folder in Hugging Face layout: every tensor there, of the right shape, and no other.

mod error;
mod file;

pub use error::LoadError;

use crate::config::GptNeoxConfig;
use file::{Stored, WeightFile};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Buffers that published files carry and that follow from the configuration: causal mask, its filling, and
/// rotary frequencies.
const BUFFERS: [&str; 3] = [
    "attention.bias",
    "attention.masked_bias",
    "attention.rotary_emb.inv_freq",
];

/// A checkpoint whose files are open and known to hold exactly the tensors that its model needs: they are read one by
/// one, without a model being made of them.
#[derive(Debug)]
pub struct Checkpoint {
    config: GptNeoxConfig,
    files: Vec<WeightFile>,
    /// By tensor: the file it is in.
    places: BTreeMap<String, usize>,
}

/// `model.safetensors.index.json` or `pytorch_model.bin.index.json`
#[derive(Deserialize)]
struct ShardList {
    weight_map: BTreeMap<String, String>,
}

/// The files that decide what the model in `folder` answers: its configuration, and its weights with their list of
/// shards. Where both are there, safetensors are taken and `.bin` files left alone.
///
/// # Errors
///
/// When there are no weights, or their list of shards cannot be read.
pub fn checkpoint_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let weights = weight_files(folder)?;
    let mut files = vec![folder.join("config.json")];
    files.extend(weights.list);
    files.extend(weights.files);
    Ok(files)
}

impl Checkpoint {
    /// Opens the checkpoint in `folder` and checks everything but the weights' values.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, a tensor is missing, superfluous or of another shape than `config.json` asks for.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let config_path = folder.join("config.json");
        let text = fs::read(&config_path).map_err(|source| LoadError::Io {
            path: config_path.clone(),
            source,
        })?;
        let config = GptNeoxConfig::from_json(&text).map_err(|source| LoadError::Config {
            path: config_path,
            source,
        })?;
        let weights = weight_files(folder)?;
        let files = weights.files.iter().map(|path| WeightFile::open(path));
        let files = files.collect::<Result<Vec<_>, LoadError>>()?;
        let places = check_tensors(folder, &config, &files, &weights.places)?;
        Ok(Self {
            config,
            files,
            places,
        })
    }

    /// Its `config.json`; [`tensor_shapes`] says which tensors that asks for.
    pub fn config(&self) -> &GptNeoxConfig {
        &self.config
    }

    /// The types that its tensors are stored in: `F32`, `F16` or `BF16`.
    pub fn storage(&self) -> BTreeSet<&'static str> {
        let tensors = self.files.iter().flat_map(WeightFile::tensors);
        let needed = tensors.filter(|(tensor, _)| self.places.contains_key(tensor));
        needed
            .filter_map(|(_, stored)| Some(stored.storage.ok()?.name()))
            .collect()
    }

    /// The weights of a tensor, row by row.
    ///
    /// # Errors
    ///
    /// When there is no such tensor, it cannot be read, or a weight is not finite.
    pub fn read(&self, tensor: &str) -> Result<Vec<f32>, LoadError> {
        let missing = || LoadError::Missing {
            folder: self
                .files
                .first()
                .and_then(|file| file.path().parent())
                .unwrap_or(Path::new(""))
                .to_owned(),
            tensor: tensor.to_owned(),
        };
        let file = self.places.get(tensor).map(|&file| &self.files[file]);
        let file = file.ok_or_else(missing)?;
        let weights = file.read(tensor)?;
        match weights.iter().position(|weight| !weight.is_finite()) {
            None => Ok(weights),
            Some(place) => {
                let found = weights[place];
                Err(LoadError::NotFinite {
                    path: file.path().to_owned(),
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
pub fn tensor_shapes(config: &GptNeoxConfig) -> BTreeMap<String, Vec<usize>> {
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
    files: &[WeightFile],
    listed: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, usize>, LoadError> {
    let expected = tensor_shapes(config);
    let mut places = BTreeMap::new();
    for (number, file) in files.iter().enumerate() {
        let path = || file.path().to_owned();
        for (tensor, Stored { shape, storage }) in file.tensors() {
            let Some(wanted) = expected.get(&tensor) else {
                if is_buffer(&tensor, config.num_hidden_layers)
                    || (config.tie_word_embeddings && tensor == "embed_out.weight")
                {
                    continue;
                }
                return Err(LoadError::Unused {
                    path: path(),
                    tensor,
                });
            };
            if shape != *wanted {
                return Err(LoadError::Shape {
                    path: path(),
                    tensor,
                    found: shape,
                    expected: wanted.clone(),
                });
            }
            if let Err(found) = storage {
                return Err(LoadError::Storage {
                    path: path(),
                    tensor,
                    found,
                });
            }
            if let Some(listed) = listed.get(&tensor)
                && file.path().file_name() != Some(listed.as_ref())
            {
                return Err(LoadError::Elsewhere {
                    path: path(),
                    tensor,
                    listed: listed.clone(),
                });
            }
            if places.contains_key(&tensor) {
                return Err(LoadError::Twice {
                    path: path(),
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

/// Where the weights of a checkpoint are.
struct WeightFiles {
    files: Vec<PathBuf>,
    /// The list of shards, where there is one.
    list: Option<PathBuf>,
    /// By tensor: name of the file that the list places it in.
    places: BTreeMap<String, String>,
}

/// The one file of weights, or its shards; safetensors before PyTorch's.
fn weight_files(folder: &Path) -> Result<WeightFiles, LoadError> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        let single = folder.join(name);
        if single.exists() {
            return Ok(WeightFiles {
                files: vec![single],
                list: None,
                places: BTreeMap::new(),
            });
        }
        let path = folder.join(format!("{name}.index.json"));
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(LoadError::Io { path, source }),
        };
        let list: ShardList =
            serde_json::from_slice(&text).map_err(|source| LoadError::ShardList {
                path: path.clone(),
                source,
            })?;
        let names: BTreeSet<&String> = list.weight_map.values().collect();
        return Ok(WeightFiles {
            files: names.into_iter().map(|name| folder.join(name)).collect(),
            list: Some(path),
            places: list.weight_map,
        });
    }
    Err(LoadError::NoWeights {
        folder: folder.to_owned(),
    })
}
