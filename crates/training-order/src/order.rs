//! The order of a training run: which sequence at which step, and what stands in it.

use crate::file::Change;
use crate::index_map::{BuildError, DocumentSpan, IndexMap, MapError, MapFiles};
use crate::loader::{Items, Part};
use crate::mixture::{Member, Mixture};
use crate::mmididx::{Dataset, ReadError};
use crate::position::{BatchPosition, Checkpoint, TrainingIndex};
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::PathBuf;

/// The settings of a run that decide its order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderSettings {
    /// Which items are for training.
    pub items: Items,
    /// Context length in tokens; a sequence holds one more.
    pub sequence_length: u32,
    /// Sequences per optimizer step: micro-batch × accumulation × data-parallel size.
    pub batch_size: u32,
    /// Optimizer steps of the whole run.
    pub n_steps: u32,
    /// The loader's seed.
    pub seed: u32,
}

/// Every sequence of a training run, in its order, and those that would have come next: the loader builds more samples
/// than the run consumes.
#[derive(Debug)]
pub struct TrainingOrder {
    source: Source,
    settings: LoaderSettings,
}

/// Where an order comes from.
#[derive(Debug)]
enum Source {
    /// Samples of one dataset, or of several in a mixture.
    Sampled(Mixture),
    /// The items themselves, one a sequence, in order.
    Preshuffled(Dataset),
}

/// A sequence that holds tokens of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposure {
    /// The sequence.
    pub training_index: TrainingIndex,
    /// The document, and its tokens that the sequence holds.
    pub span: DocumentSpan,
}

/// Why a corpus gives no order for a run.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// Its maps cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Its maps cannot be used.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A corpus cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no telling which documents stand where.
    #[error(
        "the corpus is preshuffled, or has no such dataset: it does not say which documents its sequences are cut from"
    )]
    NoDocuments,
    /// A setting that counts something is zero, or there is no dataset.
    #[error(
        "a run of {n_steps} steps of {batch_size} sequences of {sequence_length} tokens from {n_members} datasets has nothing to order"
    )]
    Nothing {
        /// Steps given.
        n_steps: u32,
        /// Batch size given.
        batch_size: u32,
        /// Sequence length given.
        sequence_length: u32,
        /// Datasets given.
        n_members: usize,
    },
    /// Weights that mix nothing.
    #[error("{weights:?} are no weights: numbers, none below 0 and not all 0")]
    Weights {
        /// The weights given.
        weights: Vec<f64>,
    },
    /// A mixture that GPT-NeoX cannot make.
    #[error(
        "a mixture of {n_members} datasets with {n_samples} samples: at most 256 datasets and 2³² − 1 samples"
    )]
    Mixture {
        /// Datasets given.
        n_members: usize,
        /// Samples they have.
        n_samples: u64,
    },
    /// The loader ends before the run does.
    #[error(
        "`{path}`: the loader ends after {found} sequences, {n_steps} steps of {batch_size} need {needed}"
    )]
    Exhausted {
        /// The first `.idx`.
        path: PathBuf,
        /// Sequences it serves.
        found: u64,
        /// Steps of the run.
        n_steps: u32,
        /// Sequences per step.
        batch_size: u32,
        /// Sequences the run needs.
        needed: u64,
    },
}

impl TrainingOrder {
    /// Rebuilds the order as GPT-NeoX does from a tokenized corpus and the loader's seed.
    ///
    /// # Errors
    ///
    /// When a size cannot be read, the corpus holds fewer than 2 tokens, the maps would outgrow their numbers,
    /// or the loader would end before the run.
    pub fn from_seed(dataset: Dataset, settings: &LoaderSettings) -> Result<Self, OrderError> {
        Self::blended(vec![(dataset, 1.0)], settings)
    }

