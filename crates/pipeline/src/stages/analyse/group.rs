//! One model at one checkpoint, asked of one corpus: its probes, counted as they are read.

use super::block::Block;
use anyhow::Result;
use arrow_array::{Array, PrimitiveArray};
use pipeline::statistics::StepCount;
use std::collections::BTreeMap;

/// The strata that every group has.
pub(super) const ALL: &str = "all";
pub(super) const SEEN: &str = "seen";
pub(super) const UNSEEN: &str = "unseen";

/// How rows must lie.
pub(super) const IN_ORDER: &str = "rows ascend by model, corpus, checkpoint and training index, each once: sort the table and drop duplicates, or write it anew with `pipeline run FILE --only join`";

/// What a group is of, in the order of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) model: String,
    pub(crate) corpus: String,
    pub(crate) checkpoint: u32,
}

/// What is kept of the probes of one model at one checkpoint: counts by step, and the places of the
/// memorized.
pub(super) struct Group {
    pub(super) key: Key,
    /// Whether the model was trained on the corpus.
    pub(super) own: bool,
    pub(super) strata: Vec<Stratum>,
    pub(super) cells: Vec<Cell>,
    pub(super) surprisals: Surprisals,
    pub(super) contrast: Contrasted,
    /// Most exposures of each exposure stratum but the last.
    bounds: Vec<u32>,
    /// Training index and step of the last row.
    last: Option<(u32, u32)>,
}

/// Some of a group's probes.
#[derive(Clone, Debug)]
pub(super) struct Stratum {
    pub(super) name: String,
    /// Probes with a verdict.
    pub(super) n: u64,
    /// Ascending by step.
    pub(super) steps: Vec<StepCount>,
    /// Places of the memorized among the stratum's probes, from 0.
    pub(super) hits: Vec<u32>,
}

/// Probes that are counted together by step.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Nothing where the model was trained on another corpus.
    pub(super) seen: Option<bool>,
    /// Number of the exposure stratum; nothing where exposures were not counted.
    pub(super) exposures: Option<usize>,
    /// Ascending by step.
    pub(super) steps: Vec<StepCount>,
}

/// The continuous outcome, by training index.
#[derive(Default)]
pub(super) struct Surprisals {
    pub(super) training_indices: Vec<u32>,
    pub(super) values: Vec<f32>,
    /// How many of them the checkpoint had seen: the first ones.
    pub(super) n_seen: usize,
}

/// The probes of a contrast, by training index.
#[derive(Default)]
pub(super) struct Contrasted {
    pub(super) training_indices: Vec<u32>,
    pub(super) memorized: Vec<bool>,
    /// Number of the exposure stratum; empty where exposures were not counted.
    pub(super) exposures: Vec<u8>,
}

/// What the probes of a group are of: corpus and checkpoint.
pub(super) fn probes(group: &Group) -> (&str, u32) {
    (&group.key.corpus, group.key.checkpoint)
}

/// The groups of the same probes, one a model, in the order of the table.
pub(super) fn by_probes(groups: &[Group]) -> BTreeMap<(&str, u32), Vec<&Group>> {
    let mut alike: BTreeMap<(&str, u32), Vec<&Group>> = BTreeMap::new();
    for group in groups {
        alike.entry(probes(group)).or_default().push(group);
    }
    alike
}

/// Names of the exposure strata with these bounds, such as `1`, `2-5` and `>5`.
pub(super) fn exposure_names(bounds: &[u32]) -> Vec<String> {
    let mut names = Vec::new();
    let mut lo = 1;
    for &hi in bounds {
        names.push(if lo == hi {
            hi.to_string()
        } else {
            format!("{lo}-{hi}")
        });
        lo = hi.saturating_add(1);
    }
    names.push(format!(">{}", bounds.last().copied().unwrap_or(0)));
    names
}

impl Group {
    pub(super) fn new(block: &Block, bounds: &[u32]) -> Self {
        let names = [ALL, SEEN, UNSEEN].map(str::to_owned).into_iter();
        let names = names.chain(exposure_names(bounds));
        let own = !block.seen.is_empty() && block.seen.is_valid(0);
        let mut cells = Vec::new();
        for seen in [None, Some(true), Some(false)] {
            for exposures in std::iter::once(None).chain((0..=bounds.len()).map(Some)) {
                cells.push(Cell {
                    seen,
                    exposures,
                    steps: Vec::new(),
                });
            }
        }
        Self {
            key: block.key.clone(),
            own,
            strata: names.map(Stratum::new).collect(),
            cells,
            surprisals: Surprisals::default(),
            contrast: Contrasted::default(),
            bounds: bounds.to_vec(),
            last: None,
        }
    }

