//! The values of a column, each exactly what was asked for.

use parquet::data_type::ByteArray;
use std::fmt;
use std::ops::RangeInclusive;

/// A column that is read.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) name: &'static str,
    pub(crate) wanted: Wanted,
}

/// The values that a column must hold; any of them may be null.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// Whole numbers in a range, whichever type holds them.
    Whole(RangeInclusive<i128>),
    /// Finite numbers that fit a float of 32 bits.
    Real,
    /// True and false, or 1 and 0.
    Flag,
    Text,
}

/// The values of some rows of a column.
#[derive(Clone, Debug)]
pub(crate) enum Cells {
    Whole(Vec<Option<i128>>),
    Real(Vec<Option<f32>>),
    Flag(Vec<Option<bool>>),
    /// Valid UTF-8.
    Text(Vec<Option<ByteArray>>),
}

/// The values as the file holds them.
pub(super) enum Raw {
    Whole(Vec<Option<i128>>),
    /// Floats, and the largest number up to which they hold every whole number.
    Real(Vec<Option<f64>>, f64),
    Flag(Vec<Option<bool>>),
    Bytes(Vec<Option<ByteArray>>),
}

/// A value that does not fit: its row among those given, and what is wrong with it.
#[derive(Debug)]
pub(super) struct Unfit {
    pub(super) row: usize,
    pub(super) problem: String,
}

impl Wanted {
    /// What must be written, for a cure.
    pub(super) fn cure(&self) -> String {
        match self {
            Self::Whole(range) if *range.end() == i128::MAX => "write whole numbers".to_owned(),
            Self::Whole(range) => format!(
                "write whole numbers from {} to {}, and null where there is none",
                range.start(),
                range.end()
            ),
            Self::Real => "write finite numbers, and null where there is none".to_owned(),
            Self::Flag => "write true and false, and null where it is not known".to_owned(),
            Self::Text => "write text in UTF-8".to_owned(),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whole(_) => "whole numbers",
            Self::Real => "numbers",
            Self::Flag => "true and false",
            Self::Text => "text",
        })
    }
}

impl Raw {
    /// The values as they were asked for.
    ///
    /// # Errors
    ///
    /// The first value that does not fit. The type was held to `wanted` before.
    pub(super) fn fit(self, wanted: &Wanted) -> Result<Cells, Unfit> {
        match (wanted, self) {
            (Wanted::Whole(range), Self::Whole(values)) => {
                check(&values, |value| in_range(*value, range))?;
                Ok(Cells::Whole(values))
            }
            (Wanted::Whole(range), Self::Real(values, exact)) => {
                let whole = each(values, |value| whole(value, exact))?;
                check(&whole, |value| in_range(*value, range))?;
                Ok(Cells::Whole(whole))
            }
            (Wanted::Real, Self::Real(values, _)) => Ok(Cells::Real(each(values, narrow)?)),
            (Wanted::Real, Self::Whole(values)) => {
                #[expect(
                    clippy::cast_precision_loss,
                    reason = "a measure, which f32 rounds in any case"
                )]
                let real = each(values, |value| narrow(value as f64))?;
                Ok(Cells::Real(real))
            }
            (Wanted::Flag, Self::Flag(values)) => Ok(Cells::Flag(values)),
            (Wanted::Flag, Self::Whole(values)) => Ok(Cells::Flag(each(values, flag)?)),
            (Wanted::Flag, Self::Real(values, exact)) => Ok(Cells::Flag(each(values, |value| {
                whole(value, exact).and_then(flag)
            })?)),
            (Wanted::Text, Self::Bytes(values)) => {
                check(&values, |value| {
                    let text = std::str::from_utf8(value.data());
                    text.map(drop).map_err(|_| "is not UTF-8".to_owned())
                })?;
                Ok(Cells::Text(values))
            }
            (wanted, _) => Err(Unfit {
                row: 0,
                problem: format!("is of another type than {wanted}"),
            }),
        }
    }
}

fn check<T>(values: &[Option<T>], fits: impl Fn(&T) -> Result<(), String>) -> Result<(), Unfit> {
    for (row, value) in values.iter().enumerate() {
        if let Some(value) = value {
            fits(value).map_err(|problem| Unfit { row, problem })?;
        }
    }
    Ok(())
}

fn each<T, U>(
    values: Vec<Option<T>>,
    of: impl Fn(T) -> Result<U, String>,
) -> Result<Vec<Option<U>>, Unfit> {
    let rows = values.into_iter().enumerate();
    rows.map(|(row, value)| {
        value
            .map(&of)
            .transpose()
            .map_err(|problem| Unfit { row, problem })
    })
    .collect()
}

fn in_range(value: i128, range: &RangeInclusive<i128>) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!(
        "is {value}, which is not in {} … {}",
        range.start(),
        range.end()
    ))
}

/// A float as the whole number that it is.
fn whole(value: f64, exact: f64) -> Result<i128, String> {
    if !value.is_finite() || value.fract() != 0.0 {
        return Err(format!("is {value}, which is no whole number"));
    }
    if value.abs() > exact {
        return Err(format!(
            "is {value}, and floats of this type do not hold every whole number above {exact}"
        ));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole, and not above 2⁵³")]
    let number = value as i128;
    Ok(number)
}

fn flag(value: i128) -> Result<bool, String> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(format!("is {value}, which is neither true nor false")),
    }
}

fn narrow(value: f64) -> Result<f32, String> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounded to the column's precision; a number beyond it becomes infinite and is refused"
    )]
    let narrow = value as f32;
    if narrow.is_finite() {
        Ok(narrow)
    } else {
        Err(format!("is {value}"))
    }
}
