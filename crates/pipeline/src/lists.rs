//! Lists of training indices: a parquet or CSV file with a column `training_index`, read row by row.

use crate::failure;
use anyhow::{Context, Result, anyhow};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// The column that a list needs.
const COLUMN: &str = "training_index";

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Parquet,
    Csv,
}

/// The format that a file's name tells.
pub(crate) fn format(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "parquet" => Some(Format::Parquet),
        "csv" => Some(Format::Csv),
        _ => None,
    }
}

/// What a row says; nothing where it is empty.
type Row = Result<Option<i128>>;

/// The training indices of a list: ascending, none twice, all below a limit.
pub(crate) struct List {
    path: PathBuf,
    rows: Box<dyn Iterator<Item = Row>>,
    /// Sequences that there are.
    limit: u64,
    /// Rows read.
    n: u64,
    last: Option<u64>,
}

impl List {
    /// Opens the list at `path`, for a corpus of `limit` sequences.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or has no column of whole numbers with the right name.
    pub(crate) fn open(path: &Path, limit: u64) -> Result<Self> {
        let rows = match format(path) {
            Some(Format::Csv) => csv_rows(path),
            Some(Format::Parquet) | None => parquet_rows(path),
        };
        Ok(Self {
            path: path.to_owned(),
            rows: rows.with_context(|| format!("reading the list `{}`", path.display()))?,
            limit,
            n: 0,
            last: None,
        })
    }

    /// Reads the list to its end; its length.
    ///
    /// # Errors
    ///
    /// When it is empty, or at the first row that cannot be used.
    pub(crate) fn check(mut self) -> Result<u64> {
        self.try_for_each(|index| index.map(drop))?;
        match self.n {
            0 => Err(failure::failed(
                format_args!("the list `{}` has no rows", self.path.display()),
                "without `corpus.list`, every sequence is probed",
            )),
            n => Ok(n),
        }
    }

    /// What is wrong with a number, given the one before.
    fn check_row(&self, number: Option<i128>) -> Result<u64> {
        let row = self.n;
        let wrong = |problem: String, cure: &str| {
            let path = self.path.display();
            failure::failed(
                format_args!("the list `{path}`, row {row}: {problem}"),
                cure,
            )
        };
        let Some(number) = number else {
            return Err(wrong(format!("there is no `{COLUMN}`"), "remove the row"));
        };
        let index = u64::try_from(number)
            .ok()
            .filter(|index| *index < self.limit);
        let index = index.ok_or_else(|| {
            wrong(
                format!("{number} is not among the {} sequences", self.limit),
                "training indices count from 0, in the order in which the trainer consumed the sequences of this corpus",
            )
        })?;
        match self.last {
            Some(last) if last == index => Err(wrong(
                format!("{index} stands in the row before, too"),
                "remove what is there twice",
            )),
            Some(last) if last > index => Err(wrong(
                format!("{index} comes after {last}"),
                "sort the list by `training_index` and remove what is there twice",
            )),
            _ => Ok(index),
        }
    }
}

impl Iterator for List {
    type Item = Result<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        let number = self.rows.next()?;
        self.n += 1;
        let row = self.n;
        let index = number
            .with_context(|| format!("reading the list `{}`, row {row}", self.path.display()))
            .and_then(|number| self.check_row(number));
        self.last = index.as_ref().ok().copied().or(self.last);
        Some(index)
    }
}

/// Fields between commas, in quotation marks or not; numbers need no more of the format.
fn csv_rows(path: &Path) -> Result<Box<dyn Iterator<Item = Row>>> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    let field = |text: &str| text.trim().trim_matches('"').trim().to_owned();
    let header = lines.next().transpose()?.unwrap_or_default();
    let header = header.trim_start_matches('\u{feff}');
    let place = header.split(',').position(|name| field(name) == COLUMN);
    let place = place.ok_or_else(|| no_column("the first line names none"))?;
    let rows = lines.map(move |line| {
        let line = line?;
        let text = line.split(',').nth(place).map(field).unwrap_or_default();
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) if text.is_empty() => Ok(None),
            Err(_) => Err(anyhow!("`{text}` is no whole number")),
        }
    });
    Ok(Box::new(rows))
}

fn parquet_rows(path: &Path) -> Result<Box<dyn Iterator<Item = Row>>> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    match builder.schema().field_with_name(COLUMN) {
        Err(_) => return Err(no_column("it has others")),
        Ok(field) if is_whole(field.data_type()) => {}
        Ok(field) => {
            return Err(no_column(&format!(
                "it is of the type {}",
                field.data_type()
            )));
        }
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), [COLUMN]);
    let batches = builder.with_projection(mask).build()?;
    let rows = batches.flat_map(|batch| match batch {
        Ok(batch) => numbers(&batch),
        Err(error) => vec![Err(error.into())],
    });
    Ok(Box::new(rows))
}

fn is_whole(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Int32 | DataType::Int64 | DataType::UInt32 | DataType::UInt64
    )
}

/// The numbers of a batch of the one column.
fn numbers(batch: &RecordBatch) -> Vec<Row> {
    let column = batch.column(0);
    let row = |number: Option<i128>| Ok(number);
    match column.data_type() {
        DataType::Int32 => {
            let column = column.as_primitive::<Int32Type>();
            column.iter().map(|n| row(n.map(i128::from))).collect()
        }
        DataType::Int64 => {
            let column = column.as_primitive::<Int64Type>();
            column.iter().map(|n| row(n.map(i128::from))).collect()
        }
        DataType::UInt32 => {
            let column = column.as_primitive::<UInt32Type>();
            column.iter().map(|n| row(n.map(i128::from))).collect()
        }
        DataType::UInt64 => {
            let column = column.as_primitive::<UInt64Type>();
            column.iter().map(|n| row(n.map(i128::from))).collect()
        }
        // Refused when the file was opened.
        _ => Vec::new(),
    }
}

fn no_column(why: &str) -> anyhow::Error {
    failure::failed(
        format_args!("there is no column `{COLUMN}` of whole numbers: {why}"),
        "name the column of the training indices `training_index`, as `positions.parquet` does",
    )
}
