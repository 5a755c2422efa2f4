//! How often a piece of a sequence occurs in the training run, at whatever offset.

use crate::file::Change;
use crate::index_map::DocumentSpan;
use crate::mmididx::{Dataset, ReadError};
use crate::order::{Exposure, OrderError, TrainingOrder};
use crate::position::TrainingIndex;
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Sequences between two questions whether the files are still whole.
const ASK_EVERY: u64 = 1024;

/// The occurrences of a probe's tokens in the training run, apart from the probe itself.
///
/// An occurrence lies inside one sequence, at any offset. Those of the probe's own step, its own sequence among
/// them, are neither before nor after it. A probe that the run never reaches has them all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeExposure {
    /// Occurrences at earlier steps.
    pub before: u32,
    /// Occurrences at later steps.
    pub after: u32,
    /// Other occurrences at the probe's own step.
    pub same_step: u32,
    /// Those of `before` that begin a sequence.
    pub before_at_start: u32,
    /// Those of `after` that begin a sequence.
    pub after_at_start: u32,
    /// Those of `same_step` that begin a sequence; the probe itself is not among them.
    pub same_step_at_start: u32,
    /// The last step of `before`.
    pub nearest_before: Option<u32>,
    /// The first step of `after`.
    pub nearest_after: Option<u32>,
}

/// The other epochs' copies of a document, at the token with which a probe begins.
///
/// A run of more than one epoch meets a document again, each copy cut into other sequences. Those at the probe's own step are
/// neither before nor after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DocumentCopies {
    /// Copies whose token was an input at an earlier step.
    pub before: u32,
    /// Copies whose token is an input at a later step.
    pub after: u32,
    /// Other copies at the probe's own step.
    pub same_step: u32,
}

impl TrainingOrder {
    /// How often the run meets, in other epochs, the token `token` of each of these sequences: the same one of the same
    /// document. By one parallel scan for all of them; memory grows with the sequences that hold their documents.
    ///
    /// # Errors
    ///
    /// When the corpus is preshuffled, which no longer says what its sequences are cut from, the run has no such sequence, or a
    /// size cannot be read.
    pub fn document_copies(
        &self,
        probes: &[TrainingIndex],
        token: u32,
    ) -> Result<Vec<DocumentCopies>, OrderError> {
        let mixture = self.mixture().ok_or(OrderError::NoDocuments)?;
        // Of each probe: its dataset, its document, and which of the document's tokens it is.
        let place = |probe: &TrainingIndex| {
            let spans = self.documents(*probe)?;
            let (document, at) = document_token(&spans, token).ok_or(OrderError::NoDocuments)?;
            let member = self.member(*probe).ok_or(OrderError::NoDocuments)?;
            Ok::<_, OrderError>((member, document, at))
        };
        let places: Vec<(usize, u64, u64)> =
            probes.par_iter().map(place).collect::<Result<_, _>>()?;
        let mut holders: HashMap<(usize, u64), Vec<Exposure>> = HashMap::new();
        for member in 0..mixture.members().len() {
            let of_member = places.iter().filter(|place| place.0 == member);
            let documents: HashSet<u64> = of_member.map(|place| place.1).collect();
            for exposure in self.exposures(member, &documents)? {
                let key = (member, exposure.span.document);
                holders.entry(key).or_default().push(exposure);
            }
        }
        let count = |(probe, &(member, document, at)): (&TrainingIndex, &(usize, u64, u64))| {
            let holders = holders.get(&(member, document)).into_iter().flatten();
            let holders = holders.filter(|holder| holder.span.tokens.contains(&at));
            // In the order of training: a sequence that holds the document twice is one after the other.
            let mut sequences: Vec<TrainingIndex> =
                holders.map(|holder| holder.training_index).collect();
            sequences.dedup();
            let step = self.position(*probe).step;
            let mut copies = DocumentCopies::default();
            for sequence in sequences {
                let n = self.n_inputs(sequence, document, at)?;
                match self.position(sequence).step.cmp(&step) {
                    Ordering::Less => copies.before += n,
                    Ordering::Equal => copies.same_step += n,
                    Ordering::Greater => copies.after += n,
                }
            }
            // The probe's own.
            copies.same_step = copies.same_step.saturating_sub(1);
            Ok(copies)
        };
        probes.par_iter().zip(&places).map(count).collect()
    }

