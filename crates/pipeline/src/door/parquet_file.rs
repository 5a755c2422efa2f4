//! Columns of a parquet file of any program, some rows at a time. Columns that are not asked for
//! are never decoded, and their types do not matter.

use super::cells::{Asked, Cells, Unfit, Wanted};
use super::raw::raw;
use super::{impostor, open, wrong};
use crate::failure;
use anyhow::{Context, Result, bail};
use parquet::basic::{ConvertedType, LogicalType, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Rows decoded at once.
const BATCH: usize = 1 << 16;

/// A parquet file whose footer has been read.
pub(crate) struct ParquetFile {
    path: PathBuf,
    reader: SerializedFileReader<File>,
}

/// Some rows of the columns that were asked for.
pub(crate) struct Batch {
    /// Row of the file, from 0.
    pub(crate) first: u64,
    pub(crate) n_rows: usize,
    /// In the order of the question.
    pub(crate) columns: Vec<Cells>,
}

/// The batches of a file, in its order.
pub(crate) struct Batches {
    file: ParquetFile,
    asked: Vec<Asked>,
    /// Numbers of the columns in the file, with the types they have there.
    leaves: Vec<Leaf>,
    group: usize,
    /// Readers of the open row group, and the rows that are left of it.
    open: Option<(Vec<ColumnReader>, usize)>,
    row: u64,
    failed: bool,
}

/// A column of the file.
struct Leaf {
    number: usize,
    nullable: bool,
    unsigned: bool,
}

impl ParquetFile {
    /// Reads the footer of the file at `path`.
    ///
    /// # Errors
    ///
    /// When it is no regular file, or no whole parquet file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = open(path)?;
        let copy = file
            .try_clone()
            .with_context(|| format!("opening `{}`", path.display()))?;
        match failure::caught(|| Ok(SerializedFileReader::new(copy)?)) {
            Ok(reader) => Ok(Self {
                path: path.to_owned(),
                reader,
            }),
            Err(error) => Err(match impostor(&mut file) {
                Some((found, cure)) => {
                    failure::failed(format_args!("`{}` {found}", path.display()), cure)
                }
                None => failure::failed(
                    format_args!("`{}` is no whole parquet file: {error:#}", path.display()),
                    "name a parquet file, as pandas, polars or Spark write it",
                ),
            }),
        }
    }

    /// Whether there is a column of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let fields = schema.root_schema().get_fields();
        fields.iter().any(|field| field.name() == name)
    }

    /// The names of its columns.
    pub(crate) fn names(&self) -> Vec<&str> {
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let fields = schema.root_schema().get_fields().iter();
        fields.map(|field| field.name()).collect()
    }

    /// Reads the columns that are asked for, row by row group.
    ///
    /// # Errors
    ///
    /// When one is missing, stands there twice, or is of a type that does not hold such values.
    pub(crate) fn read(self, asked: Vec<Asked>) -> Result<Batches> {
        let leaves = asked
            .iter()
            .map(|column| self.leaf(column))
            .collect::<Result<Vec<_>>>()?;
        Ok(Batches {
            file: self,
            asked,
            leaves,
            group: 0,
            open: None,
            row: 0,
            failed: false,
        })
    }

    fn leaf(&self, asked: &Asked) -> Result<Leaf> {
        let (path, name) = (self.path.display(), asked.name);
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let fields = schema.root_schema().get_fields().iter();
        match fields.filter(|field| field.name() == name).count() {
            1 => {}
            0 => bail!("`{path}` has no column `{name}`"),
            _ => {
                return Err(failure::failed(
                    format_args!("`{path}` has several columns `{name}`"),
                    "give each column a name of its own",
                ));
            }
        }
        let mut columns = schema.columns().iter().enumerate();
        let unfit = |kind: &str| {
            let cure = match asked.wanted {
                Wanted::Whole(_) if kind == "text" => {
                    "write the number alone, such as 20 for `step20`".to_owned()
                }
                ref wanted => wanted.cure(),
            };
            failure::failed(
                format_args!(
                    "`{path}`: the column `{name}` holds {kind}, not {}",
                    asked.wanted
                ),
                cure,
            )
        };
        let plain = columns.find(|(_, column)| column.path().parts() == [name]);
        let Some((number, column)) = plain else {
            return Err(unfit("lists or structs"));
        };
        if column.max_rep_level() > 0 {
            return Err(unfit("lists"));
        }
        let kind = kind(column);
        let fits = matches!(
            (&asked.wanted, kind),
            (_, Kind::Null)
                | (
                    Wanted::Whole(_) | Wanted::Real,
                    Kind::Whole { .. } | Kind::Real
                )
                | (Wanted::Flag, Kind::Flag | Kind::Whole { .. } | Kind::Real)
                | (Wanted::Text, Kind::Text)
        );
        if !fits {
            return Err(unfit(kind.name()));
        }
        Ok(Leaf {
            number,
            nullable: column.max_def_level() > 0,
            unsigned: kind == Kind::Whole { unsigned: true },
        })
    }
}

