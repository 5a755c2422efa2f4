//! NumPy's `.npy` files of whole numbers, read in place: the format in which GPT-NeoX keeps its maps.
//!
//! Format: `numpy/lib/format.py`, versions 1 to 3; little-endian, C order.

mod header;

use crate::file;
use crate::impostor::Impostor;
use crate::map::Map;
use crate::mmididx::ReadError;
use header::{Header, MAGIC, Number};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An array of whole numbers on disk.
#[derive(Debug)]
pub struct Array {
    map: Map,
    number: Number,
    shape: Vec<u64>,
    /// Byte at which the numbers begin.
    start: u64,
    len: u64,
}

/// Why a `.npy` file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// The file cannot be opened or mapped.
    #[error("opening `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something else lies under its name.
    #[error("`{path}` {found}")]
    Impostor {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: Impostor,
    },
    /// It has no header, or one that cannot be understood.
    #[error("`{path}` has no header of a `.npy` file of whole numbers: {problem}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// It is not as long as its header says.
    #[error("`{path}` has {found} bytes where its header asks for {expected}")]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header asks for; more than 2⁶⁴ are shown as 2⁶⁴ − 1.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
}

impl Array {
    /// Opens the file at `path`; reads its header only.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, holds anything but little-endian whole numbers in C order, or is not as
    /// long as its header says.
    pub fn open(path: &Path) -> Result<Self, NpyError> {
        let map = Map::open(path).map_err(|source| NpyError::Io {
            path: path.to_owned(),
            source,
        })?;
        let Header {
            number,
            shape,
            start,
        } = Header::read(map.bytes()).map_err(|problem| {
            let path = path.to_owned();
            match Impostor::of(map.bytes()) {
                Some(found) => NpyError::Impostor { path, found },
                None => NpyError::Header { path, problem },
            }
        })?;
        let len = shape.iter().try_fold(1_u64, |len, n| len.checked_mul(*n));
        let end = len.and_then(|len| len.checked_mul(number.width())?.checked_add(start));
        match (len, end) {
            (Some(len), Some(end)) if end == map.len() => Ok(Self {
                map,
                number,
                shape,
                start,
                len,
            }),
            (_, end) => Err(NpyError::Length {
                path: path.to_owned(),
                expected: end.unwrap_or(u64::MAX),
                found: map.len(),
            }),
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        self.map.path()
    }

    /// Its shape; numbers lie row by row.
    pub fn shape(&self) -> &[u64] {
        &self.shape
    }

    /// How many numbers there are in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number at `place`, counted row by row.
    pub fn get(&self, place: u64) -> Option<i64> {
        if place >= self.len {
            return None;
        }
        let offset = self.start + place * self.number.width();
        Some(match self.number {
            Number::U8 => i64::from(u8::from_le_bytes(self.map.array(offset)?)),
            Number::U16 => i64::from(u16::from_le_bytes(self.map.array(offset)?)),
            Number::U32 => i64::from(u32::from_le_bytes(self.map.array(offset)?)),
            Number::I32 => i64::from(i32::from_le_bytes(self.map.array(offset)?)),
            Number::I64 => i64::from_le_bytes(self.map.array(offset)?),
        })
    }

    /// Refuses a file that is not as it was when it was opened.
    ///
    /// # Errors
    ///
    /// When it has changed, or the system does not say.
    pub fn check_unchanged(&self) -> Result<(), ReadError> {
        self.map.check_unchanged()
    }

    /// All numbers, row by row. The length was checked when the file was opened: none is left out.
    pub fn iter(&self) -> impl Iterator<Item = i64> {
        (0..self.len).map_while(|place| self.get(place))
    }
}

/// A number as a `.npy` file stores it.
pub trait Element: sealed::Sealed {
    /// NumPy's name of the type.
    const DESCR: &str;