    /// Rebuilds the order of a mixture of datasets with their weights.
    ///
    /// # Errors
    ///
    /// Those of [`Self::from_seed`], and when there are no or more than 256 datasets, or the weights are none.
    pub fn blended(
        members: Vec<(Dataset, f64)>,
        settings: &LoaderSettings,
    ) -> Result<Self, OrderError> {
        Self::as_served(members, settings)?.refuse_exhausted(settings.n_steps)
    }

    /// Takes the order from the maps that GPT-NeoX has written for `dataset`.
    ///
    /// # Errors
    ///
    /// When the maps are damaged, or belong to another corpus or sequence length, or the loader would end
    /// before the run.
    pub fn from_maps(
        dataset: Dataset,
        files: &MapFiles,
        settings: &LoaderSettings,
    ) -> Result<Self, OrderError> {
        check_settings(settings, 1)?;
        let mixture = Mixture::from_maps(dataset, files, settings.sequence_length)?;
        let source = Source::Sampled(mixture);
        Self {
            source,
            settings: *settings,
        }
        .refuse_exhausted(settings.n_steps)
    }

    /// Takes the items of `dataset` for the sequences, in their order: Pythia's preshuffled files. Seed and
    /// `items` play no part.
    ///
    /// # Errors
    ///
    /// When there are fewer items than the run needs. That each has `sequence_length + 1` tokens is checked where
    /// it is read.
    pub fn preshuffled(dataset: Dataset, settings: &LoaderSettings) -> Result<Self, OrderError> {
        check_settings(settings, 1)?;
        let source = Source::Preshuffled(dataset);
        Self {
            source,
            settings: *settings,
        }
        .refuse_exhausted(settings.n_steps)
    }

    /// Like [`Self::blended`], but where the loader ends before the run, so does the order: GPT-NeoX serves one
    /// sample fewer than it builds, and a run that needs all of them stops one step early.
    ///
    /// # Errors
    ///
    /// Those of [`Self::blended`] but the last.
    pub fn as_served(
        members: Vec<(Dataset, f64)>,
        settings: &LoaderSettings,
    ) -> Result<Self, OrderError> {
        let LoaderSettings {
            items,
            sequence_length,
            batch_size,
            n_steps,
            seed,
        } = *settings;
        check_settings(settings, members.len())?;
        let needed = u64::from(n_steps) * u64::from(batch_size);
        let mixture = Mixture::build(
            members,
            Part::Training,
            &items,
            needed,
            sequence_length,
            seed,
        )?;
        // More steps than 32 bits hold are more than the run has.
        let n_served = u32::try_from(mixture.len() / u64::from(batch_size));
        let settings = LoaderSettings {
            n_steps: n_served.map_or(n_steps, |n_served| n_steps.min(n_served)),
            ..*settings
        };
        Ok(Self {
            source: Source::Sampled(mixture),
            settings,
        })
    }

    fn refuse_exhausted(self, n_steps: u32) -> Result<Self, OrderError> {
        let batch_size = self.settings.batch_size;
        let needed = u64::from(n_steps) * u64::from(batch_size);
        if self.len() >= needed {
            return Ok(self);
        }
        let path = self
            .datasets()
            .next()
            .map(|dataset| dataset.idx_path().to_owned())
            .unwrap_or_default();
        Err(OrderError::Exhausted {
            path,
            found: self.len(),
            n_steps,
            batch_size,
            needed,
        })
    }

    /// The datasets, in the order of the configuration.
    pub fn datasets(&self) -> impl Iterator<Item = &Dataset> {
        let (mixture, preshuffled) = match &self.source {
            Source::Sampled(mixture) => (Some(mixture), None),
            Source::Preshuffled(dataset) => (None, Some(dataset)),
        };
        mixture
            .into_iter()
            .flat_map(Mixture::members)
            .map(Member::dataset)
            .chain(preshuffled)
    }

    /// What the sequences are sampled from; `None` where the corpus is preshuffled.
    pub fn mixture(&self) -> Option<&Mixture> {
        match &self.source {
            Source::Sampled(mixture) => Some(mixture),
            Source::Preshuffled(_) => None,
        }
    }

