//! Parquet files in and out: whole or not at all, with what they depend on in their own metadata.

use super::Table;
use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use polars::prelude::{DataFrame, DataType, Field, Schema};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use polars_io::parquet::write::{BatchedWriter, KeyValueMetadata, ParquetWriter};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Columns that stand in the path of a dataset in hive layout.
const HIVE: &[&str] = &["model", "checkpoint"];
/// Rows of a row group that is written frame by frame.
const ROW_GROUP: usize = 1 << 18;

/// How the name of a file begins that is not whole yet.
pub(crate) const PARTIAL: &str = ".partial-";

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
    schema: SchemaRef,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> BatchWriter<W> {
    /// Begins a file of `table`.
    ///
    /// # Errors
    ///
    /// When `sink` cannot be written.
    pub(crate) fn new(sink: W, table: &'static Table, footer: &Footer) -> Result<Self> {
        Self::with_further(sink, table, footer, &[])
    }

    /// The same with further columns behind the table's own, which may all be null.
    ///
    /// # Errors
    ///
    /// When `sink` cannot be written.
    pub(crate) fn with_further(
        sink: W,
        table: &'static Table,
        footer: &Footer,
        further: &[(&str, arrow_schema::DataType)],
    ) -> Result<Self> {
        let own = table.arrow_schema();
        let further = further
            .iter()
            .map(|(name, kind)| Arc::new(arrow_schema::Field::new(*name, kind.clone(), true)));
        let fields: Vec<_> = own.fields().iter().cloned().chain(further).collect();
        let schema: SchemaRef = Arc::new(arrow_schema::Schema::new(fields));
        let entries = footer.entries(table).into_iter();
        let metadata = entries
            .map(|(key, value)| KeyValue::new(key, value))
            .collect();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(metadata))
            .build();
        let writer = ArrowWriter::try_new(sink, schema.clone(), Some(properties))?;
        Ok(Self { schema, writer })
    }

    /// Appends rows, one array for each column of the table.
    ///
    /// # Errors
    ///
    /// When the arrays do not fit the table or the file cannot be written.
    pub(crate) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(self.schema.clone(), columns)?;
        Ok(self.writer.write(&batch)?)
    }

    /// Ends the row group, so that the next rows begin another.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn end_row_group(&mut self) -> Result<()> {
        Ok(self.writer.flush()?)
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

/// Writes a table frame by frame; the file appears when it is whole and on the disk.
pub(crate) struct FrameWriter {
    path: PathBuf,
    table: &'static Table,
    /// Columns that stand in the path (hive layout).
    in_path: &'static [&'static str],
    partial: NamedTempFile<File>,
    writer: BatchedWriter<BufWriter<File>>,
    n_rows: u64,
}

impl FrameWriter {
    /// Begins a file of `table` that will lie at `path`.
    ///
    /// # Errors
    ///
    /// When the folder of `path` cannot be written.
    pub(crate) fn create(path: &Path, table: &'static Table, footer: &Footer) -> Result<Self> {
        Self::without(path, table, footer, &[])
    }

    /// The same for a file of a dataset in hive layout: model and checkpoint stand in the path, and nowhere else.
    ///
    /// # Errors
    ///
    /// When the folder of `path` cannot be written.
    pub(crate) fn create_hive(path: &Path, table: &'static Table, footer: &Footer) -> Result<Self> {
        Self::without(path, table, footer, HIVE)
    }

