//! Every key of a run file, with its meaning: what `pipelines/README.md` repeats.

/// One key of a run file.
pub(crate) struct Key {
    /// Tables and key, joined by dots; tables in double brackets like the others.
    pub(crate) path: &'static str,
    /// Type and unit of its value.
    pub(crate) value: &'static str,
    pub(crate) about: &'static str,
}

/// All keys, in the order of the documentation. Those not said to be optional must be given.
pub(crate) const KEYS: &[Key] = &[
    key(
        "suite",
        "name",
        "what the models belong to, such as `pythia-v1`; stands in the tables' metadata",
    ),
    key(
        "out",
        "path",
        "output folder; created when absent; `--out` replaces it",
    ),
    key(
        "device",
        "`cpu` or `cuda:N`",
        "where the models run; `--device` replaces it; never another one than asked for",
    ),
    key(
        "precision",
        "`f32`, `f16` or `bf16`",
        "arithmetic of the models, as far as the device has it",
    ),
    key("probe.k", "tokens", "length of the prompt"),
    key(
        "probe.l",
        "tokens",
        "length of the continuation that must be right",
    ),
    key(
        "probe.offset",
        "tokens",
        "how many tokens of the sequence come before the prompt",
    ),
    key(
        "probe.judge",
        "`gpt-neox` or `scripted`",
        "`gpt-neox` asks the model; `scripted` reads no checkpoint and answers (sum of the probe's token ids + checkpoint) mod (l + 1), so that a run file, a cluster or a reader of the tables can be tried out in no time",
    ),
    key(
        "probe.part-size",
        "probes",
        "how many verdicts one parquet part holds: what a killed run loses at most",
    ),
    key(
        "memorization-by-time.bins",
        "count",
        "bins over the steps of the training run; each has the same number of steps, the last may have fewer",
    ),
    key(
        "corpus.name",
        "name",
        "what tables, models and flags call the corpus",
    ),
    key(
        "corpus.data",
        "path",
        "the `.idx` and `.bin` files, without these endings",
    ),
    key(
        "corpus.tokenizer",
        "path, optional",
        "a `tokenizer.json`; only `inspect` needs it, to show text",
    ),
    key(
        "corpus.sequence-length",
        "tokens",
        "context length of the training run; a sequence holds one token more",
    ),
    key(
        "corpus.batch-size",
        "sequences",
        "sequences per optimizer step: micro-batch × accumulation × data-parallel size",
    ),
    key(
        "corpus.steps",
        "steps",
        "optimizer steps of the whole training run",
    ),
    key("corpus.seed", "integer", "seed of GPT-NeoX's data loader"),
    key(
        "model.name",
        "name",
        "what tables and folders call the model",
    ),
    key(
        "model.corpus",
        "name",
        "the corpus that it was trained on and is probed with",
    ),
    key(
        "model.folder",
        "path",
        "folder of a checkpoint in Hugging Face layout; `{checkpoint}` stands for its number",
    ),
    key(
        "model.checkpoints",
        "list of steps",
        "optimizer steps after which the weights were saved",
    ),
];

const fn key(path: &'static str, value: &'static str, about: &'static str) -> Key {
    Key { path, value, about }
}
