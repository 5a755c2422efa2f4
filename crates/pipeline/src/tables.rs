//! Every table the program writes: names, columns, types and meanings, in this one place.
//!
//! Other code may not name a column that does not stand here: `pipeline schema` prints it, the README
//! repeats it (a test holds the two together), and each writer checks its columns against it.

mod parquet_file;

pub(crate) use parquet_file::{
    BatchWriter, Footer, read_frame, read_metadata, write_atomically, write_frame,
};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use std::fmt;
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
    version: 1,
    row: "one training sequence of one corpus",
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
            "optimizer step that consumed it, from 0: training_index / batch size",
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
    ],
    sorted_by: &["corpus", "training_index"],
};

/// What the model did: written part by part by the stage `probe`.
pub(crate) const VERDICTS: Table = Table {
    name: "verdicts",
    path: "verdicts/model=…/checkpoint=…/part-*.parquet",
    version: 2,
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
    version: 2,
    row: "one probe of one model at one checkpoint",
    columns: &[
        column("model", Kind::Text, "name of the model in the run file"),
        column("corpus", Kind::Text, "corpus the probe comes from"),
        column(
            "checkpoint",
            Kind::U32,
            "optimizer steps the probed weights were trained for",
        ),
        column(
            "training_index",
            Kind::U32,
            "ordinal in which the trainer consumed the sequence, from 0",
        ),
        column("step", Kind::U32, "optimizer step that consumed it, from 0"),
        column(
            "seen",
            Kind::Flag,
            "the checkpoint has been trained on the sequence: step < checkpoint",
        ),
        column(
            "lag",
            Kind::I32,
            "checkpoint − step, in optimizer steps: 1 is the last batch met; 0 and below are not met yet",
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
    sorted_by: &["model", "corpus", "checkpoint", "training_index"],
};

/// Memorization rate against training time.
pub(crate) const MEMORIZATION_BY_TIME: Table = Table {
    name: "memorization_by_time",
    path: "memorization_by_time.parquet",
    version: 1,
    row: "the probes of one bin of steps, for one model at one checkpoint; a bin that holds the checkpoint gives two rows, one seen and one not",
    columns: &[
        column("model", Kind::Text, "name of the model in the run file"),
        column("corpus", Kind::Text, "corpus the probes come from"),
        column(
            "checkpoint",
            Kind::U32,
            "optimizer steps the probed weights were trained for",
        ),
        column("bin", Kind::U32, "number of the bin, from 0"),
        column("step_lo", Kind::U32, "first step of the row"),
        column("step_hi", Kind::U32, "step after its last one"),
        column(
            "seen",
            Kind::Flag,
            "the checkpoint has been trained on the row's sequences",
        ),
        column("n", Kind::U32, "probes"),
        column("n_memorized", Kind::U32, "memorized ones among them"),
        column("rate", Kind::F64, "n_memorized / n"),
        column(
            "rate_lo",
            Kind::F64,
            "lower end of Wilson's 95 % interval of the rate",
        ),
        column("rate_hi", Kind::F64, "upper end"),
        column("k", Kind::U16, "prompt tokens of the probes"),
        column("l", Kind::U16, "continuation tokens of the probes"),
        column(
            "offset",
            Kind::U16,
            "tokens of the sequence before the prompt",
        ),
    ],
    sorted_by: &["model", "corpus", "checkpoint", "step_lo"],
};

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

/// All tables: those of the stages in the order in which they are written, then those of other commands.
pub(crate) const TABLES: &[&Table] = &[
    &POSITIONS,
    &EXPOSURES_BY_STEP,
    &VERDICTS,
    &MEMORIZATION,
    &MEMORIZATION_BY_TIME,
    &SEQUENCES,
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
        let fields = self.columns.iter().map(|column| {
            let data_type = match column.kind {
                Kind::Text => DataType::Utf8,
                Kind::Flag => DataType::Boolean,
                Kind::U16 => DataType::UInt16,
                Kind::U32 => DataType::UInt32,
                Kind::I32 => DataType::Int32,
                Kind::F32 => DataType::Float32,
                Kind::F64 => DataType::Float64,
                Kind::Tokens => {
                    DataType::List(Arc::new(Field::new("item", DataType::UInt32, false)))
                }
            };
            Field::new(column.name, data_type, column.nullable)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The names of its columns, in file order.
    pub(crate) fn column_names(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).collect()
    }
}

impl Kind {
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
