//! One column of a CSV file (RFC 4180): commas, quotation marks and line breaks inside quotation
//! marks, with a byte order mark or not.

use super::open;
use crate::failure;
use anyhow::{Result, anyhow};
use csv::{ByteRecord, Reader, ReaderBuilder};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// A column of a CSV file, row by row.
pub(crate) struct CsvFile {
    reader: Reader<Strict<BufReader<File>>>,
    record: ByteRecord,
    column: usize,
}

/// Hands bytes through and refuses quotation marks that say two things: a reader that guesses would
/// split fields elsewhere.
struct Strict<R> {
    source: R,
    state: State,
    line: u64,
    /// Where the open quotation mark stands.
    opened: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a quotation mark inside quotation marks: the field ends, or a second one follows.
    Closing,
}

impl CsvFile {
    /// Opens the file at `path` and finds the column `name` in its first line.
    ///
    /// # Errors
    ///
    /// When it is no regular file, or the first line does not name the column exactly once.
    pub(crate) fn open(path: &Path, name: &str) -> Result<Self> {
        let source = Strict {
            source: BufReader::new(open(path)?),
            state: State::FieldStart,
            line: 1,
            opened: 0,
        };
        let mut reader = ReaderBuilder::new().from_reader(source);
        let header = reader.byte_headers().map_err(|error| unread(&error))?;
        if header
            .iter()
            .next()
            .is_some_and(|first| first.starts_with(b"\xff\xfe"))
        {
            return Err(failure::failed("it is in UTF-16", "save it as UTF-8"));
        }
        let named = |field: &[u8]| {
            let field = String::from_utf8_lossy(field);
            field.trim_start_matches('\u{feff}').trim() == name
        };
        let fields = header.iter().enumerate();
        let places: Vec<usize> = fields
            .filter(|(_, field)| named(field))
            .map(|(place, _)| place)
            .collect();
        match places[..] {
            [column] => Ok(Self {
                reader,
                record: ByteRecord::new(),
                column,
            }),
            [] => Err(failure::failed(
                format_args!(
                    "there is no column `{name}` of whole numbers: the first line names none"
                ),
                format_args!(
                    "name the column `{name}` in the first line, and separate columns by commas"
                ),
            )),
            _ => Err(failure::failed(
                format_args!("the first line names several columns `{name}`"),
                "give each column a name of its own",
            )),
        }
    }
}

impl Iterator for CsvFile {
    /// The text of the column; nothing where it is empty.
    type Item = Result<Option<String>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let field = self.record.get(self.column).unwrap_or_default();
                let text = String::from_utf8_lossy(field);
                let text = text.trim();
                Some(Ok((!text.is_empty()).then(|| text.to_owned())))
            }
            Err(error) => Some(Err(unread(&error))),
        }
    }
}

fn unread(error: &csv::Error) -> anyhow::Error {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => failure::failed(
            format_args!(
                "line {}: there are {len} fields, and the first line names {expected_len} columns",
                pos.as_ref().map_or(0, csv::Position::line)
            ),
            "put fields that hold commas between quotation marks",
        ),
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::InvalidData => failure::failed(
            error,
            "put a field that holds quotation marks between quotation marks, and write each of its own twice",
        ),
        _ => anyhow!("{error}"),
    }
}

impl<R> Strict<R> {
    fn take(&mut self, byte: u8) -> Result<(), String> {
        let line = self.line;
        self.line += u64::from(byte == b'\n');
        self.state = match (self.state, byte) {
            (State::FieldStart, b'"') => {
                self.opened = line;
                State::Quoted
            }
            // A byte order mark may stand before the first quotation mark.
            (State::FieldStart, 0xef | 0xbb | 0xbf) if line == 1 => State::FieldStart,
            (State::FieldStart | State::Plain | State::Closing, b',' | b'\n' | b'\r') => {
                State::FieldStart
            }
            (State::Quoted, b'"') => State::Closing,
            (State::Closing, b'"') | (State::Quoted, _) => State::Quoted,
            (State::Plain, b'"') => {
                return Err(format!(
                    "line {line}: a quotation mark stands inside a field that does not begin with one"
                ));
            }
            (State::Closing, _) => {
                return Err(format!(
                    "line {line}: a field goes on behind its closing quotation mark"
                ));
            }
            (State::FieldStart | State::Plain, _) => State::Plain,
        };
        Ok(())
    }
}

impl<R: Read> Read for Strict<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(buffer)?;
        let invalid = |problem| io::Error::new(io::ErrorKind::InvalidData, problem);
        if n == 0 && self.state == State::Quoted && !buffer.is_empty() {
            return Err(invalid(format!(
                "line {}: a quotation mark is never closed",
                self.opened
            )));
        }
        for &byte in &buffer[..n] {
            self.take(byte).map_err(invalid)?;
        }
        Ok(n)
    }
}
