//! A checkpoint folder in Hugging Face layout: every tensor there, of the right shape, and no other.

mod error;
mod file;
mod opened;
mod pickle;
mod pytorch;
mod shards;
mod values;
mod zip;

pub use error::{Impostor, LoadError};
pub use pytorch::PytorchError;

use crate::config::GptNeoxConfig;
use file::{Stored, WeightFile};
use opened::{OpenFile, ReadFile};
use shards::WeightFiles;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Bytes of a `config.json`.
const LONGEST_CONFIG: u64 = 1 << 20;

/// Buffers that published files carry and that follow from the configuration: causal mask, its filling, and
/// rotary frequencies.
const BUFFERS: [&str; 3] = [
    "attention.bias",
    "attention.masked_bias",
    "attention.rotary_emb.inv_freq",
];

/// A checkpoint whose files are open and known to hold exactly the tensors that its model needs: they are read one by
/// one, without a model being made of them. Its files stay open, so that all is read from the same ones.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    config: GptNeoxConfig,
    /// `config.json`, and the list of shards where there is one.
    texts: Vec<ReadFile>,
    files: Vec<WeightFile>,
    /// By tensor: the file it is in.
    places: BTreeMap<String, usize>,
}

/// The files that decide what the model in `folder` answers: its configuration, and its weights with their list of
/// shards. Where both are there, safetensors are taken and `.bin` files left alone.
///
/// # Errors
///
/// When there are no weights, or their list of shards cannot be read.
pub fn checkpoint_files(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let weights = WeightFiles::find(folder)?;
    let mut files = vec![folder.join("config.json")];
    files.extend(weights.list.iter().map(|list| list.path().to_owned()));
    files.extend(weights.files.iter().map(|file| folder.join(file)));
    Ok(files)
}

impl Checkpoint {
    /// Opens the checkpoint in `folder` and checks everything but the weights' values.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, a tensor is missing, superfluous or of another shape than `config.json` asks for.
    pub fn open(folder: &Path) -> Result<Self, LoadError> {
        let config_file = OpenFile::open(&folder.join("config.json"))?;
        let text = config_file.read_all(LONGEST_CONFIG)?;
        let config = GptNeoxConfig::from_json(&text).map_err(|source| LoadError::Config {
            path: config_file.path().to_owned(),
            source,
        })?;
        let weights = WeightFiles::find(folder)?;
        let paths = weights.files.iter().map(|file| folder.join(file));
        let files = paths.map(|path| WeightFile::open(&path));
        let files = files.collect::<Result<Vec<_>, LoadError>>()?;
        let places = check_tensors(folder, &config, &files, &weights)?;
        let texts = [config_file].into_iter().chain(weights.list);
        Ok(Self {
            folder: folder.to_owned(),
            config,
            texts: texts.map(OpenFile::close).collect(),
            files,
            places,
        })
    }

    /// Reads every tensor that the model needs once, one at a time: the weights are finite and not blank, and storages of
    /// `.bin` files have their checksums.
    ///
    /// # Errors
    ///
    /// What loading the model would stumble over.
    pub fn check(&self) -> Result<(), LoadError> {
        for tensor in self.places.keys() {
            self.read(tensor)?;
        }
        self.check_unchanged()
    }

    /// Makes sure that the files are those that were opened, and were not edited since: their device, inode, size and time
    /// are compared, of what is open and of what is at their paths now.
    ///
    /// # Errors
    ///
    /// [`LoadError::Changed`] with the first file that is another one.
    pub fn check_unchanged(&self) -> Result<(), LoadError> {
        self.texts.iter().try_for_each(ReadFile::check_unchanged)?;
        let mut weights = self.files.iter().map(WeightFile::file);
        weights.try_for_each(OpenFile::check_unchanged)
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
    /// When there is no such tensor, it cannot be read, a weight is not finite, or they are blank: a matrix with one run of
    /// zeros that is an eighth of it and 4,096 numbers or more, and a weight without any other number.
    pub fn read(&self, tensor: &str) -> Result<Vec<f32>, LoadError> {
        let missing = || LoadError::Missing {
            folder: self.folder.clone(),
            tensor: tensor.to_owned(),
        };
        let file = self.places.get(tensor).map(|&file| &self.files[file]);
        let file = file.ok_or_else(missing)?;
        let shape = file.shape(tensor).ok_or_else(missing)?;
        let weights = file.read(tensor)?;
        values::check(file.path(), tensor, shape, &weights)?;
        Ok(weights)
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
    listed: &WeightFiles,
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
                return Err(unexpected(&expected, path(), tensor));
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
            if let Some(listed) = listed.places.get(&tensor)
                && folder.join(listed) != file.path()
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

/// What is wrong with a file that holds this tensor, which the model does not have.
fn unexpected(expected: &BTreeMap<String, Vec<usize>>, path: PathBuf, tensor: String) -> LoadError {
    let dots = tensor.match_indices('.').map(|(dot, _)| dot + 1);
    let mut prefixes = dots.filter(|end| expected.contains_key(&tensor[*end..]));
    match prefixes.next() {
        None => LoadError::Unused { path, tensor },
        Some(end) => LoadError::Prefix {
            path,
            prefix: tensor[..end].to_owned(),
            tensor,
        },
    }
}

fn is_buffer(tensor: &str, n_layers: usize) -> bool {
    let in_layers = tensor.strip_prefix("gpt_neox.layers.");
    let parts = in_layers.and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(layer, name)| {
        let layer = layer.parse().ok().filter(|layer| *layer < n_layers);
        // Written as we would: neither `+1` nor `01`.
        BUFFERS.contains(&name) && layer.is_some_and(|layer| in_layer(layer, name) == tensor)
    })
}