    /// How often a document's token is an input of a sequence, whose last token is a target only.
    fn n_inputs(&self, sequence: TrainingIndex, document: u64, at: u64) -> Result<u32, ReadError> {
        let (mut first, mut n) = (0, 0);
        for span in self.documents(sequence)? {
            let place = first + at.saturating_sub(span.tokens.start);
            let input = place < u64::from(self.sequence_length());
            if span.document == document && span.tokens.contains(&at) && input {
                n += 1;
            }
            first += span.tokens.end - span.tokens.start;
        }
        Ok(n)
    }

    /// How often the tokens `tokens` of each of these sequences occur in the run, by one pass over it for all of
    /// them. Memory grows with the number of probes, not with the corpus.
    ///
    /// Windows are found by a rolling hash (Karp and Rabin 1987) and compared token by token.
    ///
    /// # Errors
    ///
    /// When the loader serves no such sequence or a sequence has no such tokens, or the corpus cannot be read.
    pub fn probe_exposures(
        &self,
        probes: &[TrainingIndex],
        tokens: Range<u32>,
    ) -> Result<Vec<ProbeExposure>, ReadError> {
        if tokens.is_empty() {
            return Ok(vec![ProbeExposure::default(); probes.len()]);
        }
        let table = Table::of(self, probes, tokens.clone())?;
        (0..self.n_sequences()).into_par_iter().try_for_each_init(
            Vec::new,
            |sequence, index| {
                if index.is_multiple_of(ASK_EVERY) {
                    self.check_unchanged()?;
                }
                let index = TrainingIndex::new(index);
                sequence.clear();
                self.read_tokens(index, 0..self.sequence_length() + 1, sequence)?;
                table.count(sequence, self.position(index).step);
                Ok::<(), ReadError>(())
            },
        )?;
        self.check_unchanged()?;
        // A probe's own sequence was met, or the corpus is not as it was.
        table.exposures(tokens.start == 0).ok_or_else(|| {
            let path = self.datasets().next().map(Dataset::idx_path);
            ReadError::Changed {
                path: path.unwrap_or(Path::new("")).to_owned(),
                change: Change::Contents,
            }
        })
    }
}

/// The document, and which of its tokens, that stands at a place of the sequence cut from `spans`.
fn document_token(spans: &[DocumentSpan], place: u32) -> Option<(u64, u64)> {
    let mut left = u64::from(place);
    for span in spans {
        let len = span.tokens.end - span.tokens.start;
        if left < len {
            return Some((span.document, span.tokens.start + left));
        }
        left -= len;
    }
    None
}

/// The distinct contents of all probes, and what was found of each.
struct Table {
    /// Tokens of a probe.
    len: usize,
    contents: Vec<Content>,
    /// By hash: the contents that have it.
    by_hash: HashMap<u64, Vec<usize>>,
    /// Bits of the hashes there are: most windows are none of them.
    filter: Vec<u64>,
    /// For each probe: its content, its step's place among the content's, and whether the run consumes it.
    probes: Vec<(usize, usize, bool)>,
}

/// One content, and the steps of its probes.
struct Content {
    tokens: Vec<u32>,
    /// Ascending, each once.
    steps: Vec<u32>,
    /// Before the first step, at it, between it and the second, at the second, and so on.
    spans: Vec<Span>,
}

/// What was found in a span of steps.
#[derive(Debug)]
struct Span {
    n: AtomicU32,
    n_at_start: AtomicU32,
    first_step: AtomicU32,
    last_step: AtomicU32,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            n: AtomicU32::new(0),
            n_at_start: AtomicU32::new(0),
            first_step: AtomicU32::new(u32::MAX),
            last_step: AtomicU32::new(0),
        }
    }
}

impl Table {
    fn of(
        order: &TrainingOrder,
        probes: &[TrainingIndex],
        tokens: Range<u32>,
    ) -> Result<Self, ReadError> {
        let mut contents: Vec<Content> = Vec::new();
        let mut by_tokens: HashMap<Vec<u32>, usize> = HashMap::new();
        let mut members = Vec::with_capacity(probes.len());
        for &probe in probes {
            let mut content = Vec::new();
            order.read_tokens(probe, tokens.clone(), &mut content)?;
            let next = contents.len();
            let number = *by_tokens.entry(content).or_insert_with_key(|content| {
                contents.push(Content {
                    tokens: content.clone(),
                    steps: Vec::new(),
                    spans: Vec::new(),
                });
                next
            });
            let step = order.position(probe).step;
            contents[number].steps.push(step);
            members.push((number, step, order.consumes(probe)));
        }
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        let mut filter = vec![0; (contents.len() * 16).next_power_of_two().div_ceil(64)];
        for (number, content) in contents.iter_mut().enumerate() {
            content.steps.sort_unstable();
            content.steps.dedup();
            content
                .spans
                .resize_with(2 * content.steps.len() + 1, Span::default);
            let hash = content
                .tokens
                .iter()
                .fold(0, |hash, token| push(hash, *token));
            by_hash.entry(hash).or_default().push(number);
            let (word, bit) = place(hash, filter.len());
            filter[word] |= bit;
        }
        let probes = members.into_iter().map(|(number, step, consumed)| {
            let steps = &contents[number].steps;
            (
                number,
                steps.partition_point(|other| *other < step),
                consumed,
            )
        });
        let probes = probes.collect();
        Ok(Self {
            len: (tokens.end - tokens.start) as usize,
            contents,
            by_hash,
            filter,
            probes,
        })
    }

