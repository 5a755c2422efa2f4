//! What can be wrong with a corpus on disk.

use crate::file::{self, Change};
use crate::impostor::Impostor;
use crate::mmididx::header::MAGIC;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

const DOWNLOAD: &str = "the file was cut short on its way: copy or download it again, and compare its size with the source's";
const MISMATCH: &str = "the `.idx` and the `.bin` do not belong together, or one of them is damaged: use the pair that was written together";

/// The files that hold the tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinFiles {
    /// The `.bin`, or the first shard.
    pub path: PathBuf,
    /// How many files there are.
    pub n_files: usize,
}

/// The other form of the tokens, which lies beside the one that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beside {
    /// A `.bin` beside all shards.
    Bin(PathBuf),
    /// Some shards of a set beside the `.bin`.
    SomeShards,
}

/// Why a corpus cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be opened or mapped.
    #[error("opening `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else lies under the file's name.
    #[error("`{path}` {found}")]
    Impostor {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: Impostor,
    },
    /// The `.idx` does not begin with the magic bytes.
    #[error("`{path}` begins with the bytes {found:02x?} instead of `MMIDIDX\\0\\0`")]
    Magic {
        /// The `.idx`.
        path: PathBuf,
        /// Its first nine bytes, or fewer.
        found: Vec<u8>,
    },
    /// The `.idx` is of another version.
    #[error("`{path}`, byte 9: version {found} instead of 1")]
    Version {
        /// The `.idx`.
        path: PathBuf,
        /// What it says.
        found: u64,
    },
    /// The tokens are of a type that no tokenizer writes.
    #[error("`{path}`, byte 17: token type {found} is not one of 1 to 5 and 8, the whole numbers")]
    TokenType {
        /// The `.idx`.
        path: PathBuf,
        /// The code it gives.
        found: u8,
    },
    /// The `.idx` is not as long as its header says.
    #[error("`{path}` has {found} bytes where its header asks for {expected}")]
    IdxLength {
        /// The `.idx`.
        path: PathBuf,
        /// Bytes that the header's counts ask for; more than 2⁶⁴ are shown as 2⁶⁴ − 1.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The `.bin` ends before the last item does.
    #[error("{files} {found} bytes, but its last item, {item}, ends at byte {end}")]
    ShortBin {
        /// The `.bin` or its shards.
        files: BinFiles,
        /// The last item.
        item: u64,
        /// Where it ends, in bytes.
        end: u64,
        /// Bytes there are.
        found: u64,
        /// What lies beside it.
        beside: Option<Beside>,
    },
    /// The `.bin` goes on after the last item.
    #[error("{files} {found} bytes, but the items of `{idx}` end at byte {end}")]
    LongBin {
        /// The `.bin` or its shards.
        files: BinFiles,
        /// The `.idx`.
        idx: PathBuf,
        /// Where the item ends that ends last, in bytes.
        end: u64,
        /// Bytes there are.
        found: u64,
        /// What lies beside it.
        beside: Option<Beside>,
    },
    /// Shards of two different sets lie side by side.
    #[error(
        "`{path}` is a shard of a set that ends with {last}, beside shards of one that ends with {other}"
    )]
    Shards {
        /// The file.
        path: PathBuf,
        /// The last number of its set.
        last: u64,
        /// That of the others.
        other: u64,
    },
    /// The name of a shard gives it no place in its set.
    #[error("`{path}` {problem}")]
    ShardNumber {
        /// The file.
        path: PathBuf,
        /// What is wrong with its number.
        problem: String,
    },
    /// An item's entries make no sense.
    #[error(transparent)]
    LastItem(#[from] ReadError),
}

