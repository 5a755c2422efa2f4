//! Every table the program writes: names, columns, types and meanings, in this one place.
//!
//! Other code may not name a column that does not stand here: `pipeline schema` prints it, the README
//! repeats it (a test holds the two together), and each writer checks its columns against it.

mod arrays;
mod checksum;
mod parquet_file;
mod row_reader;
mod slices;
mod staged;

pub(crate) use checksum::{KEY as CHECKSUM, is_ours, verify};
pub(crate) use parquet_file::{BatchWriter, Footer, FrameWriter, read_metadata, read_own};
pub(crate) use row_reader::{RowReader, only_text};
pub(crate) use slices::Slices;
pub(crate) use staged::{
    PARTIAL, Pending, Staged, StagedDataset, parts, prefix, remove_with_empty_folders, stage,
    write_atomically,
};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One table: what `pipeline schema` says of it and what a file of it must hold.
pub(crate) struct Table {
    /// Name, as in `run.json` and the files' metadata.
    pub(crate) name: &'static str,
    /// Where it lies in the output folder.
    pub(crate) path: &'static str,
    /// Raised when a column changes its name, type or meaning.
    pub(crate) version: u32,
    /// What a row is.
    pub(crate) row: &'static str,
    /// In file order.
    pub(crate) columns: &'static [Column],
    /// Rows are in ascending order of these columns.
    pub(crate) sorted_by: &'static [&'static str],
}

/// One column of a [`Table`].
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether a row may have no value here.
    pub(crate) nullable: bool,
    pub(crate) about: &'static str,
}

/// The column types in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Flag,
    U16,
    U32,
    I32,
    F32,
    F64,
    /// A list of u32, none of them null.
    Tokens,
}

/// Where and when: one row per training sequence, written by the stage `plan`.
pub(crate) const POSITIONS: Table = Table {
    name: "positions",
    path: "positions.parquet",
    version: 2,
    row: "one training sequence of one corpus that is probed",
    columns: &[
        column("corpus", Kind::Text, "name of the corpus in the run file"),
        column(
            "training_index",
            Kind::U32,
            "ordinal in which the trainer consumed the sequence, from 0",
        ),
        column(
            "step",
            Kind::U32,
            "optimizer step that consumed it, from 0, or would have: training_index / batch size",
        ),
        column(
            "row",
            Kind::U32,
            "place inside that step's batch: training_index % batch size",
        ),
        nullable(
            "sample",
            Kind::U32,
            "row of GPT-NeoX's `sample_idx`, before `shuffle_idx`; null where the corpus is preshuffled",
        ),
        column(
            "trained",
            Kind::Flag,
            "the run consumed it: step < its number of steps; false of what the loader had made besides",
        ),
        CONTRAST,
        EXPOSURES[0],
        EXPOSURES[1],
        EXPOSURES[2],
        EXPOSURES[3],
        EXPOSURES[4],
        EXPOSURES[5],
        EXPOSURES[6],
        EXPOSURES[7],
    ],
    sorted_by: &["corpus", "training_index"],
};

/// What the model did: written part by part by the stage `probe`.
pub(crate) const VERDICTS: Table = Table {
    name: "verdicts",
    path: "verdicts/model=…/checkpoint=…/part-*.parquet",
    version: 3,
    row: "one probe of one model at one checkpoint; model and checkpoint stand in the path (hive layout)",
    columns: &[
        column("corpus", Kind::Text, "corpus the probe comes from"),
        column(
            "training_index",
            Kind::U32,
            "training index of the sequence the probe is cut from",
        ),
        column(
            "n_prefix_matched",
            Kind::U16,
            "leading continuation tokens that greedy decoding gets right, 0 … l",
        ),
        column(
            "memorized",
            Kind::Flag,
            "all l continuation tokens are right",
        ),
        MARGIN,
        NEAR_TIE,
        N_MATCHED,
        SURPRISAL,
        LOGP_SUFFIX,
        N_TOP1,
    ],
    sorted_by: &["corpus", "training_index"],
};

