//! Why the maps of a dataset cannot be built, or taken from GPT-NeoX's files.

use crate::mmididx::ReadError;
use crate::npy::NpyError;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// Why the maps of a dataset cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An item's size cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is nothing to cut samples from.
    #[error("`{path}`: the items {} to {} hold {n_tokens} tokens in all, at least 2 are needed", items.start, items.end)]
    NoTokens {
        /// The `.idx`.
        path: PathBuf,
        /// The items asked for, half-open.
        items: Range<u64>,
        /// Their tokens.
        n_tokens: u64,
    },
    /// The run goes through the corpus more often than any run does.
    #[error(
        "`{path}`: {n_samples} samples of its {n_tokens} tokens take {n_epochs} epochs, more than {most}"
    )]
    TooManyEpochs {
        /// The `.idx`.
        path: PathBuf,
        /// Samples asked for.
        n_samples: u64,
        /// Tokens of one epoch.
        n_tokens: u64,
        /// The epochs needed.
        n_epochs: u64,
        /// The most that are counted.
        most: u64,
    },
    /// A map would be larger than the numbers it holds.
    #[error(
        "`{path}`: {n_epochs} epochs of {n_items} items make {n_samples} samples, which is more than the maps can count"
    )]
    TooLarge {
        /// The `.idx`.
        path: PathBuf,
        /// The epochs needed.
        n_epochs: u64,
        /// Items of one epoch.
        n_items: u64,
        /// Samples they make.
        n_samples: u64,
    },
    /// There is no memory for a map.
    #[error(
        "`{path}`: the maps of {n_documents} documents and {n_samples} samples do not fit into memory"
    )]
    Memory {
        /// The `.idx`.
        path: PathBuf,
        /// Entries of `doc_idx`.
        n_documents: u64,
        /// Entries of `shuffle_idx`.
        n_samples: u64,
    },
}

/// Why GPT-NeoX's files give no order of a corpus.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A file cannot be read.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// An entry, or a size of the corpus, cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The map belongs to a run whose sequences were packed in another way.
    #[error("`{path}` is a map of {packing}, not of `packed`")]
    Packing {
        /// The file.
        path: PathBuf,
        /// The packing.
        packing: Packing,
    },
    /// The files are not of one run.
    #[error("`{path}` has the shape {found:?}, the other maps ask for {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Its shape.
        found: Vec<u64>,
        /// The shape that fits the others.
        expected: Vec<u64>,
    },
    /// A map is not the permutation it must be.
    #[error("`{path}` is no permutation: {problem}")]
    Defect {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The first sample does not begin with the first document.
    #[error("`{path}`: the first sample begins at {found:?} instead of [0, 0]")]
    Start {
        /// The file.
        path: PathBuf,
        /// Its first row.
        found: [i64; 2],
    },
    /// A sample does not end where the next one begins.
    #[error(
        "`{path}`: sample {sample} does not end where the next one begins, going by the corpus' sizes"
    )]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The sample.
        sample: u64,
    },
}

/// A way of GPT-NeoX to make sequences that is not `packed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packing {
    /// The `pack_impl` that stands in the file's name.
    Named(String),
    /// Every sample begins with a document: `pack_until_overflow` or `unpacked`.
    WholeDocuments,
}

impl fmt::Display for Packing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "the packing `{name}`"),
            Self::WholeDocuments => {
                f.write_str("a packing in which every sample begins with a document")
            }
        }
    }
}

impl MapError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Npy(error) => return error.hint(),
            Self::Read(error) => return error.hint(),
            Self::Packing { .. } => {
                "only `packed` is supported yet, and the seed alone does not give the order of another packing: deleting the maps is no cure. If they are of another run than this one, move them to another folder"
            }
            Self::Shape { .. } | Self::Start { .. } | Self::Misfit { .. } => {
                "the three maps must be of one run over this corpus, at this sequence length; without maps, the order is rebuilt from the seed"
            }
            Self::Defect { .. } => "leave the maps out: the order is rebuilt from the seed",
        };
        Some(hint.to_owned())
    }
}

impl BuildError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Read(error) => return error.hint(),
            Self::NoTokens { .. } => {
                "use a larger corpus, or a split that gives training more items"
            }
            Self::TooManyEpochs { .. } | Self::TooLarge { .. } => {
                "lower the number of steps or the batch size: the corpus is far too small for them"
            }
            Self::Memory { .. } => {
                "give this process more memory: an order takes 4 bytes a document of each epoch and 5 a sample"
            }
        };
        Some(hint.to_owned())
    }
}