/// What the values of a column are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Whole {
        unsigned: bool,
    },
    Real,
    Flag,
    Text,
    /// A column without any value.
    Null,
    Other(&'static str),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Whole { .. } => "whole numbers",
            Self::Real => "floats",
            Self::Flag => "true and false",
            Self::Text => "text",
            Self::Null => "nothing",
            Self::Other(name) => name,
        }
    }
}

fn kind(column: &ColumnDescriptor) -> Kind {
    let logical = column.logical_type_ref();
    let unsigned = match (logical, column.converted_type()) {
        (Some(LogicalType::Integer(kind)), _) => !kind.is_signed,
        (
            _,
            ConvertedType::UINT_8
            | ConvertedType::UINT_16
            | ConvertedType::UINT_32
            | ConvertedType::UINT_64,
        ) => true,
        _ => false,
    };
    match (column.physical_type(), logical, column.converted_type()) {
        (_, Some(LogicalType::Unknown), _) => Kind::Null,
        (_, Some(LogicalType::Decimal(_)), _) | (_, _, ConvertedType::DECIMAL) => {
            Kind::Other("decimals")
        }
        (_, Some(LogicalType::Date), _) | (_, _, ConvertedType::DATE) => Kind::Other("dates"),
        (_, Some(LogicalType::Time(_) | LogicalType::Timestamp(_)), _)
        | (
            _,
            _,
            ConvertedType::TIME_MILLIS
            | ConvertedType::TIME_MICROS
            | ConvertedType::TIMESTAMP_MILLIS
            | ConvertedType::TIMESTAMP_MICROS
            | ConvertedType::INTERVAL,
        )
        | (Physical::INT96, ..) => Kind::Other("times"),
        (Physical::INT32 | Physical::INT64, ..) => Kind::Whole { unsigned },
        (Physical::FLOAT | Physical::DOUBLE, ..)
        | (Physical::FIXED_LEN_BYTE_ARRAY, Some(LogicalType::Float16), _) => Kind::Real,
        (Physical::BOOLEAN, ..) => Kind::Flag,
        (Physical::BYTE_ARRAY, None | Some(LogicalType::String | LogicalType::Enum), _) => {
            Kind::Text
        }
        _ => Kind::Other("bytes"),
    }
}

impl Batches {
    /// The next rows; nothing at the end.
    fn batch(&mut self) -> Result<Option<Batch>> {
        let (mut readers, n_left) = loop {
            if let Some(open) = self.open.take().filter(|(_, n_left)| *n_left > 0) {
                break open;
            }
            if self.group == self.file.reader.num_row_groups() {
                return Ok(None);
            }
            self.open = Some(self.open_group()?);
            self.group += 1;
        };
        let n_rows = n_left.min(BATCH);
        let mut columns = Vec::new();
        for ((asked, leaf), reader) in self.asked.iter().zip(&self.leaves).zip(&mut readers) {
            let name = asked.name;
            let raw = raw(reader, leaf.nullable, leaf.unsigned, n_rows)
                .with_context(|| format!("reading the column `{name}`"))?;
            let cells = raw.fit(&asked.wanted).map_err(|Unfit { row, problem }| {
                let row = self.row + row as u64;
                let problem = format!("`{name}` {problem}");
                wrong(&self.file.path, row, problem, asked.wanted.cure())
            })?;
            columns.push(cells);
        }
        let first = self.row;
        self.row += n_rows as u64;
        self.open = Some((readers, n_left - n_rows));
        Ok(Some(Batch {
            first,
            n_rows,
            columns,
        }))
    }

    fn open_group(&self) -> Result<(Vec<ColumnReader>, usize)> {
        let group = self.file.reader.get_row_group(self.group)?;
        let n_rows = usize::try_from(group.metadata().num_rows())?;
        let leaves = self.leaves.iter();
        let readers = leaves
            .map(|leaf| Ok(group.get_column_reader(leaf.number)?))
            .collect::<Result<Vec<_>>>()?;
        Ok((readers, n_rows))
    }

    /// An error about a row, counted from 0.
    pub(crate) fn wrong(
        &self,
        row: u64,
        problem: impl Display,
        cure: impl Display,
    ) -> anyhow::Error {
        wrong(&self.file.path, row, problem, cure)
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        // Decoders panic at some damages, and files of other programs have no checksum.
        let batch = failure::caught(|| self.batch());
        self.failed = batch.is_err();
        let path = self.file.path.display().to_string();
        let damaged = |error: anyhow::Error| {
            if failure::hint(&error).is_some() {
                return error;
            }
            failure::failed(
                format_args!("`{path}` cannot be read: {error:#}"),
                "write or download the file again; compress it with zstd, snappy, gzip or not at all",
            )
        };
        batch.map_err(damaged).transpose()
    }
}