/// Positions and verdicts joined.
pub(crate) const MEMORIZATION: Table = Table {
    name: "memorization",
    path: "memorization.parquet",
    version: 3,
    row: "one probe of one model at one checkpoint. A run of more than 16,777,216 probes, or one whose run file says so, writes a folder `memorization/model=…/checkpoint=…/part-CORPUS.parquet` instead, with model and checkpoint in the path (hive layout)",
    columns: &[
        MODEL,
        CORPUS,
        CHECKPOINT,
        column(
            "training_index",
            Kind::U32,
            "ordinal in which the trainer consumed the sequence, from 0",
        ),
        column("step", Kind::U32, "optimizer step that consumed it, from 0"),
        column(
            "trained",
            Kind::Flag,
            "the corpus' training run reached the sequence; false for samples beyond its end",
        ),
        nullable(
            "seen",
            Kind::Flag,
            "the checkpoint has been trained on the sequence: step < checkpoint; null where the model was trained on another corpus, like the next",
        ),
        nullable(
            "lag",
            Kind::I32,
            "checkpoint − step, in optimizer steps: 1 is the last batch met; 0 and below are not met yet",
        ),
        CONTRAST,
        nullable(
            "n_prefix_matched",
            Kind::U16,
            "leading continuation tokens that greedy decoding gets right, 0 … l; null where foreign verdicts do not say, like the next",
        ),
        nullable(
            "memorized",
            Kind::Flag,
            "all l continuation tokens are right",
        ),
        nullable("margin", Kind::F32, MARGIN.about),
        nullable("near_tie", Kind::Flag, NEAR_TIE.about),
        N_MATCHED,
        SURPRISAL,
        LOGP_SUFFIX,
        N_TOP1,
        nullable(
            "learning_rate",
            Kind::F32,
            "learning rate of the optimizer step that consumed the sequence, by GPT-NeoX's schedule (warm-up, then cosine); null where `seen` is, and for models that the registry does not know",
        ),
        EXPOSURES[0],
        EXPOSURES[1],
        EXPOSURES[2],
        EXPOSURES[3],
        EXPOSURES[4],
        EXPOSURES[5],
        EXPOSURES[6],
        EXPOSURES[7],
    ],
    sorted_by: &["model", "corpus", "checkpoint", "training_index"],
};

/// Memorization rate against training time.
pub(crate) const MEMORIZATION_BY_TIME: Table = Table {
    name: "memorization_by_time",
    path: "memorization_by_time.parquet",
    version: 2,
    row: "the probes of one bin of steps and one exposure stratum, for one model at one checkpoint; a bin that holds the checkpoint gives two rows, one seen and one not",
    columns: &[
        MODEL,
        CORPUS,
        CHECKPOINT,
        column(
            "exposures",
            Kind::Text,
            "`all`, or an exposure stratum by how often the probe's text stands in the training run, itself included: `1`, `2-5` and `>5`, or as the run file says",
        ),
        column("bin", Kind::U32, "number of the bin, from 0"),
        column("step_lo", Kind::U32, "first step of the row"),
        column("step_hi", Kind::U32, "step after its last one"),
        nullable(
            "seen",
            Kind::Flag,
            "the checkpoint has been trained on the row's sequences; null where the model was trained on another corpus",
        ),
        column("n", Kind::U32, "probes"),
        column("n_memorized", Kind::U32, "memorized ones among them"),
        column("rate", Kind::F64, "n_memorized / n"),
        column(
            "rate_lo",
            Kind::F64,
            "lower end of the 95 % interval of the rate: Wilson's, or the exact one where the run file says so",
        ),
        column("rate_hi", Kind::F64, "upper end"),
        K,
        L,
        OFFSET,
        SUITE,
        SEED,
    ],
    sorted_by: &["model", "corpus", "checkpoint", "exposures", "step_lo"],
};

