//! Parquet files in and out: whole or not at all, with what they depend on in their own metadata.

use super::Table;
use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use polars::prelude::{DataFrame, DataType};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{KeyValueMetadata, ParquetWriter};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

/// What a file says of itself beside its schema: only what equal runs have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Footer(pub(crate) BTreeMap<String, String>);

impl Footer {
    /// These entries, after the table's own name and version.
    fn entries(&self, table: &Table) -> Vec<(String, String)> {
        let own = [
            ("table".to_owned(), table.name.to_owned()),
            ("table_version".to_owned(), table.version.to_string()),
        ];
        let given = self
            .0
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()));
        own.into_iter().chain(given).collect()
    }
}

/// Writes a table batch by batch, so that its length is not bounded by memory.
pub(crate) struct BatchWriter<W: Write + Send> {
    table: &'static Table,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> BatchWriter<W> {
    /// Begins a file of `table`.
    ///
    /// # Errors
    ///
    /// When `sink` cannot be written.
    pub(crate) fn new(sink: W, table: &'static Table, footer: &Footer) -> Result<Self> {
        let entries = footer.entries(table).into_iter();
        let metadata = entries
            .map(|(key, value)| KeyValue::new(key, value))
            .collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(metadata))
            .build();
        let writer = ArrowWriter::try_new(sink, table.arrow_schema(), Some(properties))?;
        Ok(Self { table, writer })
    }

    /// Appends rows, one array for each column of the table.
    ///
    /// # Errors
    ///
    /// When the arrays do not fit the table or the file cannot be written.
    pub(crate) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(self.table.arrow_schema(), columns)?;
        Ok(self.writer.write(&batch)?)
    }

    /// Ends the file and gives its number of rows.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn finish(self) -> Result<u64> {
        let metadata = self.writer.close()?;
        Ok(u64::try_from(metadata.file_metadata().num_rows())?)
    }
}

/// Writes `frame`, whose columns must be those of `table`, as a file of `table` at `path`.
///
/// # Errors
///
/// When the columns differ in name, order or type, or the file cannot be written.
pub(crate) fn write_frame(
    path: &Path,
    table: &'static Table,
    footer: &Footer,
    frame: &mut DataFrame,
) -> Result<()> {
    check_columns(table, frame).with_context(|| format!("writing `{}`", path.display()))?;
    write_atomically(path, |file| {
        ParquetWriter::new(file)
            .with_key_value_metadata(Some(KeyValueMetadata::from_static(footer.entries(table))))
            .finish(frame)?;
        Ok(())
    })
}

/// Reads a whole file of `table`.
///
/// # Errors
///
/// When the file is missing, damaged or holds other columns.
pub(crate) fn read_frame(path: &Path, table: &Table) -> Result<DataFrame> {
    let read = || -> Result<DataFrame> { Ok(ParquetReader::new(File::open(path)?).finish()?) };
    let frame = read().with_context(|| format!("reading the table `{}`", path.display()))?;
    check_columns(table, &frame)
        .with_context(|| format!("reading the table `{}`", path.display()))?;
    Ok(frame)
}

/// Refuses a frame that does not hold exactly the columns of `table`, in order and type.
fn check_columns(table: &Table, frame: &DataFrame) -> Result<()> {
    let found: Vec<(&str, DataType)> = frame
        .schema()
        .iter()
        .map(|(name, kind)| (name.as_str(), kind.clone()))
        .collect();
    let expected: Vec<(&str, DataType)> = table
        .columns
        .iter()
        .map(|column| (column.name, column.kind.polars_type()))
        .collect();
    if found != expected {
        bail!(
            "the columns are {found:?}, those of the table `{}` are {expected:?}",
            table.name
        );
    }
    Ok(())
}

/// The metadata entries of a parquet file and its number of rows, without reading its columns.
///
/// # Errors
///
/// When the file is missing or not a whole parquet file.
pub(crate) fn read_metadata(path: &Path) -> Result<(BTreeMap<String, String>, u64)> {
    let read = || -> Result<_> {
        let reader = SerializedFileReader::new(File::open(path)?)?;
        let metadata = reader.metadata().file_metadata();
        let entries = metadata.key_value_metadata().into_iter().flatten();
        let entries = entries.filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?)));
        Ok((entries.collect(), u64::try_from(metadata.num_rows())?))
    };
    read().with_context(|| format!("reading the metadata of `{}`", path.display()))
}

/// Lets `write` fill a file that appears under `path` only when it is whole and on the disk.
///
/// # Errors
///
/// Those of `write`, and when the folder of `path` cannot be written; no file is left then.
pub(crate) fn write_atomically<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<T>,
) -> Result<T> {
    let filled = || -> Result<T> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Hidden, so that no reader of the folder takes it for a table; readable like any other file.
        let mut partial = tempfile::Builder::new()
            .prefix(".partial-")
            .make_in(folder, |path| File::create_new(path))?;
        let mut file = BufWriter::new(partial.as_file_mut());
        let value = write(&mut file)?;
        file.flush()?;
        drop(file);
        partial.as_file().sync_all()?;
        partial.persist(path)?;
        Ok(value)
    };
    filled().with_context(|| format!("writing `{}`", path.display()))
}
