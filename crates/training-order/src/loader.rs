//! How many samples GPT-NeoX's loader asks for, and of which items.
//!
//! Source: `megatron/data/data_utils.py` (`build_train_valid_test_data_iterators`,
//! `get_train_valid_test_split_`, `get_normalized_weights_and_num_samples`).

use std::fmt;
use std::ops::Range;

/// Which of a corpus' items are for training, as the run's configuration says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Items {
    /// `train-data-paths`: all items, and half a percent more samples than the run needs. All of Pythia.
    TrainDataPaths,
    /// `data-path`: the first part of a split, and exactly as many samples as the run needs.
    DataPath {
        /// The configuration's `split`.
        split: Split,
    },
}

/// One of the three datasets of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Part {
    Training = 0,
    Validation = 1,
    Test = 2,
}

/// The configuration's `split`: how the items are shared among training, validation and test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Split {
    /// Not negative, with a sum above zero.
    shares: [f64; 3],
}

/// Why a text is no split.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no split: one to three numbers such as `969, 30, 1`, not negative and not all zero"
)]
pub struct SplitError {
    text: String,
}

/// How often a run stops to evaluate, and for how many batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation {
    /// Steps from one evaluation to the next, at least 1.
    pub interval: u32,
    /// Batches of one evaluation.
    pub iters: u32,
}

impl Items {
    /// The items of one part among `n_items`.
    pub fn of(&self, part: Part, n_items: u64) -> Range<u64> {
        match self {
            Self::TrainDataPaths => 0..n_items,
            Self::DataPath { split } => split.ranges(n_items)[part as usize].clone(),
        }
    }

    /// The samples asked of a dataset so that it can serve its share of `n_sequences`; 1 for a lone dataset.
    pub fn n_samples(&self, n_sequences: u64, share: f64) -> u64 {
        match self {
            Self::DataPath { .. } => n_sequences,
            Self::TrainDataPaths => {
                // The reference computes this in binary64, from left to right.
                #[expect(clippy::cast_precision_loss, reason = "the reference loses it, too")]
                let margin = (n_sequences as f64 * share * 1.005).ceil();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a ceiling, not negative"
                )]
                let n_samples = margin as u64;
                n_samples
            }
        }
    }
}

/// Sequences wanted for training, validation and test by a run of `n_steps` steps of `batch_size`.
pub fn n_sequences_wanted(n_steps: u32, batch_size: u32, evaluation: Evaluation) -> [u64; 3] {
    let batch_size = u64::from(batch_size);
    let n_evaluations = u64::from(n_steps / evaluation.interval.max(1)) + 1;
    let iters = u64::from(evaluation.iters);
    [
        u64::from(n_steps) * batch_size,
        n_evaluations * iters * batch_size,
        iters * batch_size,
    ]
}

impl std::str::FromStr for Split {
    type Err = SplitError;

    /// Reads `969, 30, 1` or `969/30/1`; missing parts are 0, those after the third are ignored.
    fn from_str(text: &str) -> Result<Self, SplitError> {
        let wrong = || SplitError {
            text: text.to_owned(),
        };
        let separator = if text.contains(',') { ',' } else { '/' };
        let mut shares = [0.0; 3];
        for (place, part) in text.split(separator).enumerate() {
            let share: f64 = part.trim().parse().map_err(|_| wrong())?;
            if !share.is_finite() || share < 0.0 {
                return Err(wrong());
            }
            if let Some(slot) = shares.get_mut(place) {
                *slot = share;
            }
        }
        if shares.iter().sum::<f64>() > 0.0 {
            Ok(Self { shares })
        } else {
            Err(wrong())
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [training, validation, test] = self.shares;
        write!(f, "{training}, {validation}, {test}")
    }
}

impl Split {
    /// The items of training, validation and test among `n_items`.
    ///
    /// Each share is rounded half to even; what the roundings are off by moves every boundary, not only the
    /// last.
    pub fn ranges(&self, n_items: u64) -> [Range<u64>; 3] {
        let sum: f64 = self.shares.iter().sum();
        let mut bounds = [0_i64; 4];
        for (place, share) in self.shares.iter().enumerate() {
            #[expect(clippy::cast_precision_loss, reason = "the reference loses it, too")]
            let items = (share / sum * n_items as f64).round_ties_even();
            #[expect(
                clippy::cast_possible_truncation,
                reason = "a whole number of at most n_items"
            )]
            let items = items as i64;
            bounds[place + 1] = bounds[place] + items;
        }
        // A file has fewer than 2⁶³ items.
        let slack = bounds[3].saturating_sub_unsigned(n_items);
        // A part without a share may end before the first item, and is empty.
        let bound = |place: usize| match place {
            0 => 0,
            _ => (bounds[place] - slack).max(0).unsigned_abs(),
        };
        [0, 1, 2].map(|place| bound(place)..bound(place + 1).max(bound(place)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(split: &str, n_items: u64, expected: &[Range<u64>; 3]) {
        assert_eq!(
            split.parse::<Split>().unwrap().ranges(n_items),
            *expected,
            "{split} of {n_items}"
        );
    }

    #[test]
    fn rounding_moves_every_boundary() {
        // The shares are 145.35, 4.5 and 0.15: 145 + 4 + 0 is one too few.
        check("969,30,1", 150, &[0..146, 146..150, 150..150]);
        check("969, 30, 1", 600, &[0..581, 581..599, 599..600]);
        check("1", 31, &[0..31, 31..31, 31..31]);
        check("1/1", 10, &[0..5, 5..10, 10..10]);
    }

    #[test]
    fn what_is_no_split_is_refused() {
        for text in ["", "a", "1,,1", "-1,2", "0,0,0", "nan", "inf"] {
            assert!(text.parse::<Split>().is_err(), "{text}");
        }
    }

    #[test]
    fn pythia_asks_for_the_samples_in_its_file_names() {
        // `pile_20B_tokenizer_text_document_train_0_indexmap_147164160ns_2048sl_1234s_shuffle_idx.npy`
        assert_eq!(
            Items::TrainDataPaths.n_samples(143_000 * 1024, 1.0),
            147_164_160
        );
    }
}
