//! A tokenized corpus on disk: `.idx` and `.bin`, opened together.

mod bin;
mod error;
mod header;
mod writer;

pub use error::{OpenError, ReadError};
pub use header::TokenType;
pub use writer::Writer;

use crate::map::Map;
use bin::Bin;
use header::Header;
use rayon::prelude::*;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A corpus whose header and lengths are known to fit; sizes and pointers are checked where they are used.
#[derive(Debug)]
pub struct Dataset {
    idx: Map,
    bin: Bin,
    header: Header,
}

impl Dataset {
    /// Opens `PREFIX.idx` and `PREFIX.bin`, or the shards `PREFIX-NNNNN-of-MMMMM.bin` where there is no such
    /// `.bin`. Reads the header and the last item's entries, nothing else.
    ///
    /// # Errors
    ///
    /// When a file is missing or cannot be mapped, the header is not one of this format, the `.idx` is not as
    /// long as its header says, or the `.bin` ends before the last item.
    pub fn open(prefix: &Path) -> Result<Self, OpenError> {
        let idx = map(with_ending(prefix, "idx"))?;
        let header = Header::read(&idx)?;
        let bin = Bin::open(prefix)?;
        let dataset = Self { idx, bin, header };
        if let Some(last) = dataset.header.n_items.checked_sub(1) {
            let (start, end) = dataset.byte_range(last, 0..u64::from(dataset.item_len(last)?))?;
            if start < end && end > dataset.bin.len() {
                return Err(OpenError::ShortBin {
                    path: dataset.bin.path_of(end).to_owned(),
                    item: last,
                    end,
                    found: dataset.bin.len(),
                });
            }
        }
        Ok(dataset)
    }

    /// Number of items, which GPT-NeoX calls documents.
    pub fn n_items(&self) -> u64 {
        self.header.n_items
    }

    /// How a token id is stored.
    pub fn token_type(&self) -> TokenType {
        self.header.token_type
    }

    /// Path of the `.idx`.
    pub fn idx_path(&self) -> &Path {
        self.idx.path()
    }

