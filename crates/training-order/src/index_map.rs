//! `doc_idx`, `sample_idx` and `shuffle_idx` of one dataset, rebuilt from its sizes and a seed.
//!
//! Source: `megatron/data/gpt2_dataset.py` (`_build_index_mappings`, `_num_epochs`, `_build_doc_idx`,
//! `_build_shuffle_idx`) and `build_sample_idx` in `megatron/data/helpers.cpp`.

use crate::mmididx::{Dataset, ReadError};
use crate::npy::{Array, NpyError};
use crate::numpy_random::RandomState;
use rayon::prelude::*;
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Samples from one whose beginning is remembered to the next.
const STRIDE: u64 = 16;
/// Beyond so many entries GPT-NeoX counts in 64 bits; we do not.
const LIMIT: u32 = u32::MAX - 1;

/// The three maps of one dataset.
///
/// Rebuilt from a seed, `doc_idx` and `shuffle_idx` are held, and `sample_idx` follows from the documents' sizes,
/// because sample *s* is nothing but the tokens `s · sequence_length ..= (s + 1) · sequence_length` of all
/// documents put end to end in the order of `doc_idx`. From GPT-NeoX's own files, all three are read in place.
#[derive(Debug)]
pub struct IndexMap {
    doc_idx: Numbers,
    shuffle_idx: Numbers,
    starts: Starts,
    sequence_length: u32,
    n_epochs: u64,
    tokens_per_epoch: u64,
}

/// One map: held in memory, or read in place.
#[derive(Debug)]
enum Numbers {
    Held(Vec<u32>),
    Mapped(Array),
}

/// How the beginning of a sample is found.
#[derive(Debug)]
enum Starts {
    /// The rows of `sample_idx` of every [`STRIDE`]-th sample: half a byte a sample.
    Remembered(Vec<[u32; 2]>),
    /// GPT-NeoX's `sample_idx`, `[n_samples + 1, 2]`.
    SampleIdx(Array),
}

impl Starts {
    /// Samples from one entry to the next.
    fn stride(&self) -> u64 {
        match self {
            Self::Remembered(_) => STRIDE,
            Self::SampleIdx(_) => 1,
        }
    }
}

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

/// Tokens of one document, as they stand in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSpan {
    /// The item of the `.idx`.
    pub document: u64,
    /// The tokens, counted from the document's first; half-open.
    pub tokens: Range<u64>,
}

/// Why the maps of a dataset cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An item's size cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is nothing to cut samples from.
    #[error("`{path}`: the items {} to {} hold {n_tokens} tokens in all, at least 2 are needed", items.start, items.end)]
    NoTokens {
        /// The `.idx`.
        path: PathBuf,
        /// The items asked for, half-open.
        items: Range<u64>,
        /// Their tokens.
        n_tokens: u64,
    },
    /// A map would be larger than the numbers it holds.
    #[error(
        "`{path}`: {n_epochs} epochs of {n_items} items make {n_samples} samples, which is more than the maps can count"
    )]
    TooLarge {
        /// The `.idx`.
        path: PathBuf,
        /// The epochs needed.
        n_epochs: u64,
        /// Items of one epoch.
        n_items: u64,
        /// Samples they make.
        n_samples: u64,
    },
}

/// Why GPT-NeoX's files give no order of a corpus.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A file cannot be read.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// An entry, or a size of the corpus, cannot be used.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The files are not of one run.
    #[error("`{path}` has the shape {found:?}, the other maps ask for {expected:?}")]
    Shape {
        /// The file.
        path: PathBuf,
        /// Its shape.
        found: Vec<u64>,
        /// The shape that fits the others.
        expected: Vec<u64>,
    },
    /// A map is not the permutation it must be.
    #[error("`{path}` is no permutation: {problem}")]
    Defect {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A sample does not end where the next one begins.
    #[error(
        "`{path}`: sample {sample} does not end where the next one begins, going by the corpus' sizes"
    )]
    Misfit {
        /// The file.
        path: PathBuf,
        /// The sample.
        sample: u64,
    },
}