    fn without(
        path: &Path,
        table: &'static Table,
        footer: &Footer,
        in_path: &'static [&'static str],
    ) -> Result<Self> {
        let begin = || -> Result<Self> {
            let partial = partial(path)?;
            let columns = table.columns.iter();
            let columns = columns.filter(|column| !in_path.contains(&column.name));
            let schema: Schema = columns
                .map(|column| Field::new(column.name.into(), column.kind.polars_type()))
                .collect();
            let writer = ParquetWriter::new(BufWriter::new(partial.as_file().try_clone()?))
                .with_key_value_metadata(Some(KeyValueMetadata::from_static(footer.entries(table))))
                .batched(&schema)?;
            Ok(Self {
                path: path.to_owned(),
                table,
                in_path,
                partial,
                writer,
                n_rows: 0,
            })
        };
        begin().with_context(|| format!("writing `{}`", path.display()))
    }

    /// Appends rows: a row group of their own, or several.
    ///
    /// # Errors
    ///
    /// When the columns differ from the table's in name, order or type, or the file cannot be written.
    pub(crate) fn write(&mut self, mut frame: DataFrame) -> Result<()> {
        let mut append = || -> Result<()> {
            check_columns(self.table, &frame)?;
            self.n_rows += frame.height() as u64;
            frame = frame.drop_many(self.in_path.iter().copied());
            frame.rechunk_mut_par();
            for offset in (0..frame.height()).step_by(ROW_GROUP) {
                let offset = i64::try_from(offset)?;
                let mut group = frame.slice(offset, ROW_GROUP);
                group.rechunk_mut_par();
                self.writer.write_batch(&group)?;
            }
            Ok(())
        };
        append().with_context(|| format!("writing `{}`", self.path.display()))
    }

    /// Ends the file and gives its number of rows.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn finish(self) -> Result<u64> {
        let end = || -> Result<()> {
            // It writes out its buffer, too.
            self.writer.finish()?;
            drop(self.writer);
            self.partial.as_file().sync_all()?;
            self.partial.persist(&self.path)?;
            Ok(())
        };
        end().with_context(|| format!("writing `{}`", self.path.display()))?;
        Ok(self.n_rows)
    }
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

/// Reads some rows of some columns of a table.
///
/// # Errors
///
/// When the file is missing or damaged, or lacks a column.
pub(crate) fn read_slice(
    path: &Path,
    columns: &[&str],
    offset: usize,
    n_rows: usize,
) -> Result<DataFrame> {
    let read = || -> Result<DataFrame> {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        let reader = ParquetReader::new(File::open(path)?)
            .with_columns(Some(columns))
            .with_slice(Some((offset, n_rows)));
        Ok(reader.finish()?)
    };
    read().with_context(|| format!("reading the table `{}`", path.display()))
}

/// Reads a whole parquet file of whatever columns.
///
/// # Errors
///
/// When the file is missing or damaged.
pub(crate) fn read_any(path: &Path) -> Result<DataFrame> {
    let read = || -> Result<DataFrame> { Ok(ParquetReader::new(File::open(path)?).finish()?) };
    read().with_context(|| format!("reading `{}`", path.display()))
}

/// The names of a file's columns.
///
/// # Errors
///
/// When the file is missing or not a whole parquet file.
pub(crate) fn column_names(path: &Path) -> Result<Vec<String>> {
    let read = || -> Result<_> {
        let reader = SerializedFileReader::new(File::open(path)?)?;
        let columns = reader.metadata().file_metadata().schema_descr().columns();
        Ok(columns
            .iter()
            .map(|column| column.name().to_owned())
            .collect())
    };
    read().with_context(|| format!("reading the metadata of `{}`", path.display()))
}

/// The rows of each row group of a file.
///
/// # Errors
///
/// When the file is missing or not a whole parquet file.
pub(crate) fn row_groups(path: &Path) -> Result<Vec<Range<usize>>> {
    let read = || -> Result<_> {
        let reader = SerializedFileReader::new(File::open(path)?)?;
        let mut groups = Vec::new();
        let mut first = 0;
        for group in reader.metadata().row_groups() {
            let end = first + usize::try_from(group.num_rows())?;
            groups.push(first..end);
            first = end;
        }
        Ok(groups)
    };
    read().with_context(|| format!("reading the metadata of `{}`", path.display()))
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
        let mut partial = partial(path)?;
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

/// A file beside `path`: hidden, so that no reader of the folder takes it for a table; readable like any other file.
fn partial(path: &Path) -> Result<NamedTempFile<File>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(tempfile::Builder::new()
        .prefix(PARTIAL)
        .make_in(folder, |path| File::create_new(path))?)
}
