//! The maps of one dataset, as GPT-NeoX wrote them.

use super::build::n_tokens;
use super::{IndexMap, LIMIT, MAX_EPOCHS, MapError, Numbers, Packing, Starts};
use crate::mmididx::{Dataset, ReadError, spread};
use crate::npy::Array;
use rayon::prelude::*;
use std::ffi::OsString;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How far an order taken from maps is looked at when it is opened.
const N_LOOKS: u64 = 1024;
/// The three kinds of maps, as file names end.
const ENDINGS: [&str; 3] = ["_doc_idx.npy", "_sample_idx.npy", "_shuffle_idx.npy"];
/// What stands behind the seed in the names of `packed` maps: nothing until 2024, then whether
/// documents may be chopped, which changes nothing here.
const PACKED: [&str; 3] = ["", "_packedpi_ac", "_packedpi"];

/// GPT-NeoX's own files of the maps of one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapFiles {
    /// `*_doc_idx.npy`: i32, `[documents]`
    pub doc_idx: PathBuf,
    /// `*_sample_idx.npy`: i32 or i64, `[samples + 1, 2]`
    pub sample_idx: PathBuf,
    /// `*_shuffle_idx.npy`: u32, `[samples]`
    pub shuffle_idx: PathBuf,
}

impl MapFiles {
    /// The maps that GPT-NeoX would reuse for a dataset, where all three lie beside the corpus:
    /// those named `PREFIX_NAME_indexmap_{n_samples}ns_{sequence_length}sl_{seed}s_*`, with
    /// `_packedpi_ac` since 2024.
    ///
    /// # Errors
    ///
    /// When maps of this run lie there that were made by another packing than `packed`: whether or
    /// not there are maps of `packed`, too, the run may be either.
    pub fn find(
        prefix: &Path,
        name: &str,
        n_samples: u64,
        sequence_length: u32,
        seed: u32,
    ) -> Result<Option<Self>, MapError> {
        let Some(stem) = prefix.file_name() else {
            return Ok(None);
        };
        let mut start = stem.to_owned();
        start.push(format!(
            "_{name}_indexmap_{n_samples}ns_{sequence_length}sl_{seed}s"
        ));
        if let Some((path, packing)) = other_packing(prefix, &start) {
            return Err(MapError::Packing { path, packing });
        }
        Ok(PACKED.into_iter().find_map(|infix| {
            let mut start = start.clone();
            start.push(infix);
            let files = Self::with_prefix(&prefix.with_file_name(start));
            files
                .paths()
                .iter()
                .all(|file| file.exists())
                .then_some(files)
        }))
    }

    /// `PREFIX_doc_idx.npy`, `PREFIX_sample_idx.npy` and `PREFIX_shuffle_idx.npy`.
    pub fn with_prefix(prefix: &Path) -> Self {
        let [doc_idx, sample_idx, shuffle_idx] = ENDINGS.map(|ending| {
            let mut name = prefix.file_name().unwrap_or_default().to_owned();
            name.push(ending);
            prefix.with_file_name(name)
        });
        Self {
            doc_idx,
            sample_idx,
            shuffle_idx,
        }
    }

    fn paths(&self) -> [&PathBuf; 3] {
        [&self.doc_idx, &self.sample_idx, &self.shuffle_idx]
    }
}

/// A map beside the corpus whose name begins with `start` and goes on with another packing than
/// `packed`.
fn other_packing(prefix: &Path, start: &OsString) -> Option<(PathBuf, Packing)> {
    let folder = match prefix.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    // Where the folder cannot be listed, files in it can still be opened by their names.
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name());
    let found = names.filter_map(|name| {
        let bytes = name.as_encoded_bytes();
        let rest = bytes.strip_prefix(start.as_encoded_bytes())?;
        let packing = packing(std::str::from_utf8(rest).ok()?)?;
        Some((prefix.with_file_name(&name), packing))
    });
    found.min_by(|a, b| a.0.cmp(&b.0))
}