impl IndexMap {
    /// Builds the maps as GPT-NeoX does when asked for `n_samples` samples of `sequence_length + 1` tokens.
    ///
    /// Whole epochs are built, as many as `n_samples` needs; all copies of a document are in one shuffle.
    ///
    /// # Errors
    ///
    /// When a size cannot be read, there are fewer than 2 tokens, or a map would have 2³² − 2 entries or more.
    pub fn build(
        dataset: &Dataset,
        items: Range<u64>,
        n_samples: u64,
        sequence_length: u32,
        seed: u32,
    ) -> Result<Self, BuildError> {
        let tokens_per_epoch = n_tokens(dataset, items.clone())?;
        if tokens_per_epoch < 2 || sequence_length == 0 {
            let path = dataset.idx_path().to_owned();
            return Err(BuildError::NoTokens {
                path,
                items,
                n_tokens: tokens_per_epoch,
            });
        }
        let n_items = items.end - items.start;
        let n_epochs = epochs_for(n_samples, sequence_length, tokens_per_epoch);
        let n_built = (n_epochs.saturating_mul(tokens_per_epoch) - 1) / u64::from(sequence_length);
        let too_large = || {
            let path = dataset.idx_path().to_owned();
            BuildError::TooLarge {
                path,
                n_epochs,
                n_items,
                n_samples: n_built,
            }
        };
        let narrow = |n: u64| {
            u32::try_from(n)
                .ok()
                .filter(|n| *n < LIMIT)
                .ok_or_else(too_large)
        };
        narrow(n_items.saturating_mul(n_epochs))?;
        let items = narrow(items.start)?..narrow(items.end)?;
        let (doc_idx, shuffle_idx) = permutations(items, narrow(n_epochs)?, narrow(n_built)?, seed);

        let mut starts = Vec::new();
        let (mut n_tokens, mut next) = (0, 0);
        for (place, &item) in (0_u32..).zip(&doc_idx) {
            let first = n_tokens;
            n_tokens += u64::from(dataset.item_len(u64::from(item))?);
            while next < n_tokens {
                // No document has 2³¹ tokens.
                starts.push([place, u32::try_from(next - first).unwrap_or(u32::MAX)]);
                next += STRIDE * u64::from(sequence_length);
            }
        }
        Ok(Self {
            doc_idx: Numbers::Held(doc_idx),
            shuffle_idx: Numbers::Held(shuffle_idx),
            starts: Starts::Remembered(starts),
            sequence_length,
            n_epochs,
            tokens_per_epoch,
        })
    }

    /// Takes the maps that GPT-NeoX has written for `dataset`.
    ///
    /// `doc_idx` and `shuffle_idx` are read whole and must be permutations; of `sample_idx`, up to 1,024 samples
    /// spread over it must fit the documents' sizes, and every entry is checked where it is used.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, is no such map, or belongs to another corpus or sequence length.
    pub fn from_files(
        dataset: &Dataset,
        files: &MapFiles,
        sequence_length: u32,
    ) -> Result<Self, MapError> {
        let doc_idx = Array::open(&files.doc_idx)?;
        let sample_idx = Array::open(&files.sample_idx)?;
        let shuffle_idx = Array::open(&files.shuffle_idx)?;
        let n_built = shuffle_idx.len();
        check_shape(&doc_idx, &[doc_idx.len()])?;
        check_shape(&shuffle_idx, &[n_built])?;
        check_shape(&sample_idx, &[n_built + 1, 2])?;
        check_permutation(&shuffle_idx, n_built)?;
        let (items, n_epochs) = check_documents(&doc_idx, dataset.n_items())?;
        let map = Self {
            doc_idx: Numbers::Mapped(doc_idx),
            shuffle_idx: Numbers::Mapped(shuffle_idx),
            starts: Starts::SampleIdx(sample_idx),
            sequence_length,
            n_epochs,
            tokens_per_epoch: n_tokens(dataset, items)?,
        };
        let n_looks = n_built.min(1024);
        for look in 0..n_looks {
            let sample = u128::from(look) * u128::from(n_built) / u128::from(n_looks);
            map.check_sample(dataset, u64::try_from(sample).unwrap_or(0))?;
        }
        Ok(map)
    }

    /// Checks every entry of `sample_idx` against the documents' sizes, where it was read from a file.
    ///
    /// # Errors
    ///
    /// The first entry that does not fit.
    pub fn check(&self, dataset: &Dataset) -> Result<(), MapError> {
        match self.starts {
            Starts::Remembered(_) => Ok(()),
            Starts::SampleIdx(_) => {
                (0..self.n_samples()).try_for_each(|sample| self.check_sample(dataset, sample))
            }
        }
    }

    /// Items in the order in which their tokens are put end to end.
    pub fn doc_idx(&self) -> impl Iterator<Item = u32> {
        self.doc_idx.iter()
    }

