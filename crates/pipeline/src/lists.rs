//! Lists of training indices: a parquet or CSV file with a column `training_index`, read row by
//! row.

use crate::door::{Asked, Cells, CsvFile, ParquetFile, Wanted};
use crate::failure;
use anyhow::{Context, Result, anyhow};
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
    format: Format,
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
        let format = format(path).unwrap_or(Format::Parquet);
        let rows = match format {
            Format::Csv => csv_rows(path),
            Format::Parquet => parquet_rows(path),
        };
        Ok(Self {
            path: path.to_owned(),
            format,
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

    /// The row that was read last: the header of a CSV file is row 0.
    fn row(&self) -> String {
        match self.format {
            Format::Csv => format!("row {}", self.n),
            Format::Parquet => format!("row {} (counted from 0)", self.n.saturating_sub(1)),
        }
    }

    /// What is wrong with a number, given the one before.
    fn check_row(&self, number: Option<i128>) -> Result<u64> {
        let row = self.row();
        let wrong = |problem: String, cure: &str| {
            let path = self.path.display();
            failure::failed(format_args!("the list `{path}`, {row}: {problem}"), cure)
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
        let reading = || match self.format {
            Format::Csv => format!("reading the list `{}`, {}", self.path.display(), self.row()),
            // The reader says the row itself.
            Format::Parquet => format!("reading the list `{}`", self.path.display()),
        };
        let index = number
            .with_context(reading)
            .and_then(|number| self.check_row(number));
        self.last = index.as_ref().ok().copied().or(self.last);
        Some(index)
    }
}

fn csv_rows(path: &Path) -> Result<Box<dyn Iterator<Item = Row>>> {
    let rows = CsvFile::open(path, COLUMN)?.map(|text| {
        let Some(text) = text? else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(anyhow!("`{text}` is no whole number")),
        }
    });
    Ok(Box::new(rows))
}

fn parquet_rows(path: &Path) -> Result<Box<dyn Iterator<Item = Row>>> {
    let file = ParquetFile::open(path)?;
    if !file.has(COLUMN) {
        return Err(no_column(&format!("it has {}", file.names().join(", "))));
    }
    // Whether a number is a sequence is said with the corpus.
    let batches = file.read(vec![Asked {
        name: COLUMN,
        wanted: Wanted::Whole(i128::MIN..=i128::MAX),
    }])?;
    let rows = batches.flat_map(|batch| match batch.map(|batch| batch.columns) {
        Ok(columns) => columns.into_iter().flat_map(numbers).collect(),
        Err(error) => vec![Err(error)],
    });
    Ok(Box::new(rows))
}

fn numbers(column: Cells) -> Vec<Row> {
    match column {
        Cells::Whole(numbers) => numbers.into_iter().map(Ok).collect(),
        // Whole numbers were asked for.
        Cells::Real(_) | Cells::Flag(_) | Cells::Text(_) => Vec::new(),
    }
}

fn no_column(why: &str) -> anyhow::Error {
    failure::failed(
        format_args!("there is no column `{COLUMN}` of whole numbers: {why}"),
        "name the column of the training indices `training_index`, as `positions.parquet` does",
    )
}