    /// Sequences that the loader could serve, which may be more than the run consumes: all of them can be read.
    pub fn len(&self) -> u64 {
        match &self.source {
            Source::Sampled(mixture) => mixture.len(),
            Source::Preshuffled(dataset) => dataset.n_items(),
        }
    }

    /// Whether the loader serves nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Context length in tokens; a sequence holds one more.
    pub fn sequence_length(&self) -> u32 {
        self.settings.sequence_length
    }

    /// Sequences per optimizer step.
    pub fn batch_size(&self) -> u32 {
        self.settings.batch_size
    }

    /// Optimizer steps of the run.
    pub fn n_steps(&self) -> u32 {
        self.settings.n_steps
    }

    /// Sequences the run consumes.
    pub fn n_sequences(&self) -> u64 {
        u64::from(self.settings.n_steps) * u64::from(self.settings.batch_size)
    }

    /// Whether the run consumes a sequence; those from [`Self::n_sequences`] on it never reaches.
    pub fn consumes(&self, index: TrainingIndex) -> bool {
        index.get() < self.n_sequences()
    }

    /// How often the run goes through the corpus: tokens consumed / tokens of one epoch. Unknown where the corpus
    /// is preshuffled.
    pub fn epochs(&self) -> Option<f64> {
        let consumed = self.n_sequences() * u64::from(self.settings.sequence_length);
        let members = self.mixture()?.members();
        let epoch: u64 = members
            .iter()
            .map(|member| member.index_map().tokens_per_epoch())
            .sum();
        #[expect(clippy::cast_precision_loss, reason = "a ratio for a person to read")]
        let epochs = (epoch > 0).then(|| consumed as f64 / epoch as f64);
        epochs
    }

    /// Refuses a corpus or maps whose files are not as they were when they were opened: see
    /// [`Dataset::check_unchanged`].
    ///
    /// # Errors
    ///
    /// When a file has changed, or the system does not say.
    pub fn check_unchanged(&self) -> Result<(), ReadError> {
        self.datasets().try_for_each(Dataset::check_unchanged)?;
        let mut members = self.mixture().into_iter().flat_map(Mixture::members);
        members.try_for_each(|member| member.index_map().check_unchanged())
    }

    /// Reads everything that the order could ever need: sizes, pointers, tokens and maps. Gives the largest token
    /// id, or `None` where there is no token.
    ///
    /// # Errors
    ///
    /// Something that is out of range or does not fit.
    pub fn check(&self) -> Result<Option<u32>, OrderError> {
        self.check_with(&|_| ())
    }

    /// What [`Self::check_with`] looks at in all: items, samples of maps, and sequences of a
    /// preshuffled corpus.
    pub fn n_to_check(&self) -> u64 {
        let items: u64 = self.datasets().map(Dataset::n_items).sum();
        items
            + match &self.source {
                Source::Sampled(mixture) => {
                    let maps = mixture.members().iter().map(Member::index_map);
                    maps.map(IndexMap::n_to_check).sum()
                }
                Source::Preshuffled(_) => self.n_sequences(),
            }
    }

    /// Like [`Self::check`]; `progress` is told of what is done, by how much more it is: of
    /// [`Self::n_to_check`] in all. It is called from several threads.
    ///
    /// # Errors
    ///
    /// Those of [`Self::check`].
    pub fn check_with(&self, progress: &(dyn Fn(u64) + Sync)) -> Result<Option<u32>, OrderError> {
        /// Sequences between two calls of `progress`.
        const TOLD: u64 = 4096;
        let mut largest = None;
        for dataset in self.datasets() {
            largest = largest.max(dataset.check_with(progress)?);
        }
        match &self.source {
            Source::Sampled(mixture) => {
                for member in mixture.members() {
                    member.index_map().check_with(member.dataset(), progress)?;
                }
            }
            Source::Preshuffled(_) => {
                let n = self.n_sequences();
                for chunk in 0..n.div_ceil(TOLD) {
                    let (start, end) = (chunk * TOLD, n.min((chunk + 1) * TOLD));
                    for index in start..end {
                        self.read_tokens(TrainingIndex::new(index), 0..0, &mut Vec::new())?;
                    }
                    progress(end - start);
                }
            }
        }
        self.check_unchanged()?;
        Ok(largest)
    }