    /// Samples in the order in which they are served.
    pub fn shuffle_idx(&self) -> impl Iterator<Item = u32> {
        self.shuffle_idx.iter()
    }

    /// Where each sample begins: the place in `doc_idx` and the token in that document, `[n_samples + 1, 2]`.
    /// The last entry is where one more sample would begin.
    ///
    /// # Errors
    ///
    /// When a size cannot be read.
    pub fn sample_idx(&self, dataset: &Dataset) -> Result<Vec<[u64; 2]>, ReadError> {
        let later = (1..=self.n_samples()).map(|sample| {
            let (place, token) = self.start(dataset, sample, 0)?;
            Ok([place, token])
        });
        // The reference begins at the first document even when it is empty.
        std::iter::once(Ok([0, 0])).chain(later).collect()
    }

    /// Samples built: whole epochs of them, and more than the run may use.
    pub fn n_samples(&self) -> u64 {
        self.shuffle_idx.len()
    }

    /// Epochs built.
    pub fn n_epochs(&self) -> u64 {
        self.n_epochs
    }

    /// Tokens of one epoch.
    pub fn tokens_per_epoch(&self) -> u64 {
        self.tokens_per_epoch
    }

    /// The length of the dataset as its `__len__` gives it: one less than the samples built, since 2021.
    pub fn len(&self) -> u64 {
        self.n_samples().saturating_sub(1)
    }

    /// Whether the dataset serves nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The sample served at `place`. Beyond the last one the dataset begins again, one sample early:
    /// `place % (n_samples − 1)`. `None` for a dataset that serves nothing.
    pub fn served(&self, place: u64) -> Option<u32> {
        let place = if place < self.n_samples() {
            place
        } else {
            place.checked_rem(self.len())?
        };
        self.shuffle_idx.get(place)
    }

    /// Appends the ids of `tokens` of one sample to `into`; a sample has `sequence_length + 1`.
    ///
    /// # Errors
    ///
    /// When a document cannot be read.
    pub fn read_tokens(
        &self,
        dataset: &Dataset,
        sample: u32,
        tokens: Range<u32>,
        into: &mut Vec<u32>,
    ) -> Result<(), ReadError> {
        self.visit(dataset, sample, tokens, |document, tokens| {
            dataset.read(document, tokens, into)
        })
    }

    /// The documents that one sample is cut from, in its order.
    ///
    /// # Errors
    ///
    /// When a size cannot be read.
    pub fn documents(
        &self,
        dataset: &Dataset,
        sample: u32,
    ) -> Result<Vec<DocumentSpan>, ReadError> {
        let mut spans = Vec::new();
        self.visit(
            dataset,
            sample,
            0..self.sequence_length + 1,
            |document, tokens| {
                spans.push(DocumentSpan { document, tokens });
                Ok(())
            },
        )?;
        Ok(spans)
    }

    /// Every sample that holds tokens of these documents, with the tokens of the document that it holds: one
    /// parallel scan for all of them. In the order of `doc_idx`.
    ///
    /// # Errors
    ///
    /// When a size or an entry of a map cannot be read.
    pub fn samples_with(
        &self,
        dataset: &Dataset,
        documents: &HashSet<u64>,
    ) -> Result<Vec<(u32, DocumentSpan)>, ReadError> {
        let places = (0..self.doc_idx.len()).into_par_iter();
        let wanted = |place: &u64| {
            self.doc_idx
                .get(*place)
                .is_some_and(|document| documents.contains(&document.into()))
        };
        let found = places
            .filter(wanted)
            .map(|place| self.samples_of(dataset, place));
        let mut found = found.collect::<Result<Vec<_>, _>>()?.concat();
        found.retain(|(_, span)| !span.tokens.is_empty());
        Ok(found)
    }

    /// Items of one epoch.
    pub fn n_documents(&self) -> u64 {
        self.doc_idx.len() / self.n_epochs.max(1)
    }

    /// For every sample, and one more: the first place of `doc_idx` whose document has its first token as an input of
    /// that sample, or of a later one.
    ///
    /// # Errors
    ///
    /// When a size or an entry of a map cannot be read.
    pub fn first_places(&self, dataset: &Dataset) -> Result<Vec<u32>, ReadError> {
        let n_samples = usize::try_from(self.n_samples()).unwrap_or(0);
        let mut first_places = Vec::with_capacity(n_samples + 1);
        let mut tokens = 0;
        for (place, item) in (0_u32..).zip(self.doc_idx.iter()) {
            let sample = tokens / u64::from(self.sequence_length);
            let sample = usize::try_from(sample).unwrap_or(n_samples).min(n_samples);
            if first_places.len() <= sample {
                first_places.resize(sample + 1, place);
            }
            tokens += u64::from(dataset.item_len(item.into())?);
        }
        // Places are fewer than 2³², and the last samples may lie inside one document.
        let end = u32::try_from(self.doc_idx.len()).unwrap_or(u32::MAX);
        first_places.resize(n_samples + 1, end);
        Ok(first_places)
    }

