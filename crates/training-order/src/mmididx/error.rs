//! What can be wrong with a corpus on disk.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

const DOWNLOAD: &str = "the file was cut short on its way: copy or download it again, and compare its size with the source's";
const MISMATCH: &str = "the `.idx` and the `.bin` do not belong together, or one of them is damaged: use the pair that was written together";

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
    #[error("`{path}` has {found} bytes, but its last item, {item}, ends at byte {end}")]
    ShortBin {
        /// The `.bin`.
        path: PathBuf,
        /// The last item.
        item: u64,
        /// Where it ends, in bytes.
        end: u64,
        /// Bytes there are.
        found: u64,
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
    /// The last item's entries make no sense.
    #[error(transparent)]
    LastItem(#[from] ReadError),
}

/// Why tokens cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
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
    #[error("`{path}` has {found} bytes, but item {item} reaches to byte {end}")]
    Beyond {
        /// The `.bin`.
        path: PathBuf,
        /// The item.
        item: u64,
        /// The byte it reaches to.
        end: u64,
        /// Bytes there are.
        found: u64,
    },
    /// The file has become shorter since it was opened.
    #[error("`{path}` had {opened} bytes when it was opened, and has {found} now")]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Its length then.
        opened: u64,
        /// Its length now.
        found: u64,
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

impl OpenError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "name the two files without `.idx` and `.bin`; both must lie in the same folder, the `.bin` whole or with all its shards"
            }
            Self::Io { .. } => return None,
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
            Self::IdxLength { .. } | Self::ShortBin { .. } => DOWNLOAD,
            Self::Shards { .. } => "keep each set of shards in a folder of its own",
            Self::LastItem(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

impl ReadError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Item { .. }
            | Self::Sequence { .. }
            | Self::SequenceTokens { .. }
            | Self::Range { .. } => None,
            Self::Beyond { .. } => Some(DOWNLOAD.to_owned()),
            Self::Shrunk { .. } => Some("another program writes the file: let it finish, then begin again".to_owned()),
            Self::NotPreshuffled { .. } => Some("the corpus is not preshuffled, or for another sequence length".to_owned()),
            Self::Map { .. } => Some("the map belongs to another corpus, or is damaged: rebuild it from the seed by leaving it out".to_owned()),
            Self::Size { .. } | Self::Pointer { .. } | Self::Token { .. } => {
                Some(MISMATCH.to_owned())
            }
        }
    }
}
