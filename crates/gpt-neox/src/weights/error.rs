//! Why a checkpoint cannot be loaded.

use super::pytorch::PytorchError;
use crate::config::ConfigError;
use crate::device::DeviceError;
use crate::threads::ThreadError;
use safetensors::tensor::SafeTensorError;
use std::fmt;
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
    /// A folder, a pipe or a device stands where a file must.
    #[error("`{path}` is {found}, not a file")]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What is there, with its article.
        found: &'static str,
    },
    /// The file is far larger than any of its kind.
    #[error("`{path}` has {found} bytes, over the limit of {most}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its bytes.
        found: u64,
        /// The most that are read.
        most: u64,
    },
    /// Something else was saved under the file's name.
    #[error("`{path}` is {found}, not the file itself")]
    Impostor {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: Impostor,
    },
    /// The file is not the one that was opened any more.
    #[error("`{path}` was changed or replaced while the checkpoint was being read")]
    Changed {
        /// The file.
        path: PathBuf,
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
    #[error("`{path}` is no list of shards: {problem}")]
    ShardList {
        /// The `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
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
        /// The file of the list: its path in the checkpoint.
        listed: PathBuf,
    },
    /// The names of tensors begin with what training wrapped around the model.
    #[error("`{path}`: the tensor `{tensor}` has `{prefix}` before its name")]
    Prefix {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What stands before its name.
        prefix: String,
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
    /// A weight has only zeros, or many in a row, as files have that were not filled to their end.
    #[error(
        "`{path}`: the tensor `{tensor}` holds {found} zeros in a row from weight {place} on, of {n_weights} weights"
    )]
    Zeros {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where the zeros begin among the tensor's weights, from 0.
        place: usize,
        /// How many follow each other.
        found: usize,
        /// Weights of the tensor.
        n_weights: usize,
    },
    /// The system starts no threads.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// The device cannot be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What is found in place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Impostor {
    /// What git checks out where LFS is not set up.
    LfsPointer,
    /// A page in HTML.
    WebPage,
    /// The words of a server that has no such file, or gives it to nobody.
    Refusal,
}

impl Impostor {
    /// What a file is that begins so.
    pub(super) fn of(beginning: &[u8]) -> Option<Self> {
        let text = beginning.trim_ascii_start().to_ascii_lowercase();
        let begins = |words: &[&str]| words.iter().any(|word| text.starts_with(word.as_bytes()));
        if begins(&["version https://git-lfs.github.com/"]) {
            Some(Self::LfsPointer)
        } else if begins(&["<!doctype html", "<html", "<head", "<?xml"]) {
            Some(Self::WebPage)
        } else if begins(&[
            "entry not found",
            "repository not found",
            "revision not found",
            "invalid username or password",
            "not found",
            "{\"error\":",
        ]) {
            Some(Self::Refusal)
        } else {
            None
        }
    }
}

impl fmt::Display for Impostor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LfsPointer => "a pointer of Git LFS",
            Self::WebPage => "a web page",
            Self::Refusal => "a server's answer that it has no such file",
        })
    }
}

impl LoadError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        const APART: &str = "`config.json` and the weights do not belong together: download both from the same revision";
        let hint = match self {
            Self::Io { source, .. } => return of_io(source).map(str::to_owned),
            Self::NotAFile { .. } => {
                "a checkpoint is a folder of files: put the file there, or a link to it"
            }
            Self::TooLarge { .. } => "another file was saved under this name: download it again",
            Self::Impostor { found, .. } => match found {
                Impostor::LfsPointer => {
                    "fetch the file itself: run `git lfs install` and `git lfs pull` in its repository"
                }
                Impostor::WebPage | Impostor::Refusal => {
                    "the download failed and its answer was saved: check repository, revision and access, and download the file again"
                }
            },
            Self::Changed { .. } => "let the download or copy finish, then start again",
            Self::NoWeights { .. } => {
                "download the checkpoint's weights: its safetensors, or its `.bin` files"
            }
            Self::Config { source, .. } => return source.hint(),
            Self::ShardList { .. } => {
                "download the list of shards again, with its shards, from one revision"
            }
            Self::Pytorch { source, .. } => source.hint(),
            Self::Header { .. } => "the file was cut short on its way: download it again",
            Self::Unused { tensor, .. } if lacks_gpt_neox(tensor) => {
                "these are the weights of a `GPTNeoXModel`, which predicts no tokens: save the `GPTNeoXForCausalLM` around it"
            }
            Self::Missing { .. }
            | Self::Unused { .. }
            | Self::Shape { .. }
            | Self::Twice { .. }
            | Self::Elsewhere { .. } => APART,
            Self::Prefix { prefix, .. } => {
                return Some(format!(
                    "the model was saved with what training wrapped around it: take `{prefix}` off all names, or save the model within"
                ));
            }
            Self::Storage { .. } => {
                "load the model with transformers and save it as float32, float16 or bfloat16"
            }
            Self::NotFinite { .. } => {
                "the checkpoint is damaged, or its training had diverged: download it again"
            }
            Self::Zeros { .. } => {
                "the file was made at its full length and not filled to its end: download it again"
            }
            Self::Threads(error) => return Some(error.hint().to_owned()),
            Self::Device(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

impl PytorchError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Unknown => {
                "download it again; weights in another format must be saved by `torch.save`"
            }
            Self::Archive(_) | Self::Pickle(_) | Self::Tensor { .. } => {
                "the file was cut short or damaged on its way: download it again"
            }
            Self::Compressed { .. } | Self::BigEndian => {
                "load it with PyTorch and save it again on this machine"
            }
            Self::NoStateDict => "save `model.state_dict()`, not the model",
        }
    }
}

/// The cure for what the system says.
fn of_io(error: &io::Error) -> Option<&'static str> {
    // Standing for both, since neither has a kind of its own: open files of a process, and of all.
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        return Some("too many files are open: raise the limit with `ulimit -n`");
    }
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Some(
            "a checkpoint is a folder with `config.json` and `model.safetensors`: check the run file's `model.folder`, or download it",
        ),
        io::ErrorKind::PermissionDenied => Some(
            "the file is there, but this user may not read it: change its permissions or its folder's",
        ),
        io::ErrorKind::UnexpectedEof => Some("the file was cut short: download it again"),
        _ => None,
    }
}

/// Whether a name is one of a model without its output projection.
fn lacks_gpt_neox(tensor: &str) -> bool {
    ["embed_in.", "layers.", "final_layer_norm."]
        .iter()
        .any(|name| tensor.starts_with(name))
}
