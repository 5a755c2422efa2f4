//! The rows of `surprisal_trend`: the continuous outcome against time, raw and beside other models'.

use super::group::{ALL, Group, Key, SEEN, Surprisals, UNSEEN, by_probes, probes};
use crate::config::Analysis;
use pipeline::statistics::{LinearTrend, RankTrend, linear_trend, rank_trend};

/// One stratum of the probes of a model, or of those it shares with a reference.
pub(super) struct SurprisalRow {
    pub(super) key: Key,
    pub(super) reference: Option<String>,
    pub(super) stratum: &'static str,
    pub(super) n: u32,
    pub(super) rank: Option<RankTrend>,
    pub(super) line: Option<LinearTrend>,
}

/// The rows of all groups: raw for every one, and for those trained on the corpus beside every other model that was asked the
/// same probes at the same checkpoint.
pub(super) fn surprisal_trends(groups: &[Group], analysis: &Analysis) -> Vec<SurprisalRow> {
    let mut rows = Vec::new();
    let alike = by_probes(groups);
    for group in groups {
        let raw = &group.surprisals;
        rows.extend(strata(
            group,
            None,
            &raw.training_indices,
            &raw.values,
            raw.n_seen,
            analysis,
        ));
        let references = alike.get(&probes(group)).into_iter().flatten();
        let references = references.filter(|other| other.key.model != group.key.model);
        for reference in references.filter(|_| group.own) {
            let (indices, values, n_seen) = difference(raw, &reference.surprisals);
            let name = Some(reference.key.model.as_str());
            rows.extend(strata(group, name, &indices, &values, n_seen, analysis));
        }
    }
    rows
}

/// The rows of all probes, of the seen ones and of those not seen; where only one of the two is there, it is all.
fn strata(
    group: &Group,
    reference: Option<&str>,
    indices: &[u32],
    values: &[f32],
    n_seen: usize,
    analysis: &Analysis,
) -> Vec<SurprisalRow> {
    let mut strata = vec![(ALL, 0..indices.len())];
    if group.own {
        strata.push((SEEN, 0..n_seen));
        strata.push((UNSEEN, n_seen..indices.len()));
    }
    strata.retain(|(_, range)| !range.is_empty());
    let row = |(stratum, range): (&'static str, std::ops::Range<usize>)| {
        let (indices, values) = (&indices[range.clone()], &values[range]);
        let times = centred(indices);
        SurprisalRow {
            key: group.key.clone(),
            reference: reference.map(str::to_owned),
            stratum,
            n: u32::try_from(indices.len()).unwrap_or(u32::MAX),
            rank: rank_trend(indices, values, analysis.permutations, analysis.seed.into()),
            line: linear_trend(&times, values),
        }
    };
    strata.into_iter().map(row).collect()
}

/// Training indices as times from −½ to ½.
fn centred(indices: &[u32]) -> Vec<f64> {
    let first = indices.first().copied().map_or(0.0, f64::from);
    let len = indices.last().copied().map_or(0.0, f64::from) - first + 1.0;
    let time = |index: &u32| (f64::from(*index) + 0.5 - first) / len - 0.5;
    indices.iter().map(time).collect()
}

/// One model's surprisal less another's on the probes that both were asked, and how many of them the first had seen.
fn difference(model: &Surprisals, reference: &Surprisals) -> (Vec<u32>, Vec<f32>, usize) {
    let (mut indices, mut values, mut n_seen) = (Vec::new(), Vec::new(), 0);
    let mut others = reference
        .training_indices
        .iter()
        .zip(&reference.values)
        .peekable();
    let own = model.training_indices.iter().zip(&model.values);
    for (place, (index, value)) in own.enumerate() {
        while others.next_if(|(other, _)| *other < index).is_some() {}
        if let Some((_, other)) = others.next_if(|(other, _)| *other == index) {
            indices.push(*index);
            values.push(value - other);
            n_seen += usize::from(place < model.n_seen);
        }
    }
    (indices, values, n_seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probes_that_both_were_asked_are_compared() {
        let model = Surprisals {
            training_indices: vec![1, 3, 5, 8],
            values: vec![1.0, 2.0, 3.0, 4.0],
            n_seen: 3,
        };
        let reference = Surprisals {
            training_indices: vec![0, 3, 4, 5, 8, 9],
            values: vec![9.0, 0.5, 9.0, 1.0, 1.5, 9.0],
            n_seen: 0,
        };
        let (indices, values, n_seen) = difference(&model, &reference);
        assert_eq!(indices, [3, 5, 8]);
        assert_eq!(values, [1.5, 2.0, 2.5]);
        assert_eq!(n_seen, 2);
    }
}
