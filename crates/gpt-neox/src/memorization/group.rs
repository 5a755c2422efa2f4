//! Probes of the same length, decided about together.

use super::{JudgeError, Likelihood, Measures, Verdict};
use crate::cache::Cache;
use crate::model::GptNeox;
use crate::next_token::{NextToken, Wanted, next_tokens};
use std::ops::Range;

/// Decides about `probes`, whose first `k` tokens are the prompt; prompts are read `n_prompts` at a time.
///
/// Prompts are read once; then only probes without a miss go on, with the true tokens, in chunks of growing
/// length: most probes end at the first tokens, and those that do not, go far. For the likelihood all tokens are needed,
/// so that the first chunk is everything. For the score, probes with a miss go on with the model's own tokens.
pub(super) fn judge_group(
    model: &GptNeox,
    probes: &[&[u32]],
    k: usize,
    measures: Measures,
    n_prompts: usize,
) -> Result<Vec<Verdict>, JudgeError> {
    let n_tokens = probes.first().map_or(0, |probe| probe.len());
    let mut group = Group {
        model,
        probes,
        k,
        measures,
        found: vec![Found::new(); probes.len()],
        missed: (k..n_tokens).map(|_| Vec::new()).collect(),
    };
    // The last token is only ever predicted.
    let n_first = if measures.likelihood { n_tokens - 1 } else { k };
    let mut alive = Vec::new();
    let mut caches = Vec::new();
    for first in (0..probes.len()).step_by(n_prompts) {
        let batch: Vec<usize> = (first..probes.len().min(first + n_prompts)).collect();
        let mut cache = model.cache(batch.len(), n_tokens);
        let survivors = group.advance(&batch, 0..n_first, &mut cache)?;
        if !survivors.is_empty() {
            alive.extend(survivors);
            caches.push(cache);
        }
    }
    if let Some(mut cache) = Cache::of_all(caches) {
        let (mut n_read, mut n_next) = (n_first, 1);
        while !alive.is_empty() && n_read + 1 < n_tokens {
            let end = (n_read + n_next).min(n_tokens - 1);
            alive = group.advance(&alive, n_read..end, &mut cache)?;
            n_read = end;
            n_next *= 2;
        }
    }
    if measures.score {
        group.decode()?;
    }
    let verdicts = group.found.iter().map(|found| found.verdict(measures));
    Ok(verdicts.collect())
}

/// Probes that are decided about together, and what is known of them.
struct Group<'a> {
    model: &'a GptNeox,
    probes: &'a [&'a [u32]],
    k: usize,
    measures: Measures,
    found: Vec<Found>,
    /// By the continuation token that was missed, where the score is asked for: the probes that have read what is before
    /// it.
    missed: Vec<Vec<Missed>>,
}

/// What is known of a probe.
#[derive(Clone, Debug)]
struct Found {
    n_prefix_matched: usize,
    n_matched: usize,
    margin: f32,
    closest: f32,
    /// ln p of each continuation token, where the likelihood is asked for.
    log_ps: Vec<f32>,
    n_top1: usize,
}

/// Probes that missed the same token, with what they have read.
struct Missed {
    members: Vec<usize>,
    /// What greedy decoding chose there.
    predicted: Vec<u32>,
    cache: Cache,
}