    /// The step that consumed a sequence, or would have, and its place in the batch.
    ///
    /// Steps saturate at 2³² − 1, which no sequence of a run reaches.
    pub fn position(&self, index: TrainingIndex) -> BatchPosition {
        let batch_size = u64::from(self.settings.batch_size);
        let step = u32::try_from(index.get() / batch_size).unwrap_or(u32::MAX);
        #[expect(clippy::cast_possible_truncation, reason = "a remainder of a u32")]
        let row = (index.get() % batch_size) as u32;
        BatchPosition { step, row }
    }

    /// The row of `sample_idx` that a sequence is, of the dataset that [`Self::member`] names; `None` where the
    /// loader serves no such sequence or the corpus is preshuffled.
    pub fn sample(&self, index: TrainingIndex) -> Option<u32> {
        Some(self.place(index)?.1)
    }

    /// The dataset that a sequence comes from, by its place in the configuration.
    pub fn member(&self, index: TrainingIndex) -> Option<usize> {
        match &self.source {
            Source::Sampled(_) => Some(self.place(index)?.0),
            Source::Preshuffled(_) => (index.get() < self.len()).then_some(0),
        }
    }

    /// Appends the ids of `tokens` of a sequence to `into`; a sequence has `sequence_length + 1`.
    ///
    /// # Errors
    ///
    /// When the loader serves no such sequence or the sequence has no such tokens, or a document cannot be read.
    pub fn read_tokens(
        &self,
        index: TrainingIndex,
        tokens: Range<u32>,
        into: &mut Vec<u32>,
    ) -> Result<(), ReadError> {
        let len = u64::from(self.settings.sequence_length) + 1;
        if tokens.start > tokens.end || u64::from(tokens.end) > len {
            return Err(ReadError::SequenceTokens {
                training_index: index.get(),
                len,
                asked: tokens,
            });
        }
        if index.get() >= self.len() {
            return Err(self.absent(index));
        }
        match &self.source {
            Source::Sampled(mixture) => mixture
                .read_tokens(index.get(), tokens, into)
                .unwrap_or_else(|| Err(self.absent(index))),
            Source::Preshuffled(dataset) => {
                let found = u64::from(dataset.item_len(index.get())?);
                if found != len {
                    let path = dataset.idx_path().to_owned();
                    return Err(ReadError::NotPreshuffled {
                        path,
                        item: index.get(),
                        found,
                        expected: len,
                    });
                }
                dataset.read(index.get(), tokens.start.into()..tokens.end.into(), into)
            }
        }
    }

    /// The documents that a sequence is cut from, in its order. None where the corpus is preshuffled, which no
    /// longer says.
    ///
    /// # Errors
    ///
    /// When the loader serves no such sequence, or a document's size cannot be read.
    pub fn documents(&self, index: TrainingIndex) -> Result<Vec<DocumentSpan>, ReadError> {
        if index.get() >= self.len() {
            return Err(self.absent(index));
        }
        match &self.source {
            Source::Sampled(mixture) => mixture
                .documents(index.get())
                .unwrap_or_else(|| Err(self.absent(index))),
            Source::Preshuffled(_) => Ok(Vec::new()),
        }
    }