/// Why tokens cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system does not say how a file is.
    #[error("asking about `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no such item.
    #[error("`{path}` has no item {item}: there are {n_items}")]
    Item {
        /// The `.idx`.
        path: PathBuf,
        /// The item asked for.
        item: u64,
        /// How many there are.
        n_items: u64,
    },
    /// A map of GPT-NeoX's names something that is not there.
    #[error("`{path}`: entry {place} is {found}, which is not below {limit}")]
    Map {
        /// The `.npy` file.
        path: PathBuf,
        /// The entry, counted row by row.
        place: u64,
        /// Its value.
        found: i64,
        /// What it must be below.
        limit: u64,
    },
    /// A dataset has no such sample.
    #[error("`{path}`: there is no sample {sample}, its maps hold {n_samples}")]
    Sample {
        /// The `.idx`.
        path: PathBuf,
        /// The sample asked for.
        sample: u64,
        /// How many there are.
        n_samples: u64,
    },
    /// A sample reaches beyond the documents.
    #[error("`{path}`: a sample goes on after the last of its {n_documents} documents")]
    OutOfDocuments {
        /// The `doc_idx`, or the `.idx` where it was built.
        path: PathBuf,
        /// How many there are.
        n_documents: u64,
    },
    /// The loader serves no such sequence.
    #[error("there is no sequence {training_index}: the loader serves {n_sequences}")]
    Sequence {
        /// The training index asked for.
        training_index: u64,
        /// How many there are.
        n_sequences: u64,
    },
    /// An item of a preshuffled corpus is no sequence.
    #[error("`{path}`: item {item} has {found} tokens where a preshuffled sequence has {expected}")]
    NotPreshuffled {
        /// The `.idx`.
        path: PathBuf,
        /// The item.
        item: u64,
        /// Its tokens.
        found: u64,
        /// Tokens of a sequence.
        expected: u64,
    },
    /// A sequence has no such tokens.
    #[error("the sequence {training_index} has {len} tokens, not the tokens {} to {}", asked.start, asked.end)]
    SequenceTokens {
        /// Its training index.
        training_index: u64,
        /// Its tokens.
        len: u64,
        /// The tokens asked for.
        asked: Range<u32>,
    },
    /// The item has no such tokens.
    #[error("`{path}`: item {item} has {len} tokens, not the tokens {} to {}", asked.start, asked.end)]
    Range {
        /// The `.idx`.
        path: PathBuf,
        /// The item.
        item: u64,
        /// Its tokens.
        len: u64,
        /// The tokens asked for.
        asked: Range<u64>,
    },
    /// An item's size is negative.
    #[error("`{path}`, byte {offset}: item {item} has the size {found}")]
    Size {
        /// The `.idx`.
        path: PathBuf,
        /// The item.
        item: u64,
        /// Where its size stands.
        offset: u64,
        /// The size.
        found: i32,
    },
    /// An item's place in the `.bin` is negative or overflows.
    #[error("`{path}`, byte {offset}: item {item} lies at byte {found}")]
    Pointer {
        /// The `.idx`.
        path: PathBuf,
        /// The item.
        item: u64,
        /// Where its pointer stands.
        offset: u64,
        /// The pointer.
        found: i64,
    },
    /// An item lies outside the `.bin`.
    #[error("{files} {found} bytes, but item {item} reaches to byte {end}")]
    Beyond {
        /// The `.bin` or its shards.
        files: BinFiles,
        /// The item.
        item: u64,
        /// The byte it reaches to.
        end: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The file is not as it was when it was opened.
    #[error("`{path}` has changed since it was opened: {change}")]
    Changed {
        /// The file.
        path: PathBuf,
        /// In what.
        change: Change,
    },
    /// A token id is negative or above 2³² − 1.
    #[error("`{path}`: token {token} of item {item} is {found}, which is no token id")]
    Token {
        /// The `.bin`.
        path: PathBuf,
        /// The item.
        item: u64,
        /// The token's place in it.
        token: u64,
        /// The value.
        found: i64,
    },
}

impl fmt::Display for BinFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n_files {
            0 | 1 => write!(f, "`{}` has", self.path.display()),
            n => write!(f, "the {n} shards from `{}` on have", self.path.display()),
        }
    }
}

impl BinFiles {
    fn short_hint(&self, beside: Option<&Beside>) -> String {
        match beside {
            Some(Beside::Bin(path)) => format!(
                "one of the shards was cut short: download them again; where `{}` beside them is whole, remove the shards instead",
                path.display()
            ),
            Some(Beside::SomeShards) => {
                "the `.bin` was not put together to its end: with all shards beside it, the shards are read, and without any the `.bin` must be whole".to_owned()
            }
            None if self.n_files > 1 => {
                "one of the shards was cut short on its way: compare their sizes with the source's, and download that one again".to_owned()
            }
            None => DOWNLOAD.to_owned(),
        }
    }
}

impl OpenError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "name the two files without `.idx` and `.bin`; both must lie in the same folder, the `.bin` whole or with all its shards"
            }
            Self::Io { source, .. } => file::hint(source)?,
            Self::Impostor { found, .. } => found.hint(),
            Self::Magic { found, .. } if MAGIC.starts_with(found) => DOWNLOAD,
            Self::Magic { .. } => {
                "this is no memory-mapped Megatron index: `TNTIDX` files and JSON lines must be tokenized again with `--dataset-impl mmap`"
            }
            Self::Version { .. } | Self::TokenType { .. } => {
                "the file is damaged or of a format that GPT-NeoX does not write: make it again"
            }
            Self::IdxLength {
                expected, found, ..
            } if found > expected => {
                "the file holds more than one index or its header is damaged: make it again"
            }
            Self::IdxLength { .. } => DOWNLOAD,
            Self::ShortBin { files, beside, .. } => return Some(files.short_hint(beside.as_ref())),
            Self::LongBin {
                beside: Some(Beside::Bin(path)),
                ..
            } => {
                return Some(format!(
                    "the shards and the `.idx` were not written together; where `{}` beside them belongs to the `.idx`, remove the shards",
                    path.display()
                ));
            }
            Self::LongBin { .. } => {
                "the `.idx` and the `.bin` were not written together: the `.idx` is older, or of a part of the corpus; use the pair that was written together"
            }
            Self::Shards { .. } => "keep each set of shards in a folder of its own",
            Self::ShardNumber { .. } => {
                "keep one file of each number, from `-00000-of-` to the last number of the set"
            }
            Self::LastItem(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

impl ReadError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } => file::hint(source)?,
            Self::Item { .. }
            | Self::Sample { .. }
            | Self::Sequence { .. }
            | Self::SequenceTokens { .. }
            | Self::Range { .. } => return None,
            Self::Beyond { files, .. } => return Some(files.short_hint(None)),
            Self::Changed { change, .. } => change.hint(),
            Self::NotPreshuffled { .. } => {
                "the corpus is not preshuffled, or for another sequence length"
            }
            Self::Map { .. } | Self::OutOfDocuments { .. } => {
                "the map belongs to another corpus, or is damaged: rebuild it from the seed by leaving it out"
            }
            Self::Size { .. } | Self::Pointer { .. } | Self::Token { .. } => MISMATCH,
        };
        Some(hint.to_owned())
    }
}
