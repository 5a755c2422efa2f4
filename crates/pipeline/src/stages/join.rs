//! `join`: memorization against training time. Positions and verdicts become the tables one reads.

use super::footer;
use super::plan::n_planned;
use super::units::{self, State};
use crate::config::{Corpus, Run};
use crate::failure;
use crate::inputs::Inputs;
use crate::progress::Progress;
use crate::tables::{
    MEMORIZATION, MEMORIZATION_BY_TIME, POSITIONS, Table, VERDICTS, read_frame, write_frame,
};
use anyhow::{Context, Result, bail};
use pipeline::statistics::wilson_interval;
use polars::prelude::*;
use training_order::{BatchPosition, Checkpoint};

/// What the run found, for a person to read.
pub(crate) struct Summary {
    pub(crate) rows: Vec<SummaryRow>,
    pub(crate) n_memorization: u64,
    pub(crate) n_by_time: u64,
}

/// One corpus, model and checkpoint.
pub(crate) struct SummaryRow {
    pub(crate) corpus: String,
    pub(crate) model: String,
    pub(crate) checkpoint: u32,
    pub(crate) n: u32,
    pub(crate) n_memorized: u32,
    /// Memorized and all among the seen sequences of the first half of the steps trained so far.
    pub(crate) early: (u32, u32),
    /// The same for the second half.
    pub(crate) late: (u32, u32),
}

/// Writes `memorization` and `memorization_by_time`.
///
/// # Errors
///
/// When a part is missing, damaged or of another run, or verdicts and positions do not match one to one.
pub(crate) fn join(run: &Run, inputs: &Inputs) -> Result<Summary> {
    let n_probes: u64 = inputs
        .orders
        .iter()
        .map(|(corpus, order)| {
            let n_checkpoints: usize = run
                .models_of(corpus)
                .map(|model| model.checkpoints.len())
                .sum();
            n_planned(run, corpus, order) * n_checkpoints as u64
        })
        .sum();
    let progress = Progress::begin("join", n_probes);
    let mut joined = Vec::new();
    let mut by_time = Vec::new();
    let mut rows = Vec::new();
    for corpus in &run.corpora {
        let planned = units::planned(run, &corpus.name)?;
        let positions = positions(run, &corpus.name)?;
        for model in run.models_of(&corpus.name) {
            for checkpoint in &model.checkpoints {
                progress.working_on(format!("{} step{}", model.name, checkpoint.steps));
                let units = units::cut(run, inputs, corpus, model, checkpoint, &planned)?;
                let mut parts = Vec::with_capacity(units.len());
                for unit in units {
                    if unit.state()? == State::Missing {
                        return Err(failure::failed(
                            format_args!("the part `{}` is not there", unit.path.display()),
                            "run the stage `probe` first, or all of them without `--only`",
                        ));
                    }
                    parts.push(read_frame(&unit.path, &VERDICTS)?.lazy());
                }
                let table = memorization(&model.name, checkpoint.steps, &positions, parts)
                    .with_context(|| {
                        format!(
                            "joining the verdicts of `{}` at checkpoint {}",
                            model.name, checkpoint.steps
                        )
                    })?;
                if table.height() != planned.len() || positions.height() != planned.len() {
                    bail!(
                        "`{}` at checkpoint {}: {} joined rows for {} planned probes",
                        model.name,
                        checkpoint.steps,
                        table.height(),
                        planned.len()
                    );
                }
                rows.push(summarize(corpus, &model.name, checkpoint.steps, &table)?);
                by_time.push(bin_by_time(run, corpus, checkpoint.steps, &table)?.lazy());
                progress.advance(table.height() as u64);
                progress.finished(&format!("{} step{}", model.name, checkpoint.steps));
                joined.push(table.lazy());
            }
        }
    }
    let n_memorization = write(run, &MEMORIZATION, joined)?;
    let n_by_time = write(run, &MEMORIZATION_BY_TIME, by_time)?;
    progress.end();
    Ok(Summary {
        rows,
        n_memorization,
        n_by_time,
    })
}

/// Stacks, sorts and writes the pieces of a table.
fn write(run: &Run, table: &'static Table, pieces: Vec<LazyFrame>) -> Result<u64> {
    let sorted = concat(pieces, UnionArgs::default())?
        .sort(
            table.sorted_by.iter().copied(),
            SortMultipleOptions::default().with_maintain_order(true),
        )
        .select(
            table
                .column_names()
                .into_iter()
                .map(col)
                .collect::<Vec<_>>(),
        );
    let mut frame = sorted.collect()?;
    write_frame(&run.out.join(table.path), table, &footer(run), &mut frame)?;
    Ok(frame.height() as u64)
}

fn positions(run: &Run, corpus: &str) -> Result<DataFrame> {
    let frame = read_frame(&run.out.join(POSITIONS.path), &POSITIONS)?;
    Ok(frame
        .lazy()
        .filter(col("corpus").eq(lit(corpus)))
        .select([col("training_index"), col("step")])
        .collect()?)
}