    /// Writes it, little-endian.
    ///
    /// # Errors
    ///
    /// When `sink` cannot be written.
    fn write(self, sink: &mut impl Write) -> io::Result<()>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! element {
    ($number:ty, $descr:literal) => {
        impl sealed::Sealed for $number {}

        impl Element for $number {
            const DESCR: &str = $descr;

            fn write(self, sink: &mut impl Write) -> io::Result<()> {
                sink.write_all(&self.to_le_bytes())
            }
        }
    };
}

element!(u16, "<u2");
element!(u32, "<u4");
element!(i64, "<i8");

/// Writes numbers row by row as an array of `shape`.
///
/// # Errors
///
/// When the numbers do not fill the shape, or `sink` cannot be written.
pub fn write<T: Element>(
    sink: &mut impl Write,
    shape: &[usize],
    numbers: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    let lengths: Vec<String> = shape.iter().map(ToString::to_string).collect();
    // A tuple of one has a comma.
    let lengths = lengths.join(", ") + if shape.len() == 1 { "," } else { "" };
    let header = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({lengths}), }}",
        T::DESCR
    );
    // The numbers begin at a multiple of 64; a line feed ends the header.
    let width = (10 + header.len() + 1).next_multiple_of(64) - 10;
    sink.write_all(MAGIC)?;
    sink.write_all(&[1, 0])?;
    // A shape has a few numbers: its text is far shorter than 2¹⁶.
    sink.write_all(
        &u16::try_from(width)
            .map_err(io::Error::other)?
            .to_le_bytes(),
    )?;
    sink.write_all(format!("{header:<0$}\n", width - 1).as_bytes())?;
    let mut n = 0;
    for number in numbers {
        number.write(sink)?;
        n += 1;
    }
    if n == shape.iter().product::<usize>() {
        return Ok(());
    }
    let problem = format!("{n} numbers do not fill the shape {shape:?}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, problem))
}

impl NpyError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "GPT-NeoX writes three maps of a dataset, `…_doc_idx.npy`, `…_sample_idx.npy` and `…_shuffle_idx.npy`: name what stands before these endings"
            }
            Self::Io { source, .. } => file::hint(source)?,
            Self::Impostor { found, .. } => found.hint(),
            Self::Header { .. } => {
                "the file must hold whole numbers, little-endian and in C order, as `numpy.save` writes them: `numpy.ascontiguousarray(array, dtype=\"<i8\")` is such an array"
            }
            Self::Length {
                expected, found, ..
            } if found > expected => {
                "something was written behind the array: make the file again, or copy it again"
            }
            Self::Length { .. } => "the file was cut short on its way: copy or download it again",
        };
        Some(hint.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a file with this header, version 1, and these bytes of numbers.
    fn open(header: &str, numbers: &[u8]) -> Result<Array, NpyError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let len = u16::try_from(header.len()).unwrap().to_le_bytes();
        std::fs::write(
            &path,
            [b"\x93NUMPY\x01\x00", &len[..], header.as_bytes(), numbers].concat(),
        )
        .unwrap();
        Array::open(&path)
    }

    #[test]
    fn numbers_are_read_row_by_row() {
        let header = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 1), }\n";
        let array = open(header, &[1, 0, 0, 0, 255, 255, 255, 255]).unwrap();
        assert_eq!(array.shape(), [2, 1]);
        assert_eq!(array.iter().collect::<Vec<_>>(), [1, -1]);
        assert_eq!(array.get(2), None);
        let one = open(
            "{'descr': '|u1', 'fortran_order': False, 'shape': (), }",
            &[7],
        )
        .unwrap();
        assert_eq!(one.iter().collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        for shape in [&[2, 3][..], &[6], &[3, 2, 1]] {
            let numbers = [1, -2, i64::MAX, i64::MIN, 0, 7];
            let mut bytes = Vec::new();
            write(&mut bytes, shape, numbers).unwrap();
            std::fs::write(&path, bytes).unwrap();
            let array = Array::open(&path).unwrap();
            assert_eq!(array.start % 64, 0);
            assert!(
                array
                    .shape()
                    .iter()
                    .copied()
                    .eq(shape.iter().map(|n| *n as u64))
            );
            assert!(array.iter().eq(numbers));
        }
        assert!(write(&mut Vec::new(), &[5], [0_u16; 6]).is_err());
    }

    #[test]
    fn what_is_no_such_array_is_refused() {
        let refused = |header: &str, n: usize| open(header, &vec![0; n]).unwrap_err().to_string();
        assert!(
            refused(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
                4
            )
            .ends_with("`descr` is '<f4'")
        );
        assert!(
            refused(
                "{'descr': '<u4', 'fortran_order': True, 'shape': (1,), }",
                4
            )
            .ends_with("`fortran_order` is not False")
        );
        assert!(
            refused(
                "{'descr': '<u4', 'fortran_order': False, 'shape': (x,), }",
                4
            )
            .contains("`shape` is not a tuple of whole numbers")
        );
        assert!(
            refused(
                "{'descr': '<u4', 'fortran_order': False, 'shape': (2,), }",
                4
            )
            .contains("where its header asks for")
        );
        let huge = "{'descr': '<u4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }";
        assert!(refused(huge, 4).ends_with("asks for 18446744073709551615"));
        assert!(refused("", 0).contains("it has `` where a `{` belongs"));
        let fits = "{'descr': '<u4', 'fortran_order': False, 'shape': (1,), }";
        assert!(refused(fits, 5).contains("where its header asks for"));
    }
}