    /// Counts every occurrence in one sequence.
    fn count(&self, sequence: &[u32], step: u32) {
        // What a token contributes when it leaves the window.
        let leaving = (0..self.len).fold(1_u64, |power, _| power.wrapping_mul(BASE));
        let mut hash = 0;
        for (end, &token) in sequence.iter().enumerate() {
            hash = push(hash, token);
            if let Some(left) = end.checked_sub(self.len) {
                hash = hash.wrapping_sub(leaving.wrapping_mul(value(sequence[left])));
            }
            let Some(start) = (end + 1).checked_sub(self.len) else {
                continue;
            };
            let (word, bit) = place(hash, self.filter.len());
            if self.filter[word] & bit == 0 {
                continue;
            }
            for &number in self.by_hash.get(&hash).into_iter().flatten() {
                let content = &self.contents[number];
                if content.tokens == sequence[start..=end] {
                    content.count(step, start == 0);
                }
            }
        }
    }

    /// What was found of each probe; `at_start` says whether the probes themselves begin their
    /// sequences. `None` where a probe was not met itself.
    fn exposures(&self, at_start: bool) -> Option<Vec<ProbeExposure>> {
        let exposure = |&(number, step, consumed): &(usize, usize, bool)| {
            let spans = &self.contents[number].spans;
            let own = 2 * step + 1;
            let sum = |spans: &[Span], of: fn(&Span) -> &AtomicU32| {
                spans.iter().map(|span| of(span).load(Relaxed)).sum()
            };
            let found = |span: &&Span| span.n.load(Relaxed) > 0;
            let (before, after) = (&spans[..own], &spans[own + 1..]);
            let same_step = spans[own].n.load(Relaxed);
            let same_step_at_start = spans[own].n_at_start.load(Relaxed);
            Some(ProbeExposure {
                before: sum(before, |span| &span.n),
                after: sum(after, |span| &span.n),
                same_step: same_step.checked_sub(consumed.into())?,
                before_at_start: sum(before, |span| &span.n_at_start),
                after_at_start: sum(after, |span| &span.n_at_start),
                same_step_at_start: same_step_at_start
                    .checked_sub((at_start && consumed).into())?,
                nearest_before: before
                    .iter()
                    .rev()
                    .find(found)
                    .map(|span| span.last_step.load(Relaxed)),
                nearest_after: after
                    .iter()
                    .find(found)
                    .map(|span| span.first_step.load(Relaxed)),
            })
        };
        self.probes.iter().map(exposure).collect()
    }
}

impl Content {
    fn count(&self, step: u32, at_start: bool) {
        let span = match self.steps.binary_search(&step) {
            Ok(place) => 2 * place + 1,
            Err(place) => 2 * place,
        };
        let span = &self.spans[span];
        span.n.fetch_add(1, Relaxed);
        span.n_at_start.fetch_add(at_start.into(), Relaxed);
        span.first_step.fetch_min(step, Relaxed);
        span.last_step.fetch_max(step, Relaxed);
    }
}

/// Base of the rolling hash: odd, so that no token is lost, and without pattern (2⁶⁴ / golden ratio).
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;

/// A token's part of the hash; a token 0 counts, too.
fn value(token: u32) -> u64 {
    u64::from(token) + 1
}

fn push(hash: u64, token: u32) -> u64 {
    hash.wrapping_mul(BASE).wrapping_add(value(token))
}

/// Word and bit of a hash in a filter of so many words, a power of two.
fn place(hash: u64, n_words: usize) -> (usize, u64) {
    let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mixed = mixed ^ (mixed >> 32);
    let word = (mixed >> 6) as usize & (n_words - 1);
    (word, 1 << (mixed & 63))
}