    /// Every sequence of the run that holds tokens of these documents, in the order of training: one parallel scan
    /// for all of them. `member` is the dataset they belong to, by its place in the configuration.
    ///
    /// # Errors
    ///
    /// When the corpus is preshuffled, which no longer says what its sequences are cut from, there is no such
    /// dataset, or a size cannot be read.
    pub fn exposures(
        &self,
        member: usize,
        documents: &HashSet<u64>,
    ) -> Result<Vec<Exposure>, OrderError> {
        let mixture = self.mixture().ok_or(OrderError::NoDocuments)?;
        let owner = mixture
            .members()
            .get(member)
            .ok_or(OrderError::NoDocuments)?;
        let mut spans: HashMap<u32, Vec<DocumentSpan>> = HashMap::new();
        for (sample, span) in owner.index_map().samples_with(owner.dataset(), documents)? {
            spans.entry(sample).or_default().push(span);
        }
        let indices = (0..self.n_sequences()).into_par_iter();
        let found = indices.filter_map(|index| {
            let (of, sample) = mixture.place(index)?;
            Some((index, spans.get(&sample).filter(|_| of == member)?))
        });
        let exposures = found.flat_map_iter(|(index, spans)| {
            let training_index = TrainingIndex::new(index);
            spans.iter().map(move |span| Exposure {
                training_index,
                span: span.clone(),
            })
        });
        let exposures = exposures.collect();
        self.check_unchanged()?;
        Ok(exposures)
    }

    /// The training index of every sample of one dataset, `None` for those that the run does not reach: the inverse
    /// of [`Self::sample`], held in memory. Empty where there is no such dataset.
    pub fn inverse(&self, member: usize) -> Vec<Option<TrainingIndex>> {
        let Some(mixture) = self.mixture() else {
            return Vec::new();
        };
        let owner = mixture.members().get(member);
        let samples = owner
            .into_iter()
            .flat_map(|owner| 0..owner.index_map().n_samples());
        let mut inverse: Vec<_> = samples.map(|_| None).collect();
        for index in 0..self.n_sequences() {
            match mixture.place(index) {
                // A sample that a small member serves twice keeps its first place.
                Some((of, sample)) if of == member => {
                    inverse[sample as usize].get_or_insert(TrainingIndex::new(index));
                }
                _ => {}
            }
        }
        inverse
    }

    /// How many documents each of `checkpoints` had met 0, 1, 2 … times: one row a checkpoint, as long as the
    /// largest number of epochs, plus one.
    ///
    /// A copy of a document is met at the step that takes its first token as input. In a run of more than one
    /// epoch the copies are not one epoch after another: all of them are in one shuffle. One pass in the order of
    /// training, with four bytes a sample and a document.
    ///
    /// # Errors
    ///
    /// When the corpus is preshuffled, which no longer says what its sequences are cut from, or a size cannot be
    /// read.
    pub fn exposures_by_step(
        &self,
        checkpoints: &[Checkpoint],
    ) -> Result<Vec<Vec<u64>>, OrderError> {
        let mixture = self.mixture().ok_or(OrderError::NoDocuments)?;
        let members = mixture.members();
        let mut meetings = members
            .iter()
            .map(Meetings::of)
            .collect::<Result<Vec<_>, _>>()?;
        let n_epochs = members.iter().map(|member| member.index_map().n_epochs());
        // From no epoch to all of them.
        let mut counts: Vec<u64> = (0..=n_epochs.max().unwrap_or(0)).map(|_| 0).collect();
        counts[0] = meetings.iter().map(|meetings| meetings.n_documents).sum();
        let mut ascending: Vec<usize> = (0..checkpoints.len()).collect();
        ascending.sort_by_key(|&number| checkpoints[number]);
        let mut pending = ascending.into_iter().peekable();
        let mut found = vec![Vec::new(); checkpoints.len()];
        for index in (0..self.n_sequences()).map(TrainingIndex::new) {
            let place = self.position(index);
            while let Some(number) = pending.next_if(|&number| !checkpoints[number].has_seen(place))
            {
                found[number].clone_from(&counts);
            }
            if let Some((member, sample)) = mixture.place(index.get()) {
                meetings[member].meet(&members[member], sample, &mut counts)?;
            }
        }
        pending.for_each(|number| found[number].clone_from(&counts));
        self.check_unchanged()?;
        Ok(found)
    }

