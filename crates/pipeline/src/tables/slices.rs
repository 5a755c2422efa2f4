//! A table read some rows at a time, into polars.

use anyhow::{Context, Result};
use polars::prelude::DataFrame;
use polars_io::SerReader;
use polars_io::parquet::metadata::FileMetadataRef;
use polars_io::parquet::read::ParquetReader;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A file whose metadata has been read: it grows with the file, and is not to be read again for each slice.
pub(crate) struct Slices {
    path: PathBuf,
    metadata: FileMetadataRef,
}

impl Slices {
    /// Reads the metadata of a file.
    ///
    /// # Errors
    ///
    /// When the file is missing or not a whole parquet file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let read = || -> Result<FileMetadataRef> {
            let mut reader = ParquetReader::new(File::open(path)?);
            Ok(reader.get_metadata()?.clone())
        };
        let metadata =
            read().with_context(|| format!("reading the metadata of `{}`", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            metadata,
        })
    }

    /// The rows of each row group.
    pub(crate) fn row_groups(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let groups = self.metadata.row_groups.iter();
        groups
            .map(|group| {
                let first = end;
                end += group.num_rows();
                first..end
            })
            .collect()
    }

    /// These columns of these rows.
    ///
    /// # Errors
    ///
    /// When the file is damaged, or lacks a column.
    pub(crate) fn read(&self, columns: &[&str], rows: Range<usize>) -> Result<DataFrame> {
        let read = || -> Result<DataFrame> {
            let columns = columns.iter().map(|&name| name.to_owned()).collect();
            let mut reader = ParquetReader::new(File::open(&self.path)?)
                .with_columns(Some(columns))
                .with_slice(Some((rows.start, rows.len())));
            reader.set_metadata(self.metadata.clone());
            Ok(reader.finish()?)
        };
        read().with_context(|| format!("reading the table `{}`", self.path.display()))
    }
}