/// The answer: memorization against training time, in one row for each model, checkpoint and stratum.
pub(crate) const TREND: Table = Table {
    name: "trend",
    path: "trend.parquet",
    version: 1,
    row: "a stratum of the probes of one model at one checkpoint. Null is what cannot be said: slopes without a hit, or with hits in one bin only, quasi-Poisson errors of two bins, and direction and equivalence of a row that mixes seen and unseen. A column `tost_p_…` for each further margin of the run file stands after the last",
    columns: &[
        MODEL,
        CORPUS,
        CHECKPOINT,
        STRATUM,
        column(
            "step_lo",
            Kind::U32,
            "first probed step: where the observed window begins",
        ),
        column(
            "step_hi",
            Kind::U32,
            "step after the last probed one: where it ends",
        ),
        column("n", Kind::U32, "probes"),
        column("n_memorized", Kind::U32, "memorized ones among them"),
        column(
            "n_bins",
            Kind::U32,
            "K, the bins of equally many steps that the slope is fitted to: 143, or fewer where they would hold fewer than 5 memorized probes each, but 10",
        ),
        nullable(
            "slope",
            Kind::F64,
            "change of ln(rate) from the beginning of the window to its end: Poisson regression on the bins' middles, offset ln(probes)",
        ),
        nullable(
            "slope_se",
            Kind::F64,
            "its standard error if counts are Poisson",
        ),
        nullable(
            "slope_se_quasi",
            Kind::F64,
            "the same times √(Pearson's χ² / (K − 2)): quasi-Poisson",
        ),
        nullable("slope_se_hc1", Kind::F64, "sandwich estimate over the bins"),
        nullable(
            "slope_nb",
            Kind::F64,
            "the slope by negative binomial regression",
        ),
        nullable(
            "nb_alpha",
            Kind::F64,
            "its variance is μ + alpha · μ²; 0: Poisson is likelier than any",
        ),
        nullable(
            "slope_clustered_se",
            Kind::F64,
            "clustered by step: how far the slopes go that are found without one step each (the jackknife, to second order)",
        ),
        nullable(
            "rate_ratio",
            Kind::F64,
            "rate in the second half of the window over that in the first",
        ),
        nullable(
            "rate_ratio_lo",
            Kind::F64,
            "lower end of its exact 95 % interval for independent hits (Clopper and Pearson's of the later half's share of hits)",
        ),
        nullable("rate_ratio_hi", Kind::F64, "upper end; null: unbounded"),
        nullable(
            "first_decile_ratio",
            Kind::F64,
            "rate in the first tenth of the window over that in the rest",
        ),
        nullable(
            "last_5_percent_ratio",
            Kind::F64,
            "rate in the last twentieth of the window over that in the rest",
        ),
        nullable(
            "excess_ratio",
            Kind::F64,
            "(rate in the second half − rate of the unseen) / (rate in the first half − rate of the unseen); of `seen` where unseen sequences were probed, too",
        ),
        nullable(
            "excess_ratio_lo",
            Kind::F64,
            "lower end of Fieller's 95 % interval; null where no bounded one covers",
        ),
        nullable("excess_ratio_hi", Kind::F64, "upper end"),
        nullable(
            "tost_p_1.05",
            Kind::F64,
            "p of two one-sided tests that `rate_ratio` is outside 1/1.05 … 1.05: small where early and late are the same within 5 %",
        ),
        nullable("tost_p_1.10", Kind::F64, "the same for 1.10"),
        nullable(
            "mde",
            Kind::F64,
            "smallest slope, up or down, that would be found in 80 % of all cases: the larger of t₀.₉₇₅ + t₀.₈ times the quasi-Poisson error, with t(K − 2), and times the clustered error, with t(steps − 2)",
        ),
        nullable(
            "q_bh",
            Kind::F64,
            "Benjamini and Hochberg's q of slope = 0; the family is fixed: stratum `seen` of every model at its last checkpoint. Other rows are exploratory, and null",
        ),
        nullable(
            "direction",
            Kind::Text,
            "`later_more`, `later_less` or `none`, by the wider of the slope's 95 % intervals: quasi-Poisson with t(K − 2), and clustered with t(steps − 2)",
        ),
        nullable(
            "equivalence",
            Kind::Text,
            "`within_1.05`, `within_1.10` or `not_shown`: the tightest margin whose p is below 0.05 when the error behind `tost_p` is multiplied as the larger of those two errors is over `slope_se`, where it is larger: hits may come in bunches",
        ),
        nullable("conclusion", Kind::Text, "both as a sentence; of `seen`"),
        K,
        L,
        OFFSET,
        SUITE,
        SEED,
    ],
    sorted_by: &["model", "corpus", "checkpoint"],
};