impl Group<'_> {
    /// Reads the tokens `read` of the probes `members`, and decides about the continuation tokens that follow
    /// from them. Gives the members without a miss; `cache` keeps no others.
    fn advance(
        &mut self,
        members: &[usize],
        read: Range<usize>,
        cache: &mut Cache,
    ) -> Result<Vec<usize>, JudgeError> {
        // Token i is predicted once token i − 1 is read.
        let decided = self.k.max(read.start + 1)..read.end + 1;
        let hidden = self.model.read(
            &self.tokens(members, read),
            members.len(),
            decided.len(),
            cache,
        );
        let wanted = Wanted {
            suppress_eos: self.measures.suppress_eos,
            likelihood: self.measures.likelihood,
        };
        let truth = self.tokens(members, decided.clone());
        let next = next_tokens(self.model, hidden, &truth, wanted)
            .map_err(|odd| odd.of_probe(|row| members[row / decided.len()]))?;
        let mut survivors = Vec::new();
        let mut missed = vec![(Vec::new(), Vec::new()); decided.len()];
        let rows = next
            .chunks_exact(decided.len())
            .zip(truth.chunks_exact(decided.len()));
        for (place, (next, truth)) in rows.enumerate() {
            let n_right = self.found[members[place]].add(next, truth);
            match next.get(n_right) {
                None => survivors.push(place),
                Some(miss) => {
                    let (places, predicted) = &mut missed[n_right];
                    places.push(place);
                    predicted.push(miss.predicted);
                }
            }
        }
        if self.measures.score {
            for (n_right, (places, predicted)) in missed.into_iter().enumerate() {
                let at = decided.start + n_right;
                if !places.is_empty() && at + 1 < self.k + self.missed.len() {
                    self.missed[at - self.k].push(Missed {
                        members: places.iter().map(|&place| members[place]).collect(),
                        predicted,
                        cache: cache.take(&places, at),
                    });
                }
            }
        }
        if !survivors.is_empty() && survivors.len() < members.len() {
            cache.keep(&survivors);
        }
        Ok(survivors.into_iter().map(|place| members[place]).collect())
    }

    /// Decodes what follows the misses, all probes that have one side by side.
    fn decode(&mut self) -> Result<(), JudgeError> {
        let wanted = Wanted {
            suppress_eos: self.measures.suppress_eos,
            likelihood: false,
        };
        let (mut members, mut last) = (Vec::new(), Vec::new());
        let mut cache: Option<Cache> = None;
        for missed in 0..self.missed.len().saturating_sub(1) {
            let mut caches = Vec::from_iter(cache);
            for joining in std::mem::take(&mut self.missed[missed]) {
                members.extend(joining.members);
                last.extend(joining.predicted);
                caches.push(joining.cache);
            }
            cache = Cache::of_all(caches);
            let Some(cache) = &mut cache else {
                continue;
            };
            let at = self.k + missed + 1;
            let hidden = self.model.read(&last, members.len(), 1, cache);
            let truth = self.tokens(&members, at..at + 1);
            let next = next_tokens(self.model, hidden, &truth, wanted)
                .map_err(|odd| odd.of_probe(|row| members[row]))?;
            for ((&member, next), truth) in members.iter().zip(&next).zip(truth) {
                self.found[member].n_matched += usize::from(next.predicted == truth);
            }
            last = next.into_iter().map(|next| next.predicted).collect();
        }
        Ok(())
    }

    /// The tokens `range` of each of the probes, one probe after another.
    fn tokens(&self, members: &[usize], range: Range<usize>) -> Vec<u32> {
        let rows = members
            .iter()
            .flat_map(|&member| &self.probes[member][range.clone()]);
        rows.copied().collect()
    }
}

impl Found {
    fn new() -> Self {
        Self {
            n_prefix_matched: 0,
            n_matched: 0,
            margin: f32::INFINITY,
            closest: f32::INFINITY,
            log_ps: Vec::new(),
            n_top1: 0,
        }
    }

    /// Takes in further positions; gives how many of them are right before the first miss.
    fn add(&mut self, next: &[NextToken], truth: &[u32]) -> usize {
        let n_right = next
            .iter()
            .zip(truth)
            .take_while(|(next, truth)| next.predicted == **truth)
            .count();
        self.n_prefix_matched += n_right;
        self.n_matched += n_right;
        for next in next.iter().take(n_right + 1) {
            self.margin = self.margin.min(next.margin);
            self.closest = self.closest.min(next.margin.abs());
        }
        for likelihood in next.iter().filter_map(|next| next.likelihood) {
            self.log_ps.push(-likelihood.surprisal);
            self.n_top1 += usize::from(likelihood.rank == 0);
        }
        n_right
    }

    fn verdict(&self, measures: Measures) -> Verdict {
        // l fits a u16, and no more can match.
        let count = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
        Verdict {
            n_prefix_matched: count(self.n_prefix_matched),
            margin: self.margin,
            closest: self.closest,
            n_matched: measures.score.then(|| count(self.n_matched)),
            likelihood: measures
                .likelihood
                .then(|| self.likelihood(count(self.n_top1))),
        }
    }

    fn likelihood(&self, n_top1: u16) -> Likelihood {
        let sum: f64 = self.log_ps.iter().copied().map(f64::from).sum();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            reason = "at most 65,535 terms; nats, of which f32 holds seven digits"
        )]
        let (surprisal, logp_suffix) = ((-sum / self.log_ps.len() as f64) as f32, sum as f32);
        Likelihood {
            surprisal,
            logp_suffix,
            n_top1,
        }
    }
}