    /// The samples that hold tokens of the document at a place of `doc_idx`.
    fn samples_of(
        &self,
        dataset: &Dataset,
        place: u64,
    ) -> Result<Vec<(u32, DocumentSpan)>, ReadError> {
        let document = self.document(place, dataset)?;
        let first = self.tokens_before(dataset, place)?;
        let end = first + u64::from(dataset.item_len(document)?);
        let len = u64::from(self.sequence_length);
        // Sample s holds the tokens s·L ..= (s + 1)·L: a token at a border is in two.
        let samples =
            first.saturating_sub(1) / len..self.n_samples().min(end.saturating_sub(1) / len + 1);
        let span = |sample: u64| {
            let tokens = first.max(sample * len)..end.min((sample + 1) * len + 1);
            let tokens = tokens.start - first..tokens.end.max(tokens.start) - first;
            // Samples are fewer than 2³².
            (
                u32::try_from(sample).unwrap_or(u32::MAX),
                DocumentSpan { document, tokens },
            )
        };
        Ok(samples.map(span).collect())
    }

    /// Tokens of all documents before a place of `doc_idx`.
    fn tokens_before(&self, dataset: &Dataset, place: u64) -> Result<u64, ReadError> {
        // The last sample remembered that begins at or before the place.
        let stride = self.starts.stride();
        let (mut lo, mut hi) = (0, self.n_samples().div_ceil(stride));
        while lo + 1 < hi {
            let middle = lo.midpoint(hi);
            let (lower, upper) = if self.entry(middle)?.0 <= place {
                (middle, hi)
            } else {
                (lo, middle)
            };
            (lo, hi) = (lower, upper);
        }
        let (from, skipped) = self.entry(lo)?;
        let (from, mut tokens) = if from <= place {
            let tokens = lo * stride * u64::from(self.sequence_length);
            (from, tokens.saturating_sub(skipped))
        } else {
            (0, 0)
        };
        for place in from..place {
            tokens += u64::from(dataset.item_len(self.document(place, dataset)?)?);
        }
        Ok(tokens)
    }

    /// An entry of `sample_idx`, as it is remembered or was read from a file.
    fn entry(&self, number: u64) -> Result<(u64, u64), ReadError> {
        let array = match &self.starts {
            Starts::Remembered(starts) => {
                let entry = usize::try_from(number).ok().and_then(|n| starts.get(n));
                // Beyond the end is no document, as `document` will say.
                let [place, token] = entry.copied().unwrap_or([u32::MAX, 0]);
                return Ok((place.into(), token.into()));
            }
            Starts::SampleIdx(array) => array,
        };
        let checked = |column: u64, limit: u64| {
            let place = 2 * number + column;
            let found = array.get(place).unwrap_or(-1);
            u64::try_from(found)
                .ok()
                .filter(|found| *found < limit)
                .ok_or_else(|| ReadError::Map {
                    path: array.path().to_owned(),
                    place,
                    found,
                    limit,
                })
        };
        Ok((checked(0, self.doc_idx.len())?, checked(1, 1 << 31)?))
    }

