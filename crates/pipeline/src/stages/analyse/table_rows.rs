//! The columns of the tables, from their rows.

use super::by_time::ByTimeRow;
use super::contrast::ContrastRow;
use super::group::Key;
use super::strata::{QuantileRow, TrendRow, UniformityRow};
use super::surprisal::SurprisalRow;
use super::{Provenance, further_margins};
use anyhow::Result;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, StringArray, UInt16Array, UInt32Array};
use pipeline::statistics::Direction;
use std::sync::Arc;

fn text<T>(rows: &[T], of: impl Fn(&T) -> &str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

fn texts<T>(rows: &[T], of: impl Fn(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(of).collect::<StringArray>())
}

fn count<T>(rows: &[T], of: impl Fn(&T) -> u32) -> ArrayRef {
    Arc::new(
        rows.iter()
            .map(|row| Some(of(row)))
            .collect::<UInt32Array>(),
    )
}

fn number<T>(rows: &[T], of: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    // What has no finite value is null.
    let finite = |row| of(row).filter(|value| value.is_finite());
    Arc::new(rows.iter().map(finite).collect::<Float64Array>())
}

/// `model, corpus, checkpoint`: the first columns of most summaries.
fn keys<T>(rows: &[T], of: impl Fn(&T) -> &Key) -> Vec<ArrayRef> {
    vec![
        text(rows, |row| &of(row).model),
        text(rows, |row| &of(row).corpus),
        count(rows, |row| of(row).checkpoint),
    ]
}

/// `k, l, offset, suite, seed`: the last columns of every summary.
fn provenance<T>(
    rows: &[T],
    source: &Provenance,
    corpus: impl Fn(&T) -> &str,
) -> Result<Vec<ArrayRef>> {
    let same = |value: u16| -> ArrayRef { Arc::new(UInt16Array::from(vec![value; rows.len()])) };
    let seeds = rows.iter().map(|row| Ok(source.facts(corpus(row))?.seed));
    Ok(vec![
        same(source.k),
        same(source.l),
        same(source.offset),
        Arc::new(StringArray::from_iter_values(
            rows.iter().map(|_| &source.suite),
        )),
        Arc::new(UInt32Array::from(seeds.collect::<Result<Vec<u32>>>()?)),
    ])
}

pub(super) fn by_time(rows: &[ByTimeRow], source: &Provenance) -> Result<Vec<ArrayRef>> {
    let seen: BooleanArray = rows.iter().map(|row| row.seen).collect();
    let mut columns = keys(rows, |row| &row.key);
    columns.extend([
        text(rows, |row| &row.exposures),
        count(rows, |row| row.bin),
        count(rows, |row| row.step_lo),
        count(rows, |row| row.step_hi),
        Arc::new(seen),
        count(rows, |row| row.n),
        count(rows, |row| row.n_memorized),
        number(rows, |row| Some(row.rate)),
        number(rows, |row| Some(row.interval.0)),
        number(rows, |row| Some(row.interval.1)),
    ]);
    columns.extend(provenance(rows, source, |row| &row.key.corpus)?);
    Ok(columns)
}

pub(super) fn trend(rows: &[TrendRow], source: &Provenance) -> Result<Vec<ArrayRef>> {
    let mut columns = keys(rows, |row| &row.key);
    columns.extend([
        text(rows, |row| &row.stratum),
        count(rows, |row| row.step_lo),
        count(rows, |row| row.step_hi),
        count(rows, |row| row.n),
        count(rows, |row| row.n_memorized),
        count(rows, |row| row.n_bins),
        number(rows, |row| Some(row.fit?.slope)),
        number(rows, |row| Some(row.fit?.se)),
        number(rows, |row| row.fit?.se_quasi),
        number(rows, |row| row.fit?.se_hc1),
        number(rows, |row| Some(row.negative_binomial?.slope)),
        number(rows, |row| Some(row.negative_binomial?.alpha)),
        number(rows, |row| row.se_clustered),
        number(rows, |row| row.halves?.ratio),
        number(rows, |row| Some(row.halves?.lo)),
        number(rows, |row| Some(row.halves?.hi)),
        number(rows, |row| row.first_decile),
        number(rows, |row| row.last_5_percent),
        number(rows, |row| row.excess?.ratio),
        number(rows, |row| Some(row.excess?.interval?.0)),
        number(rows, |row| Some(row.excess?.interval?.1)),
        number(rows, |row| row.equivalence_p(1.05)),
        number(rows, |row| row.equivalence_p(1.10)),
        number(rows, TrendRow::mde),
        number(rows, |row| row.q),
        texts(rows, |row| {
            row.direction().map(Direction::name).map(str::to_owned)
        }),
        texts(rows, |row| row.equivalence().map(str::to_owned)),
        texts(rows, TrendRow::sentence),
    ]);
    columns.extend(provenance(rows, source, |row| &row.key.corpus)?);
    for (_, margin) in further_margins(&source.analysis) {
        columns.push(number(rows, |row| row.equivalence_p(margin)));
    }
    Ok(columns)
}

pub(super) fn surprisal(rows: &[SurprisalRow], source: &Provenance) -> Result<Vec<ArrayRef>> {
    let mut columns = keys(rows, |row| &row.key);
    columns.extend([
        texts(rows, |row| row.reference.clone()),
        text(rows, |row| row.stratum),
        count(rows, |row| row.n),
        number(rows, |row| Some(row.rank?.rho)),
        number(rows, |row| Some(row.rank?.p)),
        number(rows, |row| row.rank?.permutation_p),
        number(rows, |row| Some(row.line?.slope)),
        number(rows, |row| Some(row.line?.se)),
        number(rows, |row| Some(row.line?.se_hc1)),
        number(rows, |row| Some(row.line?.p)),
    ]);
    columns.extend(provenance(rows, source, |row| &row.key.corpus)?);
    Ok(columns)
}

pub(super) fn contrast(rows: &[ContrastRow], source: &Provenance) -> Result<Vec<ArrayRef>> {
    let rate = |hits: u32, n: u32| Some(f64::from(hits) / f64::from(n));
    let mut columns = vec![
        text(rows, |row| &row.key.model),
        text(rows, |row| &row.other),
        text(rows, |row| &row.key.corpus),
        count(rows, |row| row.key.checkpoint),
        text(rows, |row| &row.exposures),
        count(rows, |row| row.counts.n),
        count(rows, |row| row.counts.n_memorized),
        count(rows, |row| row.counts.n_memorized_other),
        count(rows, |row| row.counts.n_memorized_both),
        number(rows, |row| rate(row.counts.n_memorized, row.counts.n)),
        number(rows, |row| rate(row.counts.n_memorized_other, row.counts.n)),
        number(rows, |row| Some(row.counts.ratio()?.ratio)),
        number(rows, |row| Some(row.counts.ratio()?.lo)),
        number(rows, |row| Some(row.counts.ratio()?.hi)),
    ];
    columns.extend(provenance(rows, source, |row| &row.key.corpus)?);
    Ok(columns)
}

pub(super) fn uniformity(rows: &[UniformityRow], source: &Provenance) -> Result<Vec<ArrayRef>> {
    let mut columns = keys(rows, |row| &row.key);
    columns.extend([
        text(rows, |row| &row.stratum),
        count(rows, |row| row.n_memorized),
        number(rows, |row| Some(row.times?.ks_d)),
        number(rows, |row| Some(row.times?.ks_p)),
        number(rows, |row| Some(row.times?.cvm_w2)),
        number(rows, |row| Some(row.times?.cvm_p)),
        number(rows, |row| Some(row.times?.ad_a2)),
        number(rows, |row| Some(row.times?.laplace_u)),
        number(rows, |row| Some(row.times?.laplace_p)),
        number(rows, |row| Some(row.times?.mil_p)),
        number(rows, |row| Some(row.mann_kendall?.tau)),
        number(rows, |row| Some(row.mann_kendall?.p)),
        number(rows, |row| Some(row.dispersion?.index)),
        number(rows, |row| Some(row.dispersion?.p)),
    ]);
    columns.extend(provenance(rows, source, |row| &row.key.corpus)?);
    Ok(columns)
}

pub(super) fn quantiles(rows: &[QuantileRow], source: &Provenance) -> Result<Vec<ArrayRef>> {
    let mut columns = keys(rows, |row| &row.key);
    columns.extend([
        number(rows, |row| Some(row.mean)),
        count(rows, |row| row.poisson_quantile),
        count(rows, |row| row.count),
        count(rows, |row| row.n_windows),
    ]);
    columns.extend(provenance(rows, source, |row| &row.key.corpus)?);
    Ok(columns)
}
