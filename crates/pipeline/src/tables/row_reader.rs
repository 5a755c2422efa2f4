//! Ranges of rows of a parquet file, so that its length is not bounded by memory.

use super::checksum::verify_open;
use super::{Footer, Table};
use crate::failure;
use crate::files;
use anyhow::{Context, Result, bail};
use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::PageIndexPolicy;
use parquet::file::statistics::Statistics;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Rows decoded at once.
const BATCH: usize = 1 << 16;

/// An open file of a table.
pub(crate) struct RowReader {
    path: PathBuf,
    file: File,
    metadata: ArrowReaderMetadata,
}

/// One row group.
pub(crate) struct RowGroup {
    number: usize,
    /// Of the file.
    pub(crate) rows: Range<u64>,
}

impl RowReader {
    /// Opens a file of `table`.
    ///
    /// # Errors
    ///
    /// When the file is missing, damaged or holds other columns.
    /// Held against its checksum, where it has one: whether it does is told, too.
    pub(crate) fn verified(path: &Path, table: &Table) -> Result<(Self, bool)> {
        let open = || -> Result<(Self, bool)> {
            let mut file = files::open(path)?;
            let ours = verify_open(&mut file)?;
            // Types as parquet itself names them, whichever program wrote the file.
            let options = ArrowReaderOptions::new()
                .with_skip_arrow_metadata(true)
                .with_page_index_policy(PageIndexPolicy::Optional);
            let metadata = ArrowReaderMetadata::load(&file, options)?;
            let fields = metadata.schema().fields().iter();
            let found: Vec<_> = fields
                .map(|field| (field.name().clone(), field.data_type().clone()))
                .collect();
            let schema = table.arrow_schema();
            let fields = schema.fields().iter();
            let expected: Vec<_> = fields
                .map(|field| (field.name().clone(), field.data_type().clone()))
                .collect();
            if found != expected {
                bail!(
                    "the columns are {found:?}, those of the table `{}` are {expected:?}",
                    table.name
                );
            }
            let reader = Self {
                path: path.to_owned(),
                file,
                metadata,
            };
            Ok((reader, ours))
        };
        failure::caught(open).with_context(|| format!("reading the table `{}`", path.display()))
    }

    /// The file, open as it is.
    ///
    /// # Errors
    ///
    /// When the system opens no more files.
    pub(crate) fn file(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// What the file says of itself.
    pub(crate) fn footer(&self) -> Footer {
        let metadata = self.metadata.metadata().file_metadata();
        let entries = metadata.key_value_metadata().into_iter().flatten();
        let entries = entries.filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?)));
        Footer(entries.collect())
    }

    /// The row groups, in file order.
    pub(crate) fn row_groups(&self) -> Vec<RowGroup> {
        let mut end = 0;
        let groups = self.metadata.metadata().row_groups().iter().enumerate();
        groups
            .map(|(number, group)| {
                let first = end;
                end += u64::try_from(group.num_rows()).unwrap_or(0);
                RowGroup {
                    number,
                    rows: first..end,
                }
            })
            .collect()
    }

    /// The text that a column has in every row of a group, where statistics say that there is one.
    pub(crate) fn constant(&self, column: &str, group: &RowGroup) -> Option<String> {
        let metadata = self.metadata.metadata();
        let columns = metadata.file_metadata().schema_descr().columns();
        let place = columns.iter().position(|found| found.name() == column)?;
        let chunk = metadata.row_groups().get(group.number)?.column(place);
        only_text(chunk.statistics()?)
    }

    /// These columns of these rows, batch by batch.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(crate) fn read(
        &self,
        columns: &[&str],
        rows: Range<u64>,
    ) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
        let groups = self.row_groups().into_iter();
        let groups: Vec<RowGroup> = groups
            .filter(|group| group.rows.start < rows.end && rows.start < group.rows.end)
            .collect();
        let first = groups.first().map_or(rows.start, |group| group.rows.start);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.file.try_clone()?,
            self.metadata.clone(),
        );
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let reader = builder
            .with_row_groups(groups.iter().map(|group| group.number).collect())
            .with_projection(mask)
            .with_offset(usize::try_from(rows.start - first)?)
            .with_limit(usize::try_from(rows.end - rows.start)?)
            .with_batch_size(BATCH)
            .build()?;
        let path = self.path.clone();
        Ok(reader.map(move |batch| batch.with_context(|| format!("reading `{}`", path.display()))))
    }
}

/// The one text of a column, where its statistics say that there is but one.
pub(crate) fn only_text(statistics: &Statistics) -> Option<String> {
    let Statistics::ByteArray(values) = statistics else {
        return None;
    };
    let (min, max) = (values.min_opt()?, values.max_opt()?);
    // Bounds that were cut short lie below and above, and are not the same.
    let same = min == max && values.null_count_opt() == Some(0);
    same.then(|| String::from_utf8(min.data().to_vec()).ok())?
}