    /// Calls `with` for each document that `tokens` of a sample are cut from.
    fn visit(
        &self,
        dataset: &Dataset,
        sample: u32,
        tokens: Range<u32>,
        mut with: impl FnMut(u64, Range<u64>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        debug_assert!(tokens.end <= self.sequence_length + 1);
        let mut missing = u64::from(tokens.end.saturating_sub(tokens.start));
        if missing == 0 {
            return Ok(());
        }
        let (mut place, mut first) = self.start(dataset, sample.into(), tokens.start.into())?;
        while missing > 0 {
            let document = self.document(place, dataset)?;
            let end = u64::from(dataset.item_len(document)?).min(first + missing);
            if first < end {
                with(document, first..end)?;
                missing -= end - first;
            }
            place += 1;
            first = 0;
        }
        Ok(())
    }

    /// The place in `doc_idx`, and the token in that document, of a token of a sample.
    fn start(&self, dataset: &Dataset, sample: u64, token: u64) -> Result<(u64, u64), ReadError> {
        let stride = self.starts.stride();
        let (mut place, first) = self.entry(sample / stride)?;
        let mut rest = first + sample % stride * u64::from(self.sequence_length) + token;
        loop {
            let len = u64::from(dataset.item_len(self.document(place, dataset)?)?);
            if rest < len {
                return Ok((place, rest));
            }
            rest -= len;
            place += 1;
        }
    }

    /// The item at a place of `doc_idx`.
    pub(crate) fn document(&self, place: u64, dataset: &Dataset) -> Result<u64, ReadError> {
        match self.doc_idx.get(place) {
            Some(document) => Ok(document.into()),
            None => Err(ReadError::Item {
                path: dataset.idx_path().to_owned(),
                item: place,
                n_items: self.doc_idx.len(),
            }),
        }
    }

    /// Whether the sample after `sample` begins `sequence_length` tokens later.
    fn check_sample(&self, dataset: &Dataset, sample: u64) -> Result<(), MapError> {
        let Starts::SampleIdx(array) = &self.starts else {
            return Ok(());
        };
        let (place, token) = self.start(dataset, sample, self.sequence_length.into())?;
        let next = [array.get(2 * sample + 2), array.get(2 * sample + 3)];
        if next.map(|number| number.and_then(|number| u64::try_from(number).ok()))
            == [Some(place), Some(token)]
        {
            return Ok(());
        }
        Err(MapError::Misfit {
            path: array.path().to_owned(),
            sample,
        })
    }
}

impl MapFiles {
    /// The maps that GPT-NeoX would reuse for a dataset, where all three lie beside the corpus: those named
    /// `PREFIX_NAME_indexmap_{n_samples}ns_{sequence_length}sl_{seed}s_*`, with `_packedpi_ac` since 2024.
    pub fn find(
        prefix: &Path,
        name: &str,
        n_samples: u64,
        sequence_length: u32,
        seed: u32,
    ) -> Option<Self> {
        let stem = prefix.file_name()?.to_string_lossy();
        ["", "_packedpi_ac"].into_iter().find_map(|infix| {
            let start =
                format!("{stem}_{name}_indexmap_{n_samples}ns_{sequence_length}sl_{seed}s{infix}");
            let files = Self::with_prefix(&prefix.with_file_name(start));
            [&files.doc_idx, &files.sample_idx, &files.shuffle_idx]
                .iter()
                .all(|file| file.exists())
                .then_some(files)
        })
    }

    /// `PREFIX_doc_idx.npy`, `PREFIX_sample_idx.npy` and `PREFIX_shuffle_idx.npy`.
    pub fn with_prefix(prefix: &Path) -> Self {
        let file = |kind: &str| {
            let mut name = prefix.file_name().unwrap_or_default().to_owned();
            name.push(format!("_{kind}_idx.npy"));
            prefix.with_file_name(name)
        };
        Self {
            doc_idx: file("doc"),
            sample_idx: file("sample"),
            shuffle_idx: file("shuffle"),
        }
    }
}

impl Numbers {
    fn len(&self) -> u64 {
        match self {
            Self::Held(numbers) => numbers.len() as u64,
            Self::Mapped(array) => array.len(),
        }
    }