/// The continuous outcome against time: surprisal, raw and beside another model's.
pub(crate) const SURPRISAL_TREND: Table = Table {
    name: "surprisal_trend",
    path: "surprisal_trend.parquet",
    version: 1,
    row: "a stratum of the probes of one model at one checkpoint whose surprisal was taken; or of those that a reference model of the same checkpoint was asked, too, with the reference's surprisal taken off, as Kuditipudi et al. 2025 do. Exploratory",
    columns: &[
        MODEL,
        CORPUS,
        CHECKPOINT,
        nullable(
            "reference",
            Kind::Text,
            "model whose surprisal of the same probes is taken off; null: none",
        ),
        column("stratum", Kind::Text, "`all`, `seen` or `unseen`"),
        column("n", Kind::U32, "probes"),
        nullable(
            "rho",
            Kind::F64,
            "Spearman's ρ of surprisal and training index: negative where later sequences are known better; null where all are equal, like all that follows",
        ),
        nullable("rho_p", Kind::F64, "its two-sided p by t(n − 2)"),
        nullable(
            "rho_p_permutation",
            Kind::F64,
            "its p by permutations, exact under a shuffled order: (1 + those with a ρ as far from 0) / (1 + all)",
        ),
        nullable(
            "slope",
            Kind::F64,
            "least squares: change of the surprisal, in nats a token, from the beginning of the window to its end",
        ),
        nullable("slope_se", Kind::F64, "its standard error"),
        nullable(
            "slope_se_hc1",
            Kind::F64,
            "the same where variances differ: the sandwich estimate HC1",
        ),
        nullable(
            "slope_p",
            Kind::F64,
            "two-sided p of slope = 0 by t(n − 2) and `slope_se`",
        ),
        K,
        L,
        OFFSET,
        SUITE,
        SEED,
    ],
    sorted_by: &["model", "corpus", "checkpoint"],
};

/// The same probes under the model of their corpus and under another's.
pub(crate) const CORPUS_CONTRAST: Table = Table {
    name: "corpus_contrast",
    path: "corpus_contrast.parquet",
    version: 1,
    row: "an exposure stratum of the probes that two models were asked at the same checkpoint, one trained on the probes' corpus and the other on another",
    columns: &[
        column("model", Kind::Text, "model that was trained on the corpus"),
        column(
            "other",
            Kind::Text,
            "model that was trained on another corpus",
        ),
        CORPUS,
        CHECKPOINT,
        column(
            "exposures",
            Kind::Text,
            "`all`, or an exposure stratum as in `memorization_by_time`",
        ),
        column("n", Kind::U32, "probes that both were asked"),
        column("n_memorized", Kind::U32, "memorized by `model`"),
        column("n_memorized_other", Kind::U32, "memorized by `other`"),
        column("n_memorized_both", Kind::U32, "memorized by both"),
        column("rate", Kind::F64, "n_memorized / n"),
        column("rate_other", Kind::F64, "n_memorized_other / n"),
        nullable(
            "rate_ratio",
            Kind::F64,
            "rate_other / rate; null where one of them is 0, like its interval",
        ),
        nullable(
            "rate_ratio_lo",
            Kind::F64,
            "lower end of its 95 % interval for paired probes (Wald's on ln ratio; Fagerland, Lydersen and Laake 2014)",
        ),
        nullable("rate_ratio_hi", Kind::F64, "upper end"),
        K,
        L,
        OFFSET,
        SUITE,
        SEED,
    ],
    sorted_by: &["model", "other", "corpus", "checkpoint"],
};

