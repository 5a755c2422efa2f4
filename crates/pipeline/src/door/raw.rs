//! Values of a column as a parquet file holds them.

use super::cells::Raw;
use anyhow::{Context, Result, bail};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{DataType, FixedLenByteArray};

/// The next `n` values of a column, as the file holds them.
///
/// # Errors
///
/// When the column is damaged or ends before.
pub(super) fn raw(
    reader: &mut ColumnReader,
    nullable: bool,
    unsigned: bool,
    n: usize,
) -> Result<Raw> {
    /// Whole numbers up to which floats of each type hold all.
    const EXACT: [f64; 3] = [2048.0, 16_777_216.0, 9_007_199_254_740_992.0];
    Ok(match reader {
        ColumnReader::BoolColumnReader(reader) => Raw::Flag(values(reader, nullable, n)?),
        ColumnReader::Int32ColumnReader(reader) => {
            let of = |value: i32| {
                if unsigned {
                    i128::from(value.cast_unsigned())
                } else {
                    i128::from(value)
                }
            };
            Raw::Whole(mapped(values(reader, nullable, n)?, of))
        }
        ColumnReader::Int64ColumnReader(reader) => {
            let of = |value: i64| {
                if unsigned {
                    i128::from(value.cast_unsigned())
                } else {
                    i128::from(value)
                }
            };
            Raw::Whole(mapped(values(reader, nullable, n)?, of))
        }
        ColumnReader::FloatColumnReader(reader) => {
            Raw::Real(mapped(values(reader, nullable, n)?, f64::from), EXACT[1])
        }
        ColumnReader::DoubleColumnReader(reader) => {
            Raw::Real(values(reader, nullable, n)?, EXACT[2])
        }
        ColumnReader::ByteArrayColumnReader(reader) => Raw::Bytes(values(reader, nullable, n)?),
        ColumnReader::FixedLenByteArrayColumnReader(reader) => {
            Raw::Real(mapped(values(reader, nullable, n)?, half), EXACT[0])
        }
        ColumnReader::Int96ColumnReader(_) => bail!("it holds times"),
    })
}

fn mapped<T, U>(values: Vec<Option<T>>, of: impl Fn(T) -> U) -> Vec<Option<U>> {
    let values = values.into_iter();
    values.map(|value| value.map(&of)).collect()
}

fn values<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    nullable: bool,
    n: usize,
) -> Result<Vec<Option<T::T>>> {
    let (mut values, mut levels, mut n_read) = (Vec::new(), Vec::new(), 0);
    while n_read < n {
        let levels = nullable.then_some(&mut levels);
        let (n_records, ..) = reader.read_records(n - n_read, levels, None, &mut values)?;
        if n_records == 0 {
            bail!("it ends before the last row");
        }
        n_read += n_records;
    }
    if !nullable {
        return Ok(values.into_iter().map(Some).collect());
    }
    let mut values = values.into_iter();
    let rows = levels.into_iter().map(|level| match level {
        0 => Ok(None),
        _ => values.next().map(Some).context("it has too few values"),
    });
    rows.collect()
}

/// A float of 16 bits (IEEE 754).
#[expect(
    clippy::needless_pass_by_value,
    reason = "a value as the reader hands it over"
)]
fn half(bytes: FixedLenByteArray) -> f64 {
    let [low, high] = *bytes.data() else {
        return f64::NAN;
    };
    let bits = u16::from_le_bytes([low, high]);
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match (exponent, fraction) {
        (31, 0.0) => f64::INFINITY,
        (31, _) => f64::NAN,
        (0, _) => fraction * 2_f64.powi(-24),
        _ => (1024.0 + fraction) * 2_f64.powi(exponent - 25),
    }
}