/// The packing in the name of a map, by what stands behind the seed: `_unpackedpi_ac_doc_idx.npy` →
/// `unpacked`.
fn packing(behind_seed: &str) -> Option<Packing> {
    let ending = ENDINGS
        .iter()
        .find(|ending| behind_seed.ends_with(*ending))?;
    let infix = behind_seed.strip_suffix(ending)?;
    if PACKED.contains(&infix) {
        return None;
    }
    let name = infix.strip_suffix("_ac").unwrap_or(infix);
    let name = name.strip_prefix('_')?.strip_suffix("pi")?;
    Some(Packing::Named(name.to_owned()))
}

/// The packing in the whole name of a map: `PREFIX_NAME_indexmap_{n}ns_{n}sl_{seed}s` stands before
/// it.
fn packing_of(path: &Path) -> Option<Packing> {
    let name = path.file_name()?.to_str()?;
    let (_, rest) = name.rsplit_once("_indexmap_")?;
    let mut behind_seed = rest;
    for ending in ["ns_", "sl_", "s_"] {
        let (number, rest) = behind_seed.split_once(ending)?;
        if number != "None" && !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        behind_seed = rest;
    }
    packing(&format!("_{behind_seed}"))
}

impl IndexMap {
    /// Takes the maps that GPT-NeoX has written for `dataset`.
    ///
    /// `doc_idx` and `shuffle_idx` are read whole and must be permutations; of `sample_idx`, up to 1,024 samples
    /// spread over it must fit the documents' sizes, and every entry is checked where it is used.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, is no such map, belongs to another corpus or sequence length, or
    /// was made by another packing than `packed`.
    pub fn from_files(
        dataset: &Dataset,
        files: &MapFiles,
        sequence_length: u32,
    ) -> Result<Self, MapError> {
        for path in files.paths() {
            if let Some(packing) = packing_of(path) {
                let path = path.clone();
                return Err(MapError::Packing { path, packing });
            }
        }
        let doc_idx = Array::open(&files.doc_idx)?;
        let sample_idx = Array::open(&files.sample_idx)?;
        let shuffle_idx = Array::open(&files.shuffle_idx)?;
        let n_built = shuffle_idx.len();
        check_shape(&doc_idx, &[doc_idx.len()])?;
        check_shape(&shuffle_idx, &[n_built])?;
        check_shape(&sample_idx, &[n_built + 1, 2])?;
        let holds_whole_documents = begins_with_documents(&sample_idx, n_built);
        let map = Self::checked(dataset, [doc_idx, sample_idx, shuffle_idx], sequence_length);
        match map {
            // The name may have been changed: the maps still say it.
            Err(MapError::Defect { .. } | MapError::Misfit { .. }) if holds_whole_documents => {
                Err(MapError::Packing {
                    path: files.sample_idx.clone(),
                    packing: Packing::WholeDocuments,
                })
            }
            map => map,
        }
    }

    fn checked(
        dataset: &Dataset,
        [doc_idx, sample_idx, shuffle_idx]: [Array; 3],
        sequence_length: u32,
    ) -> Result<Self, MapError> {
        let n_built = shuffle_idx.len();
        check_permutation(&shuffle_idx, n_built)?;
        let (items, n_epochs) = check_documents(&doc_idx, dataset.n_items())?;
        check_start(&sample_idx)?;
        let map = Self {
            doc_idx: Numbers::Mapped(doc_idx),
            shuffle_idx: Numbers::Mapped(shuffle_idx),
            starts: Starts::SampleIdx(sample_idx),
            sequence_length,
            n_epochs,
            tokens_per_epoch: n_tokens(dataset, items)?,
        };
        let n_looks = n_built.min(N_LOOKS);
        for look in 0..n_looks {
            map.check_sample(dataset, spread(look, n_looks, n_built))?;
        }
        Ok(map)
    }

    /// Checks every entry of `sample_idx` against the documents' sizes, where it was read from a
    /// file.
    ///
    /// # Errors
    ///
    /// An entry that does not fit.
    pub fn check(&self, dataset: &Dataset) -> Result<(), MapError> {
        self.check_with(dataset, &|_| ())
    }

