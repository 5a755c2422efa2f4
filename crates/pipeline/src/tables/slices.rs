//! A table read some rows at a time, into polars.

use crate::failure;
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
    file: File,
    metadata: FileMetadataRef,
}

impl Slices {
    /// Reads the metadata of an open file, which lies at `path`.
    ///
    /// # Errors
    ///
    /// When it is not a whole parquet file.
    pub(crate) fn of(path: &Path, file: File) -> Result<Self> {
        let read = || -> Result<FileMetadataRef> {
            let mut reader = ParquetReader::new(file.try_clone()?);
            Ok(reader.get_metadata()?.clone())
        };
        let metadata = failure::caught(read)
            .with_context(|| format!("reading the metadata of `{}`", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            metadata,
        })
    }

    /// The rows of each row group that has any: some programs write groups without.
    pub(crate) fn row_groups(&self) -> Vec<Range<usize>> {
        let mut end = 0;
        let groups = self.metadata.row_groups.iter();
        groups
            .map(|group| {
                let first = end;
                end += group.num_rows();
                first..end
            })
            .filter(|rows| !rows.is_empty())
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
            let mut reader = ParquetReader::new(self.file.try_clone()?)
                .with_columns(Some(columns))
                .with_slice(Some((rows.start, rows.len())));
            reader.set_metadata(self.metadata.clone());
            Ok(reader.finish()?)
        };
        // polars panics at some damages, and tables of other programs have no checksum.
        failure::caught(read)
            .with_context(|| format!("reading the table `{}`", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::Int32Type;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    #[test]
    fn row_groups_without_rows_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let schema = parse_message_type("message table { required int32 step; }").unwrap();
        let file = File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).unwrap();
        for values in [&[][..], &[5, 6], &[], &[7], &[]] {
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let typed = column.typed::<Int32Type>();
            typed.write_batch(values, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
        }
        writer.close().unwrap();
        let table = Slices::of(&path, File::open(&path).unwrap()).unwrap();
        assert_eq!(table.row_groups(), [0..2, 2..3]);
        let last = table.read(&["step"], 2..3).unwrap();
        assert_eq!(last.column("step").unwrap().i32().unwrap().get(0), Some(7));
    }
}
