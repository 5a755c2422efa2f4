//! `doc_idx`, `sample_idx` and `shuffle_idx` of one dataset, rebuilt from its sizes and a seed.
//!
//! Source: `megatron/data/gpt2_dataset.py` (`_build_index_mappings`, `_num_epochs`, `_build_doc_idx`,
//! `_build_shuffle_idx`) and `build_sample_idx` in `megatron/data/helpers.cpp`.

mod build;
mod error;
mod files;

pub use build::permutations;
pub use error::{BuildError, MapError, Packing};
pub use files::MapFiles;

use crate::mmididx::{Dataset, ReadError};
use crate::npy::Array;
use rayon::prelude::*;
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

/// Samples from one whose beginning is remembered to the next.
const STRIDE: u64 = 16;
/// Beyond so many entries GPT-NeoX counts in 64 bits; we do not.
const LIMIT: u32 = u32::MAX - 1;
/// More epochs than that are a mistake in the run's settings: no run goes through its corpus so
/// often.
const MAX_EPOCHS: u64 = 65_534;

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

/// Tokens of one document, as they stand in a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentSpan {
    /// The item of the `.idx`.
    pub document: u64,
    /// The tokens, counted from the document's first; half-open.
    pub tokens: Range<u64>,
}

impl IndexMap {
    /// Items in the order in which their tokens are put end to end; an error for an entry that no
    /// item has.
    pub fn doc_idx(&self) -> impl Iterator<Item = Result<u32, ReadError>> {
        self.doc_idx.iter(u32::MAX.into())
    }

    /// Samples in the order in which they are served; an error for an entry that no sample has.
    pub fn shuffle_idx(&self) -> impl Iterator<Item = Result<u32, ReadError>> {
        self.shuffle_idx.iter(self.n_samples())
    }

    /// Refuses maps whose files are not as they were when they were opened.
    ///
    /// # Errors
    ///
    /// When a file has changed, or the system does not say.
    pub fn check_unchanged(&self) -> Result<(), ReadError> {
        let arrays = [self.doc_idx.array(), self.shuffle_idx.array()];
        let sample_idx = match &self.starts {
            Starts::Remembered(_) => None,
            Starts::SampleIdx(array) => Some(array),
        };
        let mut arrays = arrays.into_iter().chain([sample_idx]).flatten();
        arrays.try_for_each(Array::check_unchanged)
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
        // A map on disk was checked when it was opened; after that, `check_unchanged` tells.
        self.shuffle_idx.get(place, self.n_samples()).ok()?
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
        let found = places.map(|place| {
            let document = self.document(place, dataset)?;
            if documents.contains(&document) {
                self.samples_of(dataset, place)
            } else {
                Ok(Vec::new())
            }
        });
        let found = found.filter(|found| !matches!(found, Ok(samples) if samples.is_empty()));
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
        let too_many = || self.no_sample(dataset, self.n_samples());
        let n_samples = usize::try_from(self.n_samples()).map_err(|_| too_many())?;
        let mut first_places = Vec::new();
        let reserved = first_places.try_reserve_exact(n_samples + 1);
        reserved.map_err(|_| too_many())?;
        let mut tokens = 0;
        for (place, item) in (0_u32..).zip(self.doc_idx.iter(dataset.n_items())) {
            let sample = tokens / u64::from(self.sequence_length);
            let sample = usize::try_from(sample).map_or(n_samples, |sample| sample.min(n_samples));
            if first_places.len() <= sample {
                first_places.resize(sample + 1, place);
            }
            tokens += u64::from(dataset.item_len(item?.into())?);
        }
        // The last samples may lie inside one document.
        let end = u32::try_from(self.doc_idx.len()).map_err(|_| too_many())?;
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
            let sample = u32::try_from(sample).map_err(|_| self.no_sample(dataset, sample))?;
            Ok((sample, DocumentSpan { document, tokens }))
        };
        samples.map(span).collect()
    }

    /// Tokens of all documents before a place of `doc_idx`.
    fn tokens_before(&self, dataset: &Dataset, place: u64) -> Result<u64, ReadError> {
        // The last sample remembered that begins at or before the place.
        let stride = self.starts.stride();
        let (mut lo, mut hi) = (0, self.n_samples().div_ceil(stride));
        while lo + 1 < hi {
            let middle = lo.midpoint(hi);
            let (lower, upper) = if self.entry(dataset, middle)?.0 <= place {
                (middle, hi)
            } else {
                (lo, middle)
            };
            (lo, hi) = (lower, upper);
        }
        let (from, skipped) = self.entry(dataset, lo)?;
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
    fn entry(&self, dataset: &Dataset, number: u64) -> Result<(u64, u64), ReadError> {
        let no_sample = || self.no_sample(dataset, number.saturating_mul(self.starts.stride()));
        let array = match &self.starts {
            Starts::Remembered(starts) => {
                let entry = usize::try_from(number).ok().and_then(|n| starts.get(n));
                let [place, token] = entry.copied().ok_or_else(no_sample)?;
                return Ok((place.into(), token.into()));
            }
            Starts::SampleIdx(array) => array,
        };
        let checked = |column: u64, limit: u64| {
            let place = 2 * number + column;
            let found = array.get(place).ok_or_else(no_sample)?;
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
        let (mut place, first) = self.entry(dataset, sample / stride)?;
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
        match self.doc_idx.get(place, dataset.n_items())? {
            Some(document) => Ok(document.into()),
            None => Err(ReadError::OutOfDocuments {
                path: self.doc_idx_path(dataset).to_owned(),
                n_documents: self.doc_idx.len(),
            }),
        }
    }

    /// The `doc_idx`, or the `.idx` that it was built from.
    pub(crate) fn doc_idx_path<'a>(&'a self, dataset: &'a Dataset) -> &'a Path {
        self.doc_idx.array().map_or(dataset.idx_path(), Array::path)
    }

    fn no_sample(&self, dataset: &Dataset, sample: u64) -> ReadError {
        ReadError::Sample {
            path: dataset.idx_path().to_owned(),
            sample,
            n_samples: self.n_samples(),
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

    /// The number at a place, which must be below `limit`; `None` beyond the end.
    fn get(&self, place: u64, limit: u64) -> Result<Option<u32>, ReadError> {
        let array = match self {
            Self::Held(numbers) => {
                let place = usize::try_from(place).ok();
                return Ok(place.and_then(|place| numbers.get(place)).copied());
            }
            Self::Mapped(array) => array,
        };
        let Some(found) = array.get(place) else {
            return Ok(None);
        };
        match u32::try_from(found) {
            Ok(number) if u64::from(number) < limit => Ok(Some(number)),
            _ => Err(ReadError::Map {
                path: array.path().to_owned(),
                place,
                found,
                limit,
            }),
        }
    }

    fn iter(&self, limit: u64) -> impl Iterator<Item = Result<u32, ReadError>> {
        (0..self.len()).map_while(move |place| self.get(place, limit).transpose())
    }

    fn array(&self) -> Option<&Array> {
        match self {
            Self::Held(_) => None,
            Self::Mapped(array) => Some(array),
        }
    }
}
