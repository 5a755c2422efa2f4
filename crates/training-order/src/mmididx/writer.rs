//! Writes a corpus as Megatron's `MMapIndexedDatasetBuilder` does, one document an item.

use super::header::{MAGIC, VERSION};
use super::{TokenType, with_ending};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `PREFIX.bin` item by item, and `PREFIX.idx` at the end.
#[derive(Debug)]
pub struct Writer {
    idx: PathBuf,
    bin: BufWriter<File>,
    token_type: TokenType,
    sizes: Vec<i32>,
}

impl Writer {
    /// Begins a corpus; files of that name are replaced.
    ///
    /// # Errors
    ///
    /// When the `.bin` cannot be created.
    pub fn create(prefix: &Path, token_type: TokenType) -> io::Result<Self> {
        let bin = BufWriter::new(File::create(with_ending(prefix, "bin"))?);
        Ok(Self {
            idx: with_ending(prefix, "idx"),
            bin,
            token_type,
            sizes: Vec::new(),
        })
    }

    /// Appends an item.
    ///
    /// # Errors
    ///
    /// When a token does not fit the token type, the item has more than 2³¹ − 1 tokens, or the `.bin` cannot
    /// be written.
    pub fn write(&mut self, tokens: &[u32]) -> io::Result<()> {
        let invalid =
            |error: std::num::TryFromIntError| io::Error::new(io::ErrorKind::InvalidInput, error);
        self.sizes
            .push(i32::try_from(tokens.len()).map_err(invalid)?);
        for &token in tokens {
            match self.token_type {
                TokenType::U8 => self
                    .bin
                    .write_all(&u8::try_from(token).map_err(invalid)?.to_le_bytes())?,
                TokenType::I8 => self
                    .bin
                    .write_all(&i8::try_from(token).map_err(invalid)?.to_le_bytes())?,
                TokenType::U16 => self
                    .bin
                    .write_all(&u16::try_from(token).map_err(invalid)?.to_le_bytes())?,
                TokenType::I16 => self
                    .bin
                    .write_all(&i16::try_from(token).map_err(invalid)?.to_le_bytes())?,
                TokenType::I32 => self
                    .bin
                    .write_all(&i32::try_from(token).map_err(invalid)?.to_le_bytes())?,
                TokenType::I64 => self.bin.write_all(&i64::from(token).to_le_bytes())?,
            }
        }
        Ok(())
    }

    /// Writes the `.idx`.
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.bin.flush()?;
        let mut idx = BufWriter::new(File::create(&self.idx)?);
        let n_items = self.sizes.len() as u64;
        idx.write_all(&MAGIC)?;
        idx.write_all(&VERSION.to_le_bytes())?;
        idx.write_all(&[self.token_type as u8])?;
        idx.write_all(&n_items.to_le_bytes())?;
        idx.write_all(&(n_items + 1).to_le_bytes())?;
        for size in &self.sizes {
            idx.write_all(&size.to_le_bytes())?;
        }
        let mut pointer: u64 = 0;
        for size in &self.sizes {
            idx.write_all(&pointer.to_le_bytes())?;
            pointer += u64::from(size.unsigned_abs()) * self.token_type.width();
        }
        for document in 0..=n_items {
            idx.write_all(&document.to_le_bytes())?;
        }
        idx.flush()
    }
}
