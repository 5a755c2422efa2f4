//! `--save`: the tokens of batches in a file, for other programs.

use crate::config::Run;
use crate::failure;
use crate::mark::Mark;
use crate::output;
use crate::tables::{BatchWriter, Footer, SEQUENCES, write_atomically};
use anyhow::Result;
use arrow_array::builder::{ListBuilder, UInt32Builder};
use arrow_array::{ArrayRef, UInt32Array};
use arrow_schema::{DataType, Field};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use training_order::{TrainingIndex, TrainingOrder, npy};

/// Sequences read at once.
const BATCH: u64 = 1024;

/// Writes the tokens of the sequences `indices` to `path`, in the format of its ending.
///
/// # Errors
///
/// When the ending is neither `.npy` nor `.parquet`, the corpus cannot be read, or the file cannot be written.
pub(super) fn save(
    path: &Path,
    run: &Run,
    order: &TrainingOrder,
    indices: Range<u64>,
) -> Result<()> {
    let path = &std::path::absolute(path)?;
    output::admit_file(run, path, mark(path))?;
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("npy")
            if order
                .datasets()
                .all(|dataset| dataset.token_type().width() <= 2) =>
        {
            // Ids in 16 bits are the corpus' own.
            save_npy(path, order, indices, |token| {
                u16::try_from(token).unwrap_or(u16::MAX)
            })
        }
        Some("npy") => save_npy(path, order, indices, |token| token),
        Some("parquet") => save_parquet(path, order, indices),
        _ => Err(failure::usage(
            format_args!(
                "`{}` is of no format that sequences are saved in",
                path.display()
            ),
            "let its name end with `.npy` or `.parquet`",
        )),
    }
}

/// An array has no place for a mark.
fn mark(path: &Path) -> Mark {
    match path.extension().and_then(|ending| ending.to_str()) {
        Some("parquet") => Mark::Table(SEQUENCES.name),
        _ => Mark::Nothing,
    }
}

fn save_npy<T: npy::Element>(
    path: &Path,
    order: &TrainingOrder,
    indices: Range<u64>,
    stored: impl Fn(u32) -> T,
) -> Result<()> {
    let width = usize::try_from(order.sequence_length())? + 1;
    let shape = [usize::try_from(indices.end - indices.start)?, width];
    write_atomically(path, mark(path), |file| {
        let mut failed = None;
        let sequences = indices.map_while(|index| {
            let mut tokens = Vec::with_capacity(width);
            let read = order.read_tokens(
                TrainingIndex::new(index),
                0..order.sequence_length() + 1,
                &mut tokens,
            );
            read.map_err(|error| failed = Some(error)).ok()?;
            Some(tokens)
        });
        let written = npy::write(file, &shape, sequences.flatten().map(stored));
        order.check_unchanged()?;
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(written?),
        }
    })
}

fn save_parquet(path: &Path, order: &TrainingOrder, indices: Range<u64>) -> Result<()> {
    write_atomically(path, mark(path), |file| {
        let mut writer = BatchWriter::new(file, &SEQUENCES, &Footer::default())?;
        let mut first = indices.start;
        while first < indices.end {
            order.check_unchanged()?;
            let end = indices.end.min(first + BATCH);
            writer.write(columns(order, first..end)?)?;
            first = end;
        }
        order.check_unchanged()?;
        writer.finish()?;
        Ok(())
    })
}

fn columns(order: &TrainingOrder, indices: Range<u64>) -> Result<Vec<ArrayRef>> {
    let places: Vec<_> = indices
        .clone()
        .map(|index| order.position(TrainingIndex::new(index)))
        .collect();
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let mut tokens = ListBuilder::new(UInt32Builder::new()).with_field(item);
    let mut sequence = Vec::new();
    for index in indices.clone() {
        sequence.clear();
        order.read_tokens(
            TrainingIndex::new(index),
            0..order.sequence_length() + 1,
            &mut sequence,
        )?;
        tokens.values().append_slice(&sequence);
        tokens.append(true);
    }
    let training_index = indices
        .map(u32::try_from)
        .collect::<Result<Vec<u32>, _>>()?;
    Ok(vec![
        Arc::new(UInt32Array::from(training_index)),
        Arc::new(
            places
                .iter()
                .map(|place| Some(place.step))
                .collect::<UInt32Array>(),
        ),
        Arc::new(
            places
                .iter()
                .map(|place| Some(place.row))
                .collect::<UInt32Array>(),
        ),
        Arc::new(tokens.finish()),
    ])
}