/// Tests of when the memorized were met against the uniform distribution.
pub(crate) const UNIFORMITY: Table = Table {
    name: "uniformity",
    path: "uniformity.parquet",
    version: 1,
    row: "a stratum of the probes of one model at one checkpoint. Times of the memorized are the share of the stratum's probes before them. With many hits every test rejects: read the sizes in `trend` first",
    columns: &[
        MODEL,
        CORPUS,
        CHECKPOINT,
        STRATUM,
        column("n_memorized", Kind::U32, "memorized probes"),
        nullable(
            "ks_d",
            Kind::F64,
            "Kolmogorov and Smirnov's D; null without a memorized probe, like all that follows",
        ),
        nullable("ks_p", Kind::F64, "its p"),
        nullable("cvm_w2", Kind::F64, "Cramér and von Mises' W²"),
        nullable("cvm_p", Kind::F64, "its p"),
        nullable("ad_a2", Kind::F64, "Anderson and Darling's A²"),
        nullable(
            "laplace_u",
            Kind::F64,
            "Laplace's U: standard normal; positive where the memorized were met late",
        ),
        nullable("laplace_p", Kind::F64, "its two-sided p"),
        nullable(
            "mil_p",
            Kind::F64,
            "two-sided p of the test of MIL-HDBK-189: 2 Σ ln(1/time), χ² with 2n degrees of freedom",
        ),
        nullable(
            "mann_kendall_tau",
            Kind::F64,
            "Kendall's τ of the bins' rates with time; bins as in `trend`",
        ),
        nullable(
            "mann_kendall_p",
            Kind::F64,
            "its two-sided p, normal with ties",
        ),
        nullable(
            "dispersion",
            Kind::F64,
            "variance of the bins' counts over that of Bernoulli hits with one rate; 1 where time plays no part",
        ),
        nullable(
            "dispersion_p",
            Kind::F64,
            "its two-sided p by χ² with K − 1 degrees of freedom",
        ),
        K,
        L,
        OFFSET,
        SUITE,
        SEED,
    ],
    sorted_by: &["model", "corpus", "checkpoint"],
};

/// What the published figure plots.
pub(crate) const QUANTILES: Table = Table {
    name: "quantiles",
    path: "quantiles.parquet",
    version: 1,
    row: "one point of the published quantile plot (Biderman et al. 2023, 3.2) of one model at one checkpoint: counts of memorized probes in windows of 512 seen ones, sorted, against Poisson quantiles. Such a plot sorts time away and sees next to no trend: `trend` does",
    columns: &[
        MODEL,
        CORPUS,
        CHECKPOINT,
        column("mean", Kind::F64, "mean count of all windows"),
        column(
            "poisson_quantile",
            Kind::U32,
            "quantile of i / (m + 1) of the Poisson distribution with this mean, for window i of m",
        ),
        column("count", Kind::U32, "memorized probes of the window"),
        column("n_windows", Kind::U32, "windows at this point"),
        K,
        L,
        OFFSET,
        SUITE,
        SEED,
    ],
    sorted_by: &["model", "corpus", "checkpoint", "poisson_quantile", "count"],
};

/// The folders of the output folder `out` where parts of verdicts lie, and files of a dataset `memorization`.
pub(crate) fn part_folders(out: &Path) -> Vec<PathBuf> {
    let datasets = [VERDICTS.name, MEMORIZATION.name].into_iter();
    datasets
        .flat_map(|name| hive_folders(&out.join(name)))
        .collect()
}

/// The innermost folders of a dataset in hive layout.
fn hive_folders(folder: &Path) -> Vec<PathBuf> {
    let named = |folder: &Path, key: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let wanted = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(key));
        wanted.map(|entry| entry.path()).collect()
    };
    let models = named(folder, "model=").into_iter();
    models
        .flat_map(|model| named(&model, "checkpoint="))
        .collect()
}

/// Where `memorization` lies when it is too large for one file.
pub(crate) fn memorization_folder(out: &Path) -> PathBuf {
    out.join(MEMORIZATION.name)
}

