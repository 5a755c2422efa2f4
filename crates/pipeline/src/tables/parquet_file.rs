//! Parquet files in and out: whole or not at all, with what they depend on in their own metadata.

use super::arrays::array;
use super::checksum::{self, Summed};
use super::staged::{Staged, partial};
use super::{Kind, Table};
use crate::failure;
use crate::files;
use crate::mark::Mark;
use anyhow::{Context, Result, bail, ensure};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use polars::prelude::{DataFrame, DataType};
use polars_io::SerReader;
use polars_io::parquet::read::ParquetReader;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Cursor, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// Columns that stand in the path of a dataset in hive layout.
const HIVE: &[&str] = &["model", "checkpoint"];
/// Rows of a row group that is written frame by frame.
const ROW_GROUP: usize = 1 << 18;
/// A part has at most 2²⁰ rows: far above its bytes.
const LARGEST_PART: u64 = 1 << 30;

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

impl Kind {
    /// How numbers lie in a file; `None` where the writer's dictionary serves.
    fn encoding(self) -> Option<Encoding> {
        match self {
            Self::U16 | Self::U32 | Self::I32 => Some(Encoding::DELTA_BINARY_PACKED),
            Self::F32 | Self::F64 => Some(Encoding::PLAIN),
            Self::Text | Self::Flag | Self::Tokens => None,
        }
    }
}

/// Writes a table batch by batch, each a row group of its own, so that its length is not bounded by memory.
pub(crate) struct BatchWriter<W: Write + Seek + Send> {
    schema: SchemaRef,
    file: SerializedFileWriter<Summed<W>>,
    columns: ArrowRowGroupWriterFactory,
    n_rows: u64,
}

impl<W: Write + Seek + Send> BatchWriter<W> {
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
        Self::begin(sink, table, footer, arrow_schema::Schema::new(fields))
    }

    fn begin(
        sink: W,
        table: &'static Table,
        footer: &Footer,
        schema: arrow_schema::Schema,
    ) -> Result<Self> {
        let entries = footer.entries(table).into_iter();
        let metadata = entries
            .map(|(key, value)| KeyValue::new(key, value))
            .chain([checksum::placeholder()])
            .collect();
        let mut properties = WriterProperties::builder()
            .set_created_by(checksum::CREATED_BY.to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(metadata));
        for column in table.columns {
            // A dictionary of numbers that hardly repeat takes longer to make than the numbers to write.
            let Some(encoding) = column.kind.encoding() else {
                continue;
            };
            let path = ColumnPath::from(column.name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, encoding);
        }
        let schema = Arc::new(schema);
        let writer = ArrowWriter::try_new(
            Summed::new(sink),
            Arc::clone(&schema),
            Some(properties.build()),
        )?;
        let (file, columns) = writer.into_serialized_writer()?;
        Ok(Self {
            schema,
            file,
            columns,
            n_rows: 0,
        })
    }

    /// Appends rows, one array for each column of the table; columns are encoded side by side.
    ///
    /// # Errors
    ///
    /// When the arrays do not fit the table or the file cannot be written.
    pub(crate) fn write(&mut self, arrays: Vec<ArrayRef>) -> Result<()> {
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let number = self.file.flushed_row_groups().len();
        let writers = self.columns.create_column_writers(number)?;
        let fields = batch.schema_ref().fields().par_iter();
        let chunks = writers
            .into_par_iter()
            .zip_eq(fields.zip_eq(batch.columns()))
            .map(|(mut writer, (field, array))| {
                for leaf in compute_leaves(field, array)? {
                    writer.write(&leaf)?;
                }
                writer.close()
            });
        let chunks: Vec<_> = chunks.collect::<Result<_, _>>()?;
        let mut group = self.file.next_row_group()?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.n_rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Ends the file and gives its number of rows.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.file.inner_mut().keep();
        self.file.into_inner()?.seal()?;
        Ok(self.n_rows)
    }
}

/// Writes a table frame by frame.
pub(crate) struct FrameWriter {
    path: PathBuf,
    table: &'static Table,
    /// Columns that stand in the path (hive layout).
    in_path: &'static [&'static str],
    partial: NamedTempFile<File>,
    writer: BatchWriter<BufWriter<File>>,
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
            let schema = table.arrow_schema();
            let fields = schema.fields().iter();
            let fields = fields.filter(|field| !in_path.contains(&field.name().as_str()));
            let schema = arrow_schema::Schema::new(fields.cloned().collect::<Vec<_>>());
            let sink = BufWriter::new(partial.as_file().try_clone()?);
            Ok(Self {
                path: path.to_owned(),
                table,
                in_path,
                partial,
                writer: BatchWriter::begin(sink, table, footer, schema)?,
            })
        };
        begin().with_context(|| format!("writing `{}`", path.display()))
    }

    /// Appends rows: a row group of their own, or several.
    ///
    /// # Errors
    ///
    /// When the columns differ from the table's in name, order or type, or the file cannot be written.
    pub(crate) fn write(&mut self, frame: &DataFrame) -> Result<()> {
        let mut append = || -> Result<()> {
            check_columns(self.table, frame)?;
            let columns = self.table.columns.iter();
            let columns: Vec<_> = columns
                .zip(frame.columns())
                .filter(|(column, _)| !self.in_path.contains(&column.name))
                .collect();
            for offset in (0..frame.height()).step_by(ROW_GROUP) {
                let first = i64::try_from(offset)?;
                let arrays = columns
                    .par_iter()
                    .map(|(column, values)| array(&values.slice(first, ROW_GROUP), column.kind));
                self.writer.write(arrays.collect::<Result<_, _>>()?)?;
            }
            Ok(())
        };
        append().with_context(|| format!("writing `{}`", self.path.display()))
    }

    /// Ends the file, which is then whole and on the disk, and waits to take its place.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub(crate) fn finish(self) -> Result<Staged> {
        let Self {
            path,
            table,
            partial,
            writer,
            ..
        } = self;
        let end = || -> Result<()> {
            writer.finish()?;
            Ok(partial.as_file().sync_all()?)
        };
        end().with_context(|| format!("writing `{}`", path.display()))?;
        Ok(Staged::new(partial, path, Mark::Table(table.name)))
    }
}

/// Reads a whole file of `table` that this program wrote, as it wrote it.
///
/// # Errors
///
/// When the file is missing, has no checksum or another one, or holds other columns.
pub(crate) fn read_own(path: &Path, table: &Table) -> Result<DataFrame> {
    let read = || -> Result<DataFrame> {
        // Read once: what is held against the checksum is what is decoded.
        let mut bytes = Cursor::new(files::read(path, LARGEST_PART)?);
        ensure!(checksum::verify_open(&mut bytes)?, "it has no checksum");
        bytes.set_position(0);
        let frame = ParquetReader::new(bytes).finish()?;
        check_columns(table, &frame)?;
        Ok(frame)
    };
    failure::caught(read).with_context(|| format!("reading the table `{}`", path.display()))
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
        let reader = SerializedFileReader::new(files::open(path)?)?;
        let metadata = reader.metadata().file_metadata();
        let entries = metadata.key_value_metadata().into_iter().flatten();
        let entries = entries.filter_map(|entry| Some((entry.key.clone(), entry.value.clone()?)));
        Ok((entries.collect(), u64::try_from(metadata.num_rows())?))
    };
    failure::caught(read).with_context(|| format!("reading the metadata of `{}`", path.display()))
}