    /// Takes in the next probes.
    ///
    /// # Errors
    ///
    /// When training indices do not ascend, steps fall, or `seen` is null in some rows only.
    pub(super) fn add(&mut self, block: &Block) -> Result<()> {
        let (indices, steps) = (block.training_index.values(), block.step.values());
        let exposed = block
            .exposures
            .iter()
            .all(|counts| counts.null_count() == 0);
        let [before, after, same] = block.exposures.each_ref().map(PrimitiveArray::values);
        let (n_exposures, n_cells) = (self.bounds.len() + 2, self.cells.len());
        for row in 0..indices.len() {
            let (index, step) = (indices[row], steps[row]);
            if let Some((last, last_step)) = self.last
                && (last >= index || last_step > step)
            {
                let problem = if last >= index {
                    format!("the training index {index} stands behind {last}")
                } else {
                    format!(
                        "the step {step} of the training index {index} stands behind step {last_step}"
                    )
                };
                return Err(block.wrong(row, problem, IN_ORDER));
            }
            self.last = Some((index, step));
            if block.seen.is_valid(row) != self.own {
                return Err(block.wrong(
                    row,
                    "`seen` is null in some rows of the model and corpus, and not in others",
                    super::source::CURE,
                ));
            }
            let seen = block.seen.is_valid(row).then(|| block.seen.value(row));
            let exposures = exposed.then(|| {
                let met = u64::from(before[row]) + u64::from(after[row]) + u64::from(same[row]) + 1;
                self.bounds.partition_point(|bound| u64::from(*bound) < met)
            });
            if block.surprisal.is_valid(row) {
                self.surprisals.training_indices.push(index);
                self.surprisals.values.push(block.surprisal.value(row));
                self.surprisals.n_seen += usize::from(seen == Some(true));
            }
            if !block.memorized.is_valid(row) {
                continue;
            }
            let hit = block.memorized.value(row);
            let kind = match seen {
                None => 0,
                Some(true) => 1,
                Some(false) => 2,
            };
            let cell = kind * n_exposures + exposures.map_or(0, |number| number + 1);
            debug_assert!(cell < n_cells);
            self.cells[cell].add(steps[row], hit);
            self.strata[0].add(hit);
            if let Some(seen) = seen {
                self.strata[if seen { 1 } else { 2 }].add(hit);
                if let (true, Some(number)) = (seen, exposures) {
                    self.strata[3 + number].add(hit);
                }
            }
            if block.contrast.value(row) {
                self.contrast.training_indices.push(index);
                self.contrast.memorized.push(hit);
                if let Some(number) = exposures {
                    // Exposure strata are few.
                    self.contrast
                        .exposures
                        .push(u8::try_from(number).unwrap_or(u8::MAX));
                }
            }
        }
        Ok(())
    }

    /// Fills in what the strata take from the cells; after the last row.
    pub(super) fn finish(&mut self) {
        let n_exposures = self.bounds.len() + 2;
        for (number, stratum) in self.strata.iter_mut().enumerate() {
            let cells = self
                .cells
                .iter()
                .enumerate()
                .filter(|(place, cell)| match number {
                    0 => true,
                    1 => cell.seen == Some(true),
                    2 => cell.seen == Some(false),
                    exposed => *place == n_exposures + exposed - 2,
                });
            stratum.steps = merged(cells.map(|(_, cell)| cell.steps.as_slice()));
        }
        self.strata.retain(|stratum| stratum.n > 0);
        self.cells.retain(|cell| !cell.steps.is_empty());
    }

    /// The stratum of that name, where it has probes.
    pub(super) fn stratum(&self, name: &str) -> Option<&Stratum> {
        self.strata.iter().find(|stratum| stratum.name == name)
    }
}

impl Stratum {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            n: 0,
            steps: Vec::new(),
            hits: Vec::new(),
        }
    }

    fn add(&mut self, hit: bool) {
        if hit {
            // Training indices are u32, and so are places among them.
            self.hits.push(u32::try_from(self.n).unwrap_or(u32::MAX));
        }
        self.n += 1;
    }
}

impl Cell {
    fn add(&mut self, step: u32, hit: bool) {
        match self.steps.last_mut() {
            Some(last) if last.step == step => {
                last.n += 1;
                last.hits += u32::from(hit);
            }
            _ => self.steps.push(StepCount {
                step,
                n: 1,
                hits: u32::from(hit),
            }),
        }
    }
}

/// Counts by step, added up.
pub(super) fn merged<'a>(cells: impl Iterator<Item = &'a [StepCount]>) -> Vec<StepCount> {
    let mut all: Vec<StepCount> = cells.flatten().copied().collect();
    // Runs that ascend are merged.
    all.sort_by_key(|count| count.step);
    all.dedup_by(|next, kept| {
        let same = next.step == kept.step;
        if same {
            kept.n += next.n;
            kept.hits += next.hits;
        }
        same
    });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_strata_are_named_by_their_counts() {
        assert_eq!(exposure_names(&[1, 5]), ["1", "2-5", ">5"]);
        assert_eq!(exposure_names(&[10]), ["1-10", ">10"]);
        assert_eq!(exposure_names(&[]), [">0"]);
    }

    #[test]
    fn counts_of_the_same_step_are_added() {
        let count = |step, n, hits| StepCount { step, n, hits };
        let (a, b) = (
            [count(1, 8, 2), count(4, 8, 0)],
            [count(4, 1, 1), count(9, 2, 0)],
        );
        let all = merged([a.as_slice(), b.as_slice()].into_iter());
        assert_eq!(all, [count(1, 8, 2), count(4, 9, 1), count(9, 2, 0)]);
    }
}