    /// Every file of the corpus: the `.idx`, then the `.bin` or its shards in order.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.idx.path()).chain(self.bin.paths())
    }

    /// Whether every item is one sequence of `sequence_length + 1` tokens, as in Pythia's preshuffled files.
    ///
    /// Looks at up to 1,024 items spread over the corpus; that all others are so is checked where they are read.
    ///
    /// # Errors
    ///
    /// When a size is negative.
    pub fn looks_preshuffled(&self, sequence_length: u32) -> Result<bool, ReadError> {
        const N_LOOKS: u64 = 1024;
        let n = self.n_items();
        for look in 0..N_LOOKS.min(n) {
            // 128 bits: a product of two counts.
            let item = u128::from(look) * u128::from(n) / u128::from(N_LOOKS.min(n));
            let item = u64::try_from(item).unwrap_or(0);
            if u64::from(self.item_len(item)?) != u64::from(sequence_length) + 1 {
                return Ok(false);
            }
        }
        Ok(n > 0)
    }

    /// Tokens of one item.
    ///
    /// # Errors
    ///
    /// When there is no such item, or the `.idx` gives it a negative size.
    pub fn item_len(&self, item: u64) -> Result<u32, ReadError> {
        let offset = self
            .header
            .size_offset(item)
            .ok_or_else(|| self.no_item(item))?;
        let size = i32::from_le_bytes(self.idx.array(offset));
        u32::try_from(size).map_err(|_| ReadError::Size {
            path: self.idx.path().to_owned(),
            item,
            offset,
            found: size,
        })
    }

    /// Appends the ids of `tokens` of one item to `into`.
    ///
    /// # Errors
    ///
    /// When the item or the range does not exist, lies outside the `.bin`, or holds a negative id or one above
    /// 2³² − 1.
    pub fn read(
        &self,
        item: u64,
        tokens: Range<u64>,
        into: &mut Vec<u32>,
    ) -> Result<(), ReadError> {
        let len = u64::from(self.item_len(item)?);
        if tokens.start > tokens.end || tokens.end > len {
            return Err(ReadError::Range {
                path: self.idx.path().to_owned(),
                item,
                len,
                asked: tokens,
            });
        }
        if tokens.is_empty() {
            return Ok(());
        }
        let (start, end) = self.byte_range(item, tokens.clone())?;
        let bytes = self
            .bin
            .slice(start, end)
            .ok_or_else(|| self.beyond(item, end))?;
        self.header
            .token_type
            .decode(&bytes, into)
            .map_err(|(place, found)| ReadError::Token {
                path: self
                    .bin
                    .path_of(start + place * self.header.token_type.width())
                    .to_owned(),
                item,
                token: tokens.start + place,
                found,
            })
    }

    /// Looks whether an item lies inside the `.bin`, without reading it.
    ///
    /// # Errors
    ///
    /// When it does not, there is no such item, or its size or pointer is out of range.
    pub fn check_extent(&self, item: u64) -> Result<(), ReadError> {
        let (start, end) = self.byte_range(item, 0..u64::from(self.item_len(item)?))?;
        if start < end && end > self.bin.len() {
            return Err(self.beyond(item, end));
        }
        Ok(())
    }

    /// Refuses files that have become shorter since they were opened: reading beyond the end of a mapped file ends
    /// the program with SIGBUS.
    ///
    /// Asking the system takes longer than reading a sequence, so that reads do not ask. Whoever reads many
    /// sequences asks now and then, as `pipeline` does for each chunk of probes; what is cut in between still does
    /// harm.
    ///
    /// # Errors
    ///
    /// When a file has.
    pub fn check_unchanged(&self) -> Result<(), ReadError> {
        self.idx.check_unchanged()?;
        self.bin.check_unchanged()
    }

    /// How many tokens the `.bin` has room for.
    pub fn n_tokens_held(&self) -> u64 {
        self.bin.len() / self.header.token_type.width()
    }

    /// Reads every size, pointer and token; the largest token id, or `None` where there is no token.
    ///
    /// # Errors
    ///
    /// A size, pointer or token that is out of range.
    pub fn check(&self) -> Result<Option<u32>, ReadError> {
        let items = (0..self.n_items()).into_par_iter();
        let largest = items.map_init(Vec::new, |tokens, item| {
            tokens.clear();
            self.read(item, 0..u64::from(self.item_len(item)?), tokens)?;
            Ok(tokens.iter().copied().max())
        });
        largest.try_reduce(|| None, |a, b| Ok(a.max(b)))
    }

    /// Where `tokens` of an item lie in the `.bin`, without regard to its length.
    fn byte_range(&self, item: u64, tokens: Range<u64>) -> Result<(u64, u64), ReadError> {
        let offset = self
            .header
            .pointer_offset(item)
            .ok_or_else(|| self.no_item(item))?;
        let pointer = i64::from_le_bytes(self.idx.array(offset));
        let wrong = || ReadError::Pointer {
            path: self.idx.path().to_owned(),
            item,
            offset,
            found: pointer,
        };
        let base = u64::try_from(pointer).map_err(|_| wrong())?;
        // An item has at most 2³¹ tokens of at most 8 bytes: only the sum can overflow.
        let width = self.header.token_type.width();
        let start = base.checked_add(tokens.start * width).ok_or_else(wrong)?;
        let end = base.checked_add(tokens.end * width).ok_or_else(wrong)?;
        Ok((start, end))
    }

    fn beyond(&self, item: u64, end: u64) -> ReadError {
        let path = self.bin.path_of(end).to_owned();
        ReadError::Beyond {
            path,
            item,
            end,
            found: self.bin.len(),
        }
    }

    fn no_item(&self, item: u64) -> ReadError {
        ReadError::Item {
            path: self.idx.path().to_owned(),
            item,
            n_items: self.n_items(),
        }
    }
}

fn map(path: PathBuf) -> Result<Map, OpenError> {
    Map::open(&path).map_err(|source| OpenError::Io { path, source })
}

/// `corpus` → `corpus.idx`, also where the name holds a dot of its own.
fn with_ending(prefix: &Path, ending: &str) -> PathBuf {
    let mut name = prefix.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    prefix.with_file_name(name)
}

#[cfg(test)]
mod tests;
