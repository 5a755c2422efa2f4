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
        "`cpu`, `cuda:N` or `vulkan:N`",
        "where the models run; `--device` replaces it; never another one than asked for",
    ),
    key(
        "devices",
        "list, instead of `device`",
        "several devices of one kind, such as `cuda:0` and `cuda:1`: one process works on each; `cpu` may stand several times",
    ),
    key(
        "precision",
        "`f32`, `f16` or `bf16`",
        "arithmetic of the models, as far as the device has it",
    ),
    key(
        "layout",
        "`file` or `dataset`, optional",
        "`memorization` as one file, or as a dataset in hive layout, a file for each model, checkpoint and corpus; without it, a dataset from 16,777,217 probes on",
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
        "probe.measures",
        "list of `score` and `likelihood`, optional",
        "what is asked beside the exact measure, which is always taken: `score` decodes all l tokens and counts the right ones (`n_matched`), `likelihood` takes the surprisal of the true continuation",
    ),
    key(
        "probe.suppress-eos",
        "`true` or `false`, optional",
        "`true`: greedy decoding may not choose token 0, the end of text, as in the published memorization runs, whose `min_length` forbids it; `false` without it",
    ),
    key(
        "probe.near-tie",
        "logits, optional",
        "a verdict is marked `near_tie` where a margin that decided it is closer to 0 than this: 0.0001 without it, which fits `f32`; halves need about 0.1",
    ),
    key(
        "probe.recheck",
        "`true` or `false`, optional",
        "`true`: probes with a near tie are judged again in `f32`, on the same device, and that verdict counts; for runs in `f16` or `bf16`; `false` without it",
    ),
    key(
        "probe.batch-size",
        "probes, optional",
        "how many probes are decided about together; without it, what the memory of a GPU is good for, and 256 or fewer for each thread of a CPU. A GPU that runs out of memory is given half as many, and `run.json` says how many it came to. Other rounding may move a margin's last digits, so that a run may go on with another number",
    ),
    key(
        "probe.part-size",
        "probes",
        "how many verdicts one parquet part holds: what a killed run loses at most",
    ),
    key(
        "memorization-by-time.steps",
        "steps, optional",
        "steps of a bin of `memorization_by_time` and `exposures_by_step`, half-open from step 0; 1000 without it; the last bin may have fewer",
    ),
    key(
        "memorization-by-time.bins",
        "count, optional",
        "instead of `steps`: so many bins over the steps of the training run",
    ),
    key(
        "memorization-by-time.interval",
        "`wilson` or `exact`, optional",
        "95 % intervals of the rates: Wilson's, or Clopper and Pearson's; `wilson` without it",
    ),
    key(
        "trend.exposures",
        "list of counts, optional",
        "exposure strata by how often a probe's text stands in the training run: up to the first count, from there to the second, and so on, and above the last; `[1, 5]` without it, for once, 2 to 5 times, and more often",
    ),
    key(
        "trend.margins",
        "list of factors, optional",
        "further margins of equivalence beside 1.05 and 1.10, each a column `tost_p_…` of `trend`",
    ),
    key(
        "trend.permutations",
        "count, optional",
        "permutations behind each p value of `surprisal_trend`; 999 without it; 0 for none",
    ),
    key(
        "trend.seed",
        "integer, optional",
        "seed of the permutations; 1 without it",
    ),
    key(
        "corpus.name",
        "name",
        "what tables, models and flags call the corpus",
    ),
    key(
        "corpus.data",
        "path",
        "the `.idx` and `.bin` files, without these endings; the `.bin` may be in shards (`-00000-of-00020.bin` and so on); `hf://datasets/OWNER/NAME/PATH` is in the hub's cache",
    ),
    key(
        "corpus.mixture.data",
        "path",
        "instead of `data`: one dataset of a weighted mixture, `[[corpus.mixture]]`, in the order of GPT-NeoX's `train-data-paths`",
    ),
    key(
        "corpus.mixture.weight",
        "number",
        "its weight, in the order of `train-data-weights`",
    ),
    key(
        "corpus.weighted-sampler-alpha",
        "number, optional",
        "where the run had `weight_by_num_documents`: the weights come from the datasets' numbers of documents and this exponent, and `weight` is left out",
    ),
    key(
        "corpus.order",
        "`seed`, `maps` or `preshuffled`, optional",
        "what the training order is taken from; without it, `preshuffled` when each item is one sequence, `maps` when GPT-NeoX's own files for this run lie beside the corpus, else `seed`; `check` says which",
    ),
    key(
        "corpus.maps",
        "path, optional",
        "GPT-NeoX's `_doc_idx.npy`, `_sample_idx.npy` and `_shuffle_idx.npy`, without these endings, where they lie elsewhere",
    ),
    key(
        "corpus.split",
        "text, optional",
        "the run's `split`, such as `969, 30, 1`, where it had one `data-path`; without it, the run had `train-data-paths`, as all of Pythia",
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
        "sequences per optimizer step",
    ),
    key(
        "corpus.micro-batch-size",
        "sequences",
        "instead of `batch-size`, with the next two: GPT-NeoX's `train_micro_batch_size_per_gpu`",
    ),
    key(
        "corpus.gradient-accumulation-steps",
        "count",
        "micro-batches that each rank adds up before an optimizer step",
    ),
    key(
        "corpus.data-parallel-size",
        "count",
        "ranks that read different sequences: GPUs / (model-parallel size × pipeline-parallel size)",
    ),
    key(
        "corpus.steps",
        "steps",
        "optimizer steps of the whole training run",
    ),
    key("corpus.seed", "integer", "seed of GPT-NeoX's data loader"),
    key(
        "corpus.sample.every",
        "steps",
        "`[corpus.sample]`, optional: of every so many steps, from step 0 on, …",
    ),
    key(
        "corpus.sample.rows",
        "sequences",
        "… so many adjacent rows are probed; without it, all sequences are. The loader has shuffled them, so that adjacent rows are as random as any",
    ),
    key(
        "corpus.sample.seed",
        "integer",
        "chooses the rows: the first is int(SHA-256 of `SEED:STEP`, its first 8 bytes, little-endian) mod (batch size − rows + 1)",
    ),
    key(
        "corpus.list.file",
        "path",
        "`[corpus.list]`, instead of `sample`: a `.parquet` or `.csv` file with a column `training_index`, ascending, none twice; those sequences are probed",
    ),
    key(
        "corpus.windows.steps",
        "steps",
        "`[corpus.windows]`, instead of `sample`: the sequences of so many steps before and after each checkpoint of the models probed with the corpus; after the last step of training those that the loader had made besides, as far as there are any",
    ),
    key(
        "corpus.windows.rows",
        "sequences, optional",
        "so many adjacent rows of each of these steps, as in `sample`; without it, all",
    ),
    key(
        "corpus.windows.seed",
        "integer, with `rows`",
        "chooses the rows, as in `sample`",
    ),
    key(
        "corpus.exposures",
        "`true` or `false`, optional",
        "`true`: counts how often each probe's text stands in the training run, before and after the probe, which reads the whole corpus once; `false` without it",
    ),
    key(
        "corpus.contrast.models",
        "list of names",
        "`[corpus.contrast]`, optional: these models, whatever they were trained on, are asked some of the corpus' probes, always with the measure `likelihood`, …",
    ),
    key(
        "corpus.contrast.checkpoints",
        "list of steps",
        "… at these of their checkpoints",
    ),
    key(
        "corpus.contrast.every",
        "steps, optional",
        "which of the corpus' probes, as with `corpus.sample`; without `every`, `rows` and `seed`, all of them; 1 where another of the three is given",
    ),
    key(
        "corpus.contrast.rows",
        "sequences, optional",
        "as with `corpus.sample`; the whole batch without it",
    ),
    key(
        "corpus.contrast.seed",
        "integer, optional",
        "as with `corpus.sample`; 0 without it",
    ),
    key(
        "model.name",
        "name",
        "what tables and folders call the model; one of the [suite](../data/suite.toml) is held against what the registry knows of it",
    ),
    key(
        "model.corpus",
        "name",
        "the corpus that it was trained on and is probed with; a `corpus.contrast` may ask it probes of others, too",
    ),
    key(
        "model.folder",
        "path, optional",
        "folder of a checkpoint in Hugging Face layout; `{checkpoint}` stands for its optimizer steps, `{revision}` for the number in the name of its revision; without it, the model is one of the suite, from the hub's cache: `hf://EleutherAI/NAME@step{revision}`",
    ),
    key(
        "model.verdicts",
        "path, optional",
        "instead of `folder`: a parquet file with the verdicts of another program on the probes that `plan` wrote: `training_index`, `checkpoint`, `n_prefix_matched` or `surprisal` or both, and, where it has them, other columns of `verdicts`, among them `corpus`, without which all rows are of the model's own; the stage `probe` leaves the model out",
    ),
    key(
        "model.revision-factor",
        "integer, optional",
        "how many times a checkpoint's optimizer steps its revision's number is; the registry knows it of the suite's models, 1 else; 2 for those of Pythia v0 that were trained with batches of 2,048, whose `step143000` has done 71,500 steps",
    ),
    key(
        "model.checkpoints",
        "steps, range or word, or a list of them",
        "optimizer steps after which the weights were saved: numbers; ranges such as `\"1000..=143000 by 1000\"`, both ends included; `\"all\"`, of `folder` those that exist, of a model from the hub those that were published; `\"log-spaced\"`, of all the first after step 0, then each time the one nearest to twice the steps, and the last",
    ),
    key(
        "model.probes-per-second",
        "number, optional",
        "the speed that `plan` reckons with; without it that of the finished run in `out`, if there is one; `--probes-per-second` replaces it",
    ),
    key(
        "model.assumed-rate",
        "share, optional",
        "how much is taken to be memorized when `plan` says which trend could be found, such as 0.016; of Pythia's models with a published total that is taken without it",
    ),
];

const fn key(path: &'static str, value: &'static str, about: &'static str) -> Key {
    Key { path, value, about }
}