/// How often documents had been met, written by the stage `plan`.
pub(crate) const EXPOSURES_BY_STEP: Table = Table {
    name: "exposures_by_step",
    path: "exposures_by_step.parquet",
    version: 1,
    row: "one number of exposures at one point of the training run: at every end of a bin of steps, and at every checkpoint of the corpus' models; none where the corpus is preshuffled",
    columns: &[
        column("corpus", Kind::Text, "name of the corpus in the run file"),
        column("checkpoint", Kind::U32, "optimizer steps trained"),
        column(
            "exposures",
            Kind::U32,
            "how often a document had been met: copies whose first token was an input at a step < checkpoint",
        ),
        column("n_documents", Kind::U32, "documents met exactly so often"),
        column("share", Kind::F64, "n_documents / all documents"),
    ],
    sorted_by: &["corpus", "checkpoint", "exposures"],
};

/// Tokens of whole sequences, as `inspect batch --save` writes them.
pub(crate) const SEQUENCES: Table = Table {
    name: "sequences",
    path: "inspect batch --save FILE.parquet",
    version: 1,
    row: "one training sequence",
    columns: &[
        column(
            "training_index",
            Kind::U32,
            "ordinal in which the trainer consumed the sequence, from 0",
        ),
        column("step", Kind::U32, "optimizer step that consumed it, from 0"),
        column("row", Kind::U32, "place inside that step's batch"),
        column(
            "tokens",
            Kind::Tokens,
            "its token ids, one more than the context length",
        ),
    ],
    sorted_by: &["training_index"],
};

/// Tokens of the probes, as `plan --export-tokens` writes them.
pub(crate) const PROBES: Table = Table {
    name: "probes",
    path: "plan --export-tokens FILE.parquet",
    version: 1,
    row: "one probe",
    columns: &[
        column("corpus", Kind::Text, "corpus the probe comes from"),
        column(
            "training_index",
            Kind::U32,
            "training index of the sequence the probe is cut from",
        ),
        column(
            "tokens",
            Kind::Tokens,
            "its k + l token ids: the prompt, then the true continuation; k and l stand in the metadata",
        ),
    ],
    sorted_by: &["corpus", "training_index"],
};

/// All tables: those of the stages in the order in which they are written, then those of other commands.
pub(crate) const TABLES: &[&Table] = &[
    &POSITIONS,
    &EXPOSURES_BY_STEP,
    &VERDICTS,
    &MEMORIZATION,
    &MEMORIZATION_BY_TIME,
    &TREND,
    &SURPRISAL_TREND,
    &CORPUS_CONTRAST,
    &UNIFORMITY,
    &QUANTILES,
    &SEQUENCES,
    &PROBES,
];