    /// Samples that [`Self::check_with`] looks at: none where the maps were built.
    pub fn n_to_check(&self) -> u64 {
        match self.starts {
            Starts::Remembered(_) => 0,
            Starts::SampleIdx(_) => self.n_samples(),
        }
    }

    /// Like [`Self::check`]; `progress` is told of samples as they are done, by how many more there
    /// are: of [`Self::n_to_check`] in all. It is called from several threads.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check`].
    pub fn check_with(
        &self,
        dataset: &Dataset,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), MapError> {
        /// Samples between two calls of `progress`.
        const TOLD: u64 = 4096;
        let n = self.n_to_check();
        (0..n.div_ceil(TOLD)).into_par_iter().try_for_each(|chunk| {
            let samples = chunk * TOLD..n.min((chunk + 1) * TOLD);
            let n_samples = samples.end - samples.start;
            samples
                .into_iter()
                .try_for_each(|sample| self.check_sample(dataset, sample))?;
            progress(n_samples);
            Ok(())
        })
    }

    /// Whether the sample after `sample` begins `sequence_length` tokens later.
    fn check_sample(&self, dataset: &Dataset, sample: u64) -> Result<(), MapError> {
        let Starts::SampleIdx(array) = &self.starts else {
            return Ok(());
        };
        let misfit = || MapError::Misfit {
            path: array.path().to_owned(),
            sample,
        };
        let (place, token) = match self.start(dataset, sample, self.sequence_length.into()) {
            Err(ReadError::OutOfDocuments { .. }) => return Err(misfit()),
            start => start?,
        };
        let next = [array.get(2 * sample + 2), array.get(2 * sample + 3)];
        if next.map(|number| number.and_then(|number| u64::try_from(number).ok()))
            == [Some(place), Some(token)]
        {
            return Ok(());
        }
        Err(misfit())
    }
}

fn check_shape(array: &Array, expected: &[u64]) -> Result<(), MapError> {
    if array.shape() == expected {
        return Ok(());
    }
    let (found, expected) = (array.shape().to_vec(), expected.to_vec());
    Err(MapError::Shape {
        path: array.path().to_owned(),
        found,
        expected,
    })
}

/// Refuses a `sample_idx` that leaves out the beginning of its documents.
fn check_start(array: &Array) -> Result<(), MapError> {
    match (array.get(0), array.get(1)) {
        (Some(0), Some(0)) | (None, _) | (_, None) => Ok(()),
        (Some(place), Some(token)) => Err(MapError::Start {
            path: array.path().to_owned(),
            found: [place, token],
        }),
    }
}

/// Whether each of up to 1,024 samples begins with the first token of a document, later ones with
/// later documents.
fn begins_with_documents(sample_idx: &Array, n_built: u64) -> bool {
    let n_looks = n_built.min(N_LOOKS);
    let rows = (0..n_looks).map(|look| {
        let sample = spread(look, n_looks, n_built);
        (sample_idx.get(2 * sample), sample_idx.get(2 * sample + 1))
    });
    let rows: Vec<_> = rows.collect();
    n_looks > 1 && rows.iter().all(|row| row.1 == Some(0)) && rows.is_sorted_by(|a, b| a.0 < b.0)
}

/// Refuses an array that does not hold each number below `n` once.
fn check_permutation(array: &Array, n: u64) -> Result<(), MapError> {
    let defect = |problem| MapError::Defect {
        path: array.path().to_owned(),
        problem,
    };
    let too_many = || defect(format!("its {n} entries are more than a map can count"));
    if n >= u64::from(LIMIT) {
        return Err(too_many());
    }
    let mut seen = vec![0_u64; usize::try_from(n / 64 + 1).map_err(|_| too_many())?];
    for (place, number) in (0..).zip(array.iter()) {
        let index = u64::try_from(number).ok().filter(|index| *index < n);
        let word = index.and_then(|index| {
            let word = usize::try_from(index / 64).ok()?;
            Some((seen.get_mut(word)?, 1 << (index % 64)))
        });
        let Some((word, bit)) = word else {
            return Err(defect(format!(
                "entry {place} is {number}, which is not one of the {n} samples"
            )));
        };
        if *word & bit != 0 {
            let is_zero = |place: &u64| array.get(*place) == Some(0);
            let first = (0..=place)
                .rev()
                .take_while(is_zero)
                .last()
                .unwrap_or(place);
            let n_zeros = (first..n).take_while(is_zero).count();
            return Err(defect(match n_zeros {
                0 | 1 => format!("entry {place} is {number}, which stands before it, too"),
                _ => format!(
                    "{n_zeros} entries from {first} on are all 0: the file was damaged when it was made, as the one published for seed 2 is"
                ),
            }));
        }
        *word |= bit;
    }
    Ok(())
}

