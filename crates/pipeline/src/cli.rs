//! The command line: types only; their doc comments are the manual.

use crate::log::Verbosity;
use crate::shard::Shard;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ops::Range;
use std::path::PathBuf;

/// Is a training sequence more likely to be memorized the later the model met it?
///
/// Without a command: runs `pipelines/mini.toml`, found from the current directory upward. Its tables are
/// written to `out/mini`.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) options: RunOptions,
    /// How much is said on stderr and in the log: `off`, `error`, `warn`, `info`, `debug` or `trace`. Without it `RUST_LOG` says,
    /// and without that warnings are shown and what is done is logged.
    #[arg(long, value_name = "LEVEL", global = true)]
    pub(crate) log: Option<Verbosity>,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a run file: order, probes, join, analysis.
    Run {
        /// The run file; `pipelines/README.md` documents its keys.
        file: PathBuf,
        #[command(flatten)]
        options: RunOptions,
    },
    /// Writes which sequences are probed, and says what that takes and could show, before anything is spent.
    Plan {
        /// The run file.
        file: PathBuf,
        #[command(flatten)]
        options: PlanOptions,
    },
    /// Checks a run file and reads every input it names, without running; reports all problems at once.
    Check {
        /// The run file.
        file: PathBuf,
        /// Output folder, instead of the run file's `out`.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Device, instead of the run file's `device`: `cpu`, `cuda:N` or `vulkan:N`.
        #[arg(long)]
        device: Option<String>,
        /// Hashes every input whole, not only blocks of the large ones; what came from the hub must have its hash.
        #[arg(long)]
        full_hash: bool,
    },
    /// Compares the tensors of all checkpoints: equal weights, tensors of another checkpoint, distances out of line.
    Audit {
        /// The run file; its corpora are not opened.
        file: PathBuf,
    },
    /// Recomputes the analysis from a table `memorization` alone, without model or corpus.
    Analyse {
        /// A run file, the output folder of a run, or a `memorization.parquet`.
        path: PathBuf,
        /// Where to write the tables, instead of beside `memorization`.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Shows how far a run is, whether it runs or was stopped.
    Status {
        /// Its output folder.
        out: PathBuf,
    },
    /// Writes a script that does a run as Slurm jobs: the plan, an array of shards, the tables.
    Slurm {
        /// The run file.
        file: PathBuf,
        #[command(flatten)]
        options: SlurmOptions,
    },
    /// Shows what the model was trained on: positions, documents, tokens, text.
    Inspect(InspectOptions),
    /// Lists the published models of the Pythia suite, or shows all that is known of one.
    Suite(SuiteOptions),
    /// Prints the tables' columns, types and meanings.
    Schema {
        /// Prints the keys of a run file instead.
        #[arg(long)]
        run_file: bool,
    },
}

/// How a run differs from its file.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct RunOptions {
    /// Output folder, instead of the run file's `out`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Device, instead of the run file's `device`: `cpu`, `cuda:N` or `vulkan:N`.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Runs one stage only, on what the earlier ones have left.
    #[arg(long, value_name = "STAGE")]
    pub(crate) only: Option<Stage>,
    /// Discards what an earlier run has left in the output folder, instead of resuming it.
    #[arg(long, conflicts_with = "shard")]
    pub(crate) fresh: bool,
    /// Says what `check` and `plan` say, and neither runs nor writes anything.
    #[arg(long, conflicts_with_all = ["fresh", "only"])]
    pub(crate) dry_run: bool,
    /// Hashes every input whole, not only blocks of the large ones, and notes that in `run.json`.
    #[arg(long)]
    pub(crate) full_hash: bool,
    /// Probes the `i`-th of `n` shares of the parts, 0 ≤ i < n, and plans before where that is not done; the tables are for a
    /// run without it. `slurm`, or no value: the task of a Slurm job array says which.
    #[arg(long, value_name = "I/N", num_args = 0..=1, default_missing_value = "slurm")]
    pub(crate) shard: Option<Shard>,
    /// Goes on with other parts when one fails, and says in the end which failed.
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Which of the processes this is that a run with several devices has started.
    #[arg(long, hide = true, requires = "only")]
    pub(crate) worker: Option<Shard>,
}