const MODEL: Column = column("model", Kind::Text, "name of the model in the run file");
const CORPUS: Column = column("corpus", Kind::Text, "corpus the probes come from");
const CHECKPOINT: Column = column(
    "checkpoint",
    Kind::U32,
    "optimizer steps the probed weights were trained for",
);
const STRATUM: Column = column(
    "stratum",
    Kind::Text,
    "`all`; `seen` and `unseen` by the checkpoint, none of which there is where the model was trained on another corpus; and, within `seen`, exposure strata by how often the probe's text stands in the training run, itself included: `1`, `2-5` and `>5`, or as the run file says",
);
const K: Column = column("k", Kind::U16, "prompt tokens of the probes");
const L: Column = column("l", Kind::U16, "continuation tokens of the probes");
const OFFSET: Column = column(
    "offset",
    Kind::U16,
    "tokens of the sequence before the prompt",
);
const SUITE: Column = column("suite", Kind::Text, "what the models belong to");
const SEED: Column = column("seed", Kind::U32, "seed of the corpus' data loader");
const CONTRAST: Column = column(
    "contrast",
    Kind::Flag,
    "the probe is one of the corpus' contrast: several models are asked it, with its likelihood",
);
/// How often the run meets the probe's text; all null where the run file does not ask for exposures.
const EXPOSURES: [Column; 8] = [
    nullable(
        "exposures_before",
        Kind::U32,
        "how often the probe's k + l tokens stand in sequences of earlier steps of its corpus' training run, at any offset; this and the next are null where the run file does not ask for `exposures`",
    ),
    nullable("exposures_after", Kind::U32, "the same for later steps"),
    nullable(
        "exposures_same_step",
        Kind::U32,
        "the same for its own step, without the probe itself",
    ),
    nullable(
        "starts_before",
        Kind::U32,
        "those of `exposures_before` that begin a sequence",
    ),
    nullable(
        "starts_after",
        Kind::U32,
        "those of `exposures_after` that begin a sequence",
    ),
    nullable(
        "nearest_exposure",
        Kind::U32,
        "step of the other occurrence that is nearest in steps, the earlier of two; null without one",
    ),
    nullable(
        "copies_before",
        Kind::U32,
        "how often earlier steps met the probe's first token in another epoch's copy of its document; null where the corpus is preshuffled, which no longer says what it is cut from",
    ),
    nullable("copies_after", Kind::U32, "the same for later steps"),
];
const MARGIN: Column = column(
    "margin",
    Kind::F32,
    "smallest logit of the truth − highest other, up to the first miss or over all l; negative where there is a miss",
);
const NEAR_TIE: Column = column(
    "near_tie",
    Kind::Flag,
    "one of these margins is nearer to 0 than `probe.near-tie`, so that rounding might decide; with `probe.recheck` the verdict is then that of f32",
);
const N_MATCHED: Column = nullable(
    "n_matched",
    Kind::U16,
    "continuation tokens that greedy decoding gets right at their places, after a miss too; null without the measure `score`",
);
const SURPRISAL: Column = nullable(
    "surprisal",
    Kind::F32,
    "mean of −ln p over the continuation tokens, in nats; null without the measure `likelihood`, like the next two",
);
const LOGP_SUFFIX: Column = nullable(
    "logp_suffix",
    Kind::F32,
    "ln of the probability of the whole continuation, given the prompt",
);
const N_TOP1: Column = nullable(
    "n_top1",
    Kind::U16,
    "continuation tokens that are the likeliest, given the true tokens before",
);

const fn nullable(name: &'static str, kind: Kind, about: &'static str) -> Column {
    Column {
        name,
        kind,
        nullable: true,
        about,
    }
}

const fn column(name: &'static str, kind: Kind, about: &'static str) -> Column {
    Column {
        name,
        kind,
        nullable: false,
        about,
    }
}

impl Table {
    /// The Arrow schema of a file of this table.
    pub(crate) fn arrow_schema(&self) -> SchemaRef {
        let fields = self
            .columns
            .iter()
            .map(|column| Field::new(column.name, column.kind.arrow_type(), column.nullable));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The names of its columns, in file order.
    pub(crate) fn column_names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).collect()
    }
}

impl Kind {
    /// The type of a column in a file.
    pub(crate) fn arrow_type(self) -> DataType {
        match self {
            Self::Text => DataType::Utf8,
            Self::Flag => DataType::Boolean,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::I32 => DataType::Int32,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::Tokens => DataType::List(Arc::new(Field::new("item", DataType::UInt32, false))),
        }
    }

    /// The type of a column in memory.
    pub(crate) fn polars_type(self) -> polars::prelude::DataType {
        use polars::prelude::DataType;
        match self {
            Self::Text => DataType::String,
            Self::Flag => DataType::Boolean,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::I32 => DataType::Int32,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
            Self::Tokens => DataType::List(Box::new(DataType::UInt32)),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "### `{}`, version {}", self.path, self.version)?;
        writeln!(f)?;
        writeln!(
            f,
            "A row is {}. Sorted by {}.",
            self.row,
            self.sorted_by.join(", ")
        )?;
        writeln!(f)?;
        writeln!(f, "| column | type | meaning |")?;
        writeln!(f, "| --- | --- | --- |")?;
        for column in self.columns {
            let null = if column.nullable { ", nullable" } else { "" };
            writeln!(
                f,
                "| `{}` | {}{null} | {} |",
                column.name, column.kind, column.about
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "string",
            Self::Flag => "bool",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Tokens => "list of u32",
        })
    }
}