/// The items that a `doc_idx` permutes, and the epochs it does so for.
fn check_documents(array: &Array, n_items: u64) -> Result<(Range<u64>, u64), MapError> {
    let defect = |problem| MapError::Defect {
        path: array.path().to_owned(),
        problem,
    };
    let too_many = |n: u64, of: &str| defect(format!("its {n} {of} are more than a map can count"));
    if n_items.max(array.len()) >= u64::from(LIMIT) {
        return Err(too_many(n_items.max(array.len()), "entries"));
    }
    let n = usize::try_from(n_items).map_err(|_| too_many(n_items, "items"))?;
    // Saturating: one that is full is more epochs than are counted.
    let mut counts = vec![0_u16; n];
    for (place, item) in (0_u64..).zip(array.iter()) {
        let count = usize::try_from(item)
            .ok()
            .and_then(|item| counts.get_mut(item));
        let Some(count) = count else {
            return Err(defect(format!(
                "entry {place} is {item}, the corpus has {n_items} items"
            )));
        };
        *count = count.saturating_add(1);
    }
    let is_named = |count: &u16| *count > 0;
    let (Some(lo), Some(hi)) = (
        counts.iter().position(is_named),
        counts.iter().rposition(is_named),
    ) else {
        return Err(defect("it names no item".to_owned()));
    };
    let named = &counts[lo..=hi];
    let n_epochs = named[0];
    if u64::from(n_epochs) > MAX_EPOCHS {
        return Err(defect(format!(
            "it names item {lo} more than {MAX_EPOCHS} times"
        )));
    }
    if let Some((item, count)) = (lo..).zip(named).find(|(_, count)| **count != n_epochs) {
        return Err(defect(format!(
            "it names item {lo} {n_epochs} times, but item {item} {count} times"
        )));
    }
    Ok((lo as u64..hi as u64 + 1, n_epochs.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packing_is_read_off_the_names_of_maps() {
        let named = |name: &str| Some(Packing::Named(name.to_owned()));
        for (name, expected) in [
            (
                "a_train_0_indexmap_443ns_64sl_1234s_pack_until_overflowpi_ac_doc_idx.npy",
                named("pack_until_overflow"),
            ),
            (
                "a_train_indexmap_443ns_64sl_1234s_pack_until_overflowpi_sample_idx.npy",
                named("pack_until_overflow"),
            ),
            (
                "a_train_0_indexmap_443ns_64sl_1234s_unpackedpi_ac_shuffle_idx.npy",
                named("unpacked"),
            ),
            (
                "a_indexmap_1_train_0_indexmap_Nonens_64sl_1234s_bestfitpi_doc_idx.npy",
                named("bestfit"),
            ),
            (
                "a_train_0_indexmap_443ns_64sl_1234s_packedpi_ac_doc_idx.npy",
                None,
            ),
            (
                "a_train_0_indexmap_443ns_64sl_1234s_packedpi_doc_idx.npy",
                None,
            ),
            ("a_train_0_indexmap_443ns_64sl_1234s_doc_idx.npy", None),
            ("unpackedpi_ac_doc_idx.npy", None),
            ("maps_doc_idx.npy", None),
        ] {
            assert_eq!(packing_of(Path::new(name)), expected, "{name}");
        }
    }
}