/// The rows of `memorization` for one model at one checkpoint.
fn memorization(
    model: &str,
    checkpoint: u32,
    positions: &DataFrame,
    parts: Vec<LazyFrame>,
) -> Result<DataFrame> {
    let verdicts = concat(parts, UnionArgs::default())?;
    let mut joined = verdicts
        .join(
            positions.clone().lazy(),
            [col("training_index")],
            [col("training_index")],
            JoinArgs {
                validation: JoinValidation::OneToOne,
                ..JoinArgs::new(JoinType::Inner)
            },
        )
        .with_columns([
            lit(model).alias("model"),
            lit(checkpoint).cast(DataType::UInt32).alias("checkpoint"),
        ])
        .collect()?;
    // `seen` and `lag` are defined once, by the library, and not again in an expression.
    let trained = Checkpoint::new(checkpoint);
    let place = |step: u32| BatchPosition { step, row: 0 };
    let steps = joined.column("step")?.u32()?;
    let seen: Vec<bool> = steps
        .into_no_null_iter()
        .map(|step| trained.has_seen(place(step)))
        .collect();
    let lag: Vec<i32> = steps
        .into_no_null_iter()
        .map(|step| Ok(i32::try_from(trained.lag(place(step)))?))
        .collect::<Result<_>>()?;
    joined.with_column(Column::new("seen".into(), seen))?;
    joined.with_column(Column::new("lag".into(), lag))?;
    Ok(joined)
}

/// The rows of `memorization_by_time` for one model at one checkpoint.
///
/// Bin `b` holds the steps `b·w … (b+1)·w − 1` with w = ⌈steps / bins⌉. Grouping by `seen` besides splits
/// the bin that holds the checkpoint in two.
fn bin_by_time(
    run: &Run,
    corpus: &Corpus,
    checkpoint: u32,
    table: &DataFrame,
) -> Result<DataFrame> {
    let width = corpus.steps.div_ceil(run.bins);
    let counts = table
        .clone()
        .lazy()
        .with_column((col("step") / lit(width)).alias("bin"))
        .group_by([
            col("model"),
            col("corpus"),
            col("checkpoint"),
            col("bin"),
            col("seen"),
        ])
        .agg([
            len().cast(DataType::UInt32).alias("n"),
            col("memorized")
                .sum()
                .cast(DataType::UInt32)
                .alias("n_memorized"),
        ])
        .with_columns([
            constant("k", run.probe.k),
            constant("l", run.probe.l),
            constant("offset", run.probe.offset),
        ]);
    let mut frame = counts.collect()?;
    let numbers = |name: &str| -> Result<Vec<u32>> {
        Ok(frame.column(name)?.u32()?.into_no_null_iter().collect())
    };
    let (bins, n, n_memorized) = (numbers("bin")?, numbers("n")?, numbers("n_memorized")?);
    let seen = frame
        .column("seen")?
        .bool()?
        .iter()
        .map(|seen| seen == Some(true));
    let steps: Vec<(u32, u32)> = bins
        .iter()
        .zip(seen)
        .map(|(&bin, seen)| steps_of(bin, width, corpus.steps, checkpoint, seen))
        .collect();
    let rates: Vec<(f64, f64, f64)> = n_memorized
        .iter()
        .zip(&n)
        .map(|(&hits, &n)| {
            let (lo, hi) = wilson_interval(hits, n);
            (f64::from(hits) / f64::from(n), lo, hi)
        })
        .collect();
    frame.with_column(numbered("step_lo", steps.iter().map(|steps| steps.0)))?;
    frame.with_column(numbered("step_hi", steps.iter().map(|steps| steps.1)))?;
    frame.with_column(measured("rate", rates.iter().map(|rate| rate.0)))?;
    frame.with_column(measured("rate_lo", rates.iter().map(|rate| rate.1)))?;
    frame.with_column(measured("rate_hi", rates.iter().map(|rate| rate.2)))?;
    Ok(frame)
}

/// The steps of bin `bin`, half-open; only those seen, or not seen, by the checkpoint.
fn steps_of(bin: u32, width: u32, n_steps: u32, checkpoint: u32, seen: bool) -> (u32, u32) {
    let lo = bin * width;
    let hi = lo.saturating_add(width).min(n_steps);
    if seen {
        (lo, hi.min(checkpoint))
    } else {
        (lo.max(checkpoint), hi)
    }
}

/// polars takes an integer literal for an i32 unless told.
fn constant(name: &str, value: u16) -> Expr {
    lit(value).cast(DataType::UInt16).alias(name)
}

fn numbered(name: &str, values: impl Iterator<Item = u32>) -> Column {
    Column::new(name.into(), values.collect::<Vec<u32>>())
}

fn measured(name: &str, values: impl Iterator<Item = f64>) -> Column {
    Column::new(name.into(), values.collect::<Vec<f64>>())
}

fn summarize(
    corpus: &Corpus,
    model: &str,
    checkpoint: u32,
    table: &DataFrame,
) -> Result<SummaryRow> {
    let steps = table.column("step")?.u32()?.into_no_null_iter();
    let memorized = table
        .column("memorized")?
        .bool()?
        .iter()
        .map(|memorized| memorized == Some(true));
    let mut row = SummaryRow {
        corpus: corpus.name.clone(),
        model: model.to_owned(),
        checkpoint,
        n: 0,
        n_memorized: 0,
        early: (0, 0),
        late: (0, 0),
    };
    let trained = Checkpoint::new(checkpoint);
    for (step, memorized) in steps.zip(memorized) {
        let hit = u32::from(memorized);
        row.n += 1;
        row.n_memorized += hit;
        if trained.has_seen(BatchPosition { step, row: 0 }) {
            let half = if u64::from(step) * 2 < u64::from(checkpoint) {
                &mut row.early
            } else {
                &mut row.late
            };
            half.0 += hit;
            half.1 += 1;
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bin_that_holds_the_checkpoint_is_cut_there() {
        // 10 steps in bins of 4: 0–3, 4–7 and 8–9.
        assert_eq!(steps_of(0, 4, 10, 6, true), (0, 4));
        assert_eq!(steps_of(1, 4, 10, 6, true), (4, 6));
        assert_eq!(steps_of(1, 4, 10, 6, false), (6, 8));
        assert_eq!(steps_of(2, 4, 10, 6, false), (8, 10));
    }
}