/// How a plan is made.
#[derive(Debug, Args)]
pub(crate) struct PlanOptions {
    /// Output folder, instead of the run file's `out`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Also writes the probes' tokens, for other programs.
    #[arg(long, value_name = "FILE.parquet")]
    pub(crate) export_tokens: Option<PathBuf>,
    /// Reckons with so many probes in a second, for every model.
    #[arg(long, value_name = "N")]
    pub(crate) probes_per_second: Option<f64>,
}

/// How a run becomes Slurm jobs.
#[derive(Debug, Args)]
pub(crate) struct SlurmOptions {
    /// Tasks of the job array.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) shards: u32,
    /// Output folder, instead of the run file's `out`.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Where to write the script, instead of `slurm` in the output folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
}

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// When was each sequence trained on? Writes positions and exposures by step.
    Plan,
    /// What does the model continue with? Writes verdicts.
    Probe,
    /// Positions and verdicts together. Writes memorization.
    Join,
    /// Is a sequence met late more likely to be memorized? Writes the tables that say so.
    Analyse,
}

impl Stage {
    /// What `--only` calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Probe => "probe",
            Self::Join => "join",
            Self::Analyse => "analyse",
        }
    }
}

/// Which models to list.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct SuiteOptions {
    #[command(subcommand)]
    pub(crate) command: Option<SuiteCommand>,
    /// Only a series: `v1`, `v0` or `polypythias`.
    #[arg(long)]
    pub(crate) series: Option<String>,
    /// Only a size, such as `410m`.
    #[arg(long)]
    pub(crate) size: Option<String>,
    /// Only those trained on a corpus: `pile` or `pile-deduped`.
    #[arg(long)]
    pub(crate) corpus: Option<String>,
}

/// One of them.
#[derive(Debug, Subcommand)]
pub(crate) enum SuiteCommand {
    /// All that is known of a model.
    Show {
        /// Its name, such as `pythia-70m-deduped`; old names are understood.
        name: String,
    },
}

/// What to show.
#[derive(Debug, Args)]
pub(crate) struct InspectOptions {
    #[command(subcommand)]
    pub(crate) what: Inspected,
    /// The run file that names the corpus; without it, `pipelines/mini.toml` from the current directory upward.
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) file: Option<PathBuf>,
    /// Corpus, by its name in the run file; needed where there are several.
    #[arg(long, global = true)]
    pub(crate) corpus: Option<String>,
}

/// A sequence, a batch or a document.
#[derive(Debug, Subcommand)]
pub(crate) enum Inspected {
    /// One sequence: its position, its documents, its tokens and its text.
    Sequence {
        /// Ordinal in which the trainer consumed it, from 0.
        training_index: u32,
    },
    /// The sequences of one optimizer step, or of several.
    Batch {
        /// The step, from 0; the checkpoint `stepN` has seen the batches 0 to N − 1.
        #[arg(required_unless_present = "steps")]
        step: Option<u32>,
        /// Steps instead, half-open: `0..10` is the first ten.
        #[arg(long, value_name = "A..B", value_parser = parse_steps, conflicts_with = "step")]
        steps: Option<Range<u32>>,
        /// Writes the tokens to a file instead: `.npy`, `[sequences, tokens]`, or `.parquet`, a row a sequence.
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// A document: its text, and every sequence of the training run that holds a piece of it.
    Document {
        /// Its number: the item of the `.idx`, from 0.
        document: u64,
        /// In a mixture: the dataset it belongs to, by its place in the run file, from 0.
        #[arg(long, default_value_t = 0)]
        member: usize,
    },
}

/// `A..B`
fn parse_steps(text: &str) -> Result<Range<u32>, String> {
    let ends = text
        .split_once("..")
        .and_then(|(a, b)| Some(a.parse().ok()?..b.parse().ok()?));
    ends.filter(|steps| !steps.is_empty())
        .ok_or_else(|| "two steps with the first below the second, such as `0..10`".to_owned())
}
