//! The rows of `corpus_contrast`: the same probes under the model of their corpus and under another's.

use super::group::{Contrasted, Group, Key, by_probes, exposure_names, probes};
use crate::config::Analysis;
use pipeline::statistics::{PairedRatio, paired_ratio};

/// One exposure stratum of the probes that two models were asked.
pub(super) struct ContrastRow {
    /// Of the model that was trained on the corpus.
    pub(super) key: Key,
    pub(super) other: String,
    pub(super) exposures: String,
    pub(super) counts: Pairs,
}

/// Probes that two models were asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    pub(super) n: u32,
    pub(super) n_memorized: u32,
    pub(super) n_memorized_other: u32,
    pub(super) n_memorized_both: u32,
}

/// The rows of every pair of a model that was trained on the corpus and one that was not, at the same checkpoint.
pub(super) fn contrasts(groups: &[Group], analysis: &Analysis) -> Vec<ContrastRow> {
    let mut rows = Vec::new();
    let alike = by_probes(groups);
    for group in groups.iter().filter(|group| group.own) {
        let others = alike.get(&probes(group)).into_iter().flatten();
        for other in others.filter(|other| !other.own) {
            let n_strata = analysis.exposures.len() + 1;
            let counts = pairs(&group.contrast, &other.contrast, n_strata);
            let names =
                std::iter::once("all".to_owned()).chain(exposure_names(&analysis.exposures));
            for (exposures, counts) in names.zip(counts).filter(|(_, counts)| counts.n > 0) {
                rows.push(ContrastRow {
                    key: group.key.clone(),
                    other: other.key.model.clone(),
                    exposures,
                    counts,
                });
            }
        }
    }
    rows.sort_by(|a, b| order(a).cmp(&order(b)));
    rows
}

/// How the table is sorted.
fn order(row: &ContrastRow) -> (&str, &str, &str, u32) {
    let key = &row.key;
    (&key.model, &row.other, &key.corpus, key.checkpoint)
}

/// Counts of all probes that both were asked, and of each exposure stratum.
fn pairs(model: &Contrasted, other: &Contrasted, n_strata: usize) -> Vec<Pairs> {
    let mut counts = vec![Pairs::default(); n_strata + 1];
    let mut others = other
        .training_indices
        .iter()
        .zip(&other.memorized)
        .peekable();
    for (place, (index, hit)) in model
        .training_indices
        .iter()
        .zip(&model.memorized)
        .enumerate()
    {
        while others.next_if(|(other, _)| *other < index).is_some() {}
        let Some((_, hit_other)) = others.next_if(|(other, _)| *other == index) else {
            continue;
        };
        counts[0].add(*hit, *hit_other);
        if let Some(stratum) = model.exposures.get(place) {
            counts[usize::from(*stratum) + 1].add(*hit, *hit_other);
        }
    }
    counts
}

impl Pairs {
    fn add(&mut self, hit: bool, other: bool) {
        self.n += 1;
        self.n_memorized += u32::from(hit);
        self.n_memorized_other += u32::from(other);
        self.n_memorized_both += u32::from(hit && other);
    }

    /// The other's rate over the model's.
    pub(super) fn ratio(&self) -> Option<PairedRatio> {
        paired_ratio(
            self.n_memorized,
            self.n_memorized_other,
            self.n_memorized_both,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_by_stratum() {
        let model = Contrasted {
            training_indices: vec![2, 3, 7, 9],
            memorized: vec![true, false, true, true],
            exposures: vec![0, 0, 1, 1],
        };
        let other = Contrasted {
            training_indices: vec![2, 3, 7],
            memorized: vec![true, true, false],
            exposures: Vec::new(),
        };
        let counts = |n, n_memorized, n_memorized_other, n_memorized_both| Pairs {
            n,
            n_memorized,
            n_memorized_other,
            n_memorized_both,
        };
        assert_eq!(
            pairs(&model, &other, 2),
            [counts(3, 2, 2, 1), counts(2, 1, 2, 1), counts(1, 1, 0, 0)]
        );
    }
}
