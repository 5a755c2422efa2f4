//! A tokenized corpus on disk: `.idx` and `.bin`, opened together.

mod bin;
mod error;
mod header;
mod writer;

pub use error::{Beside, BinFiles, OpenError, ReadError};
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
    /// Opens `PREFIX.idx`, and the shards `PREFIX-NNNNN-of-MMMMM.bin` where all of them are there,
    /// else `PREFIX.bin`. Reads the header and the last item's entries; all entries where the last
    /// item does not end with the tokens.
    ///
    /// # Errors
    ///
    /// When a file is missing, is no regular file or cannot be mapped, the header is not one of
    /// this format, the `.idx` is not as long as its header says, or the items end elsewhere than
    /// the tokens.
    pub fn open(prefix: &Path) -> Result<Self, OpenError> {
        let path = with_ending(prefix, "idx");
        let idx = match Map::open(&path) {
            Ok(idx) => idx,
            Err(source) => return Err(OpenError::Io { path, source }),
        };
        let header = Header::read(&idx)?;
        let bin = Bin::open(prefix)?;
        let dataset = Self { idx, bin, header };
        dataset.check_end()?;
        Ok(dataset)
    }

    /// The `.bin` that lies beside all shards of it and is not read: it may not have been filled to
    /// its end.
    pub fn ignored_bin(&self) -> Option<&Path> {
        match self.bin.beside()? {
            Beside::Bin(path) => Some(path),
            Beside::SomeShards => None,
        }
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
            let item = spread(look, N_LOOKS.min(n), n);
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
        let entry = self.header.size_offset(item);
        let entry = entry.and_then(|offset| Some((offset, self.idx.array(offset)?)));
        let (offset, size) = entry.ok_or_else(|| self.no_item(item))?;
        let size = i32::from_le_bytes(size);
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

    /// Refuses files that are not as they were when they were opened: another device, inode, length
    /// or time of modification. Reading beyond the end of a mapped file that was cut short ends the
    /// program with SIGBUS.
    ///
    /// Asking the system takes longer than reading a sequence, so that reads do not ask. Whoever reads many
    /// sequences asks now and then, as `pipeline` does for each chunk of probes, and once more at
    /// the end. What is cut short in between still does harm.
    ///
    /// # Errors
    ///
    /// When a file has changed, or the system does not say.
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
        self.check_with(&|_| ())
    }

    /// Like [`Self::check`]; `progress` is told of items as they are done, by how many more there
    /// are: of [`Self::n_items`] in all. It is called from several threads.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check`].
    pub fn check_with(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<u32>, ReadError> {
        /// Items between two calls of `progress`.
        const TOLD: u64 = 1024;
        let chunks = (0..self.n_items().div_ceil(TOLD)).into_par_iter();
        let largest = chunks.map_init(Vec::new, |tokens, chunk| {
            let items = chunk * TOLD..self.n_items().min((chunk + 1) * TOLD);
            let n_items = items.end - items.start;
            let mut largest = None;
            for item in items {
                largest = largest.max(self.largest(item, tokens)?);
            }
            progress(n_items);
            Ok(largest)
        });
        largest.try_reduce(|| None, |a, b| Ok(a.max(b)))
    }

    /// The largest token id of an item, which is read in pieces: its size is not believed.
    fn largest(&self, item: u64, tokens: &mut Vec<u32>) -> Result<Option<u32>, ReadError> {
        const PIECE: u64 = 1 << 20;
        let len = u64::from(self.item_len(item)?);
        self.check_extent(item)?;
        let mut largest = None;
        let mut start = 0;
        while start < len {
            let end = len.min(start + PIECE);
            tokens.clear();
            self.read(item, start..end, tokens)?;
            largest = largest.max(tokens.iter().copied().max());
            start = end;
        }
        Ok(largest)
    }

    /// Refuses tokens that end elsewhere than the items do.
    fn check_end(&self) -> Result<(), OpenError> {
        let found = self.bin.len();
        let (mut end, files) = (0, || self.bin.names());
        if let Some(last) = self.n_items().checked_sub(1) {
            let start;
            (start, end) = self.byte_range(last, 0..u64::from(self.item_len(last)?))?;
            if start < end && end > found {
                self.refuse_impostor()?;
                return Err(OpenError::ShortBin {
                    files: files(),
                    item: last,
                    end,
                    found,
                    beside: self.bin.beside().cloned(),
                });
            }
        }
        if end == found {
            return Ok(());
        }
        // An item that is not the last may end last.
        let ends = (0..self.n_items()).into_par_iter().map(|item| {
            let (start, end) = self.byte_range(item, 0..u64::from(self.item_len(item)?))?;
            // An empty item may lie anywhere.
            Ok::<_, ReadError>(if start < end { (end, item) } else { (0, item) })
        });
        let (end, item) = ends.try_reduce(|| (0, 0), |a, b| Ok(a.max(b)))?;
        if end == found {
            return Ok(());
        }
        self.refuse_impostor()?;
        if end > found {
            return Err(self.beyond(item, end).into());
        }
        Err(OpenError::LongBin {
            files: files(),
            idx: self.idx.path().to_owned(),
            end,
            found,
            beside: self.bin.beside().cloned(),
        })
    }

    fn refuse_impostor(&self) -> Result<(), OpenError> {
        match self.bin.impostor() {
            None => Ok(()),
            Some((path, found)) => Err(OpenError::Impostor {
                path: path.to_owned(),
                found,
            }),
        }
    }

    /// Where `tokens` of an item lie in the `.bin`, without regard to its length.
    fn byte_range(&self, item: u64, tokens: Range<u64>) -> Result<(u64, u64), ReadError> {
        let entry = self.header.pointer_offset(item);
        let entry = entry.and_then(|offset| Some((offset, self.idx.array(offset)?)));
        let (offset, pointer) = entry.ok_or_else(|| self.no_item(item))?;
        let pointer = i64::from_le_bytes(pointer);
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
        ReadError::Beyond {
            files: self.bin.names(),
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

/// The item that look `look` of `n_looks` falls on, where the looks are spread over `n` items.
pub(crate) fn spread(look: u64, n_looks: u64, n: u64) -> u64 {
    // Without a product of two counts, which may overflow.
    let (whole, rest) = (n / n_looks, n % n_looks);
    look * whole + look * rest / n_looks
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