    /// Member and sample of a sequence.
    fn place(&self, index: TrainingIndex) -> Option<(usize, u32)> {
        let place = Some(index.get()).filter(|index| *index < self.len())?;
        self.mixture()?.place(place)
    }

    fn absent(&self, index: TrainingIndex) -> ReadError {
        ReadError::Sequence {
            training_index: index.get(),
            n_sequences: self.len(),
        }
    }
}

/// Which documents of a dataset were met how often, while its samples come by.
struct Meetings {
    /// By sample, and one more: the first place of `doc_idx` whose document begins in it or later.
    first_places: Vec<u32>,
    /// By item: how often it was met.
    n_met: Vec<u32>,
    /// A bit a sample: whether it came by. In a mixture a small dataset serves some twice.
    met: Vec<u64>,
    n_documents: u64,
}

impl Meetings {
    fn of(member: &Member) -> Result<Self, ReadError> {
        let (map, dataset) = (member.index_map(), member.dataset());
        let first_places = map.first_places(dataset)?;
        Ok(Self {
            met: vec![0; first_places.len().div_ceil(64)],
            first_places,
            n_met: (0..dataset.n_items()).map(|_| 0).collect(),
            n_documents: map.n_documents(),
        })
    }

    /// Counts the documents whose first token is an input of the sample; `counts` holds the documents met 0, 1, 2 …
    /// times.
    fn meet(&mut self, member: &Member, sample: u32, counts: &mut [u64]) -> Result<(), ReadError> {
        let (map, dataset, sample) = (member.index_map(), member.dataset(), sample as usize);
        // A document that is met more often than there are epochs: a map was not so when it was
        // opened.
        let changed = || ReadError::Changed {
            path: map.doc_idx_path(dataset).to_owned(),
            change: Change::Contents,
        };
        let (word, bit) = (sample / 64, 1 << (sample % 64));
        if self.met[word] & bit != 0 {
            return Ok(());
        }
        self.met[word] |= bit;
        for place in self.first_places[sample]..self.first_places[sample + 1] {
            let item = map.document(place.into(), dataset)?;
            // An empty document has no first token.
            if dataset.item_len(item)? > 0 {
                let n_met = usize::try_from(item)
                    .ok()
                    .and_then(|item| self.n_met.get_mut(item));
                let n_met = n_met.ok_or_else(changed)?;
                let [before, after] = counts
                    .get_mut(*n_met as usize..)
                    .and_then(<[u64]>::first_chunk_mut::<2>)
                    .ok_or_else(changed)?;
                *before = before.checked_sub(1).ok_or_else(changed)?;
                *after += 1;
                *n_met += 1;
            }
        }
        Ok(())
    }
}

fn check_settings(settings: &LoaderSettings, n_members: usize) -> Result<(), OrderError> {
    let LoaderSettings {
        sequence_length,
        batch_size,
        n_steps,
        ..
    } = *settings;
    // One more than the sequence length is counted, too.
    if sequence_length == 0
        || sequence_length == u32::MAX
        || batch_size == 0
        || n_steps == 0
        || n_members == 0
    {
        return Err(OrderError::Nothing {
            n_steps,
            batch_size,
            sequence_length,
            n_members,
        });
    }
    Ok(())
}

impl OrderError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Build(error) => error.hint(),
            Self::Map(error) => error.hint(),
            Self::Read(error) => error.hint(),
            Self::NoDocuments | Self::Nothing { .. } | Self::Weights { .. } | Self::Mixture { .. } => None,
            Self::Exhausted { .. } => Some(
                "GPT-NeoX serves one sample fewer than it builds: the run that was trained had fewer steps, a smaller batch, or `train-data-paths` instead of a split"
                    .to_owned(),
            ),
        }
    }
}