    /// A number, where it is there and one that a map can hold.
    fn get(&self, place: u64) -> Option<u32> {
        match self {
            Self::Held(numbers) => numbers.get(usize::try_from(place).ok()?).copied(),
            Self::Mapped(array) => u32::try_from(array.get(place)?).ok(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.len()).filter_map(|place| self.get(place))
    }
}

/// `doc_idx` and `shuffle_idx`: `n_epochs` copies of `items` and the numbers below `n_samples`, shuffled with
/// one random state, in this order. This is all of an order that does not depend on the documents' sizes.
pub fn permutations(
    items: Range<u32>,
    n_epochs: u32,
    n_samples: u32,
    seed: u32,
) -> (Vec<u32>, Vec<u32>) {
    let first = RandomState::new(seed);
    let n_documents = items.len() * n_epochs as usize;
    // The second shuffle begins where the first one's draws end: they are made again, without the swaps.
    rayon::join(
        || {
            let mut doc_idx = Vec::with_capacity(n_documents);
            (0..n_epochs).for_each(|_| doc_idx.extend(items.clone()));
            first.clone().shuffle(&mut doc_idx);
            doc_idx
        },
        || {
            let mut shuffle_idx: Vec<u32> = (0..n_samples).collect();
            let mut random = first.clone();
            random.skip_shuffle(n_documents);
            random.shuffle(&mut shuffle_idx);
            shuffle_idx
        },
    )
}

/// The tokens of some items. Maps are as long as this says, so that it is not believed beyond what the `.bin` holds.
fn n_tokens(dataset: &Dataset, items: Range<u64>) -> Result<u64, ReadError> {
    let sizes = items
        .clone()
        .map(|item| dataset.item_len(item).map(u64::from));
    let n_tokens = sizes.sum::<Result<u64, _>>()?;
    if n_tokens > dataset.n_tokens_held() {
        // Some item lies outside, or several share their tokens, which is allowed.
        items
            .into_iter()
            .try_for_each(|item| dataset.check_extent(item))?;
    }
    Ok(n_tokens)
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

/// Refuses an array that does not hold each number below `n` once.
fn check_permutation(array: &Array, n: u64) -> Result<(), MapError> {
    let defect = |problem| MapError::Defect {
        path: array.path().to_owned(),
        problem,
    };
    if n >= u64::from(LIMIT) {
        return Err(defect(format!(
            "its {n} entries are more than a map can count"
        )));
    }
    let mut seen = vec![0_u64; usize::try_from(n / 64 + 1).unwrap_or(0)];
    for (place, number) in (0..).zip(array.iter()) {
        let Some(number) = u64::try_from(number).ok().filter(|number| *number < n) else {
            return Err(defect(format!(
                "entry {place} is {number}, which is not one of the {n} samples"
            )));
        };
        let word = usize::try_from(number / 64).unwrap_or(0);
        let bit = 1 << (number % 64);
        if seen[word] & bit != 0 {
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
        seen[word] |= bit;
    }
    Ok(())
}

/// The items that a `doc_idx` permutes, and the epochs it does so for.
fn check_documents(array: &Array, n_items: u64) -> Result<(Range<u64>, u64), MapError> {
    let defect = |problem| MapError::Defect {
        path: array.path().to_owned(),
        problem,
    };
    let mut counts = vec![0_u16; usize::try_from(n_items).unwrap_or(0)];
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
    let lo = counts.iter().position(|count| *count > 0).unwrap_or(0);
    let hi = counts
        .iter()
        .rposition(|count| *count > 0)
        .map_or(0, |last| last + 1);
    let n_epochs = counts.get(lo).copied().unwrap_or(0);
    if let Some(item) = counts[lo..hi].iter().position(|count| *count != n_epochs) {
        let count = counts[lo + item];
        return Err(defect(format!(
            "it names item {lo} {n_epochs} times, but item {} {count} times",
            lo + item
        )));
    }
    Ok((lo as u64..hi as u64, n_epochs.into()))
}

impl MapError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Npy(error) => return error.hint(),
            Self::Read(error) => return error.hint(),
            Self::Shape { .. } | Self::Misfit { .. } => {
                "the three maps must be of one run over this corpus, at this sequence length; without maps, the order is rebuilt from the seed"
            }
            Self::Defect { .. } => "leave the maps out: the order is rebuilt from the seed",
        };
        Some(hint.to_owned())
    }
}

impl BuildError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read(error) => error.hint(),
            Self::NoTokens { .. } => {
                Some("use a larger corpus, or a split that gives training more items".to_owned())
            }
            Self::TooLarge { .. } => Some(
                "lower the number of steps or the batch size: the corpus is far too small for them"
                    .to_owned(),
            ),
        }
    }
}

/// The least number of epochs whose tokens make `n_samples` samples.
fn epochs_for(n_samples: u64, sequence_length: u32, tokens_per_epoch: u64) -> u64 {
    // (E · T − 1) / L ≥ n holds from E · T ≥ n · L + 1 on.
    let n_tokens = u128::from(n_samples) * u128::from(sequence_length) + 1;
    u64::try_from(n_tokens.div_ceil(u128::from(tokens_per_epoch))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_those_of_the_reference_loop() {
        for tokens in 2..40 {
            for sequence_length in 1..9 {
                for n_samples in 0..30 {
                    let mut looped = 1;
                    while (looped * tokens - 1) / u64::from(sequence_length) < n_samples {
                        looped += 1;
                    }
                    assert_eq!(epochs_for(n_samples, sequence_length, tokens), looped);
                }
            }
        }
    }
}
