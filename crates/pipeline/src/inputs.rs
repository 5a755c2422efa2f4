//! The files a run reads: opened, checked and fingerprinted before any work.

use crate::config::{CheckpointFolder, Corpus, Model, Run, Selection};
use crate::corpora::{self, OpenCorpus, OrderSource};
use crate::failure;
use crate::fingerprint::{self, FileFingerprint};
use crate::judges::JudgeChoice;
use crate::lists::List;
use crate::progress;
use crate::stages::{self, ForeignVerdicts};
use anyhow::{Context, Result, anyhow};
use gpt_neox::{GptNeox, GptNeoxConfig};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use training_order::TrainingOrder;

/// What the stages need of the inputs, opened once.
pub(crate) struct Inputs {
    /// By the corpus' name.
    pub(crate) orders: BTreeMap<String, TrainingOrder>,
    /// By the corpus' name: what its order is taken from.
    pub(crate) sources: BTreeMap<String, OrderSource>,
    /// By the corpus' name: the files of its tokens and its order.
    pub(crate) corpus_files: BTreeMap<String, Vec<FileFingerprint>>,
    /// By model and checkpoint: configuration and weights.
    pub(crate) checkpoint_files: BTreeMap<(String, u32), Vec<FileFingerprint>>,
    /// Verdicts of other programs.
    pub(crate) foreign_files: Vec<FileFingerprint>,
    /// By the model's name: those verdicts, held to the plan.
    pub(crate) foreign: BTreeMap<String, ForeignVerdicts>,
    /// By the corpus' name: the list of the sequences that are probed.
    pub(crate) list_files: BTreeMap<String, FileFingerprint>,
    /// By the corpus' name: the length of that list.
    pub(crate) list_lengths: BTreeMap<String, u64>,
    /// By model and checkpoint: what is wrong with it, where the others are worked on all the same.
    pub(crate) unusable: BTreeMap<(String, u32), String>,
}

/// What [`open`] is to find out, and to bear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) depth: Depth,
    /// Whether the devices are needed.
    pub(crate) device: bool,
    /// Whether files are hashed whole.
    pub(crate) full_hash: bool,
    /// Whether checkpoints that cannot be used are left out instead of refused.
    pub(crate) keep_going: bool,
}

impl Look {
    /// So far and with its devices, and bearing nothing.
    pub(crate) fn at(depth: Depth, full_hash: bool) -> Self {
        Self {
            depth,
            device: true,
            full_hash,
            keep_going: false,
        }
    }
}

/// How far [`open`] looks into the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Those of the corpora, and no checkpoint: what a plan needs.
    Corpora,
    /// Headers, lengths and tensor tables: what a run does first.
    Headers,
    /// Every size, pointer and token id besides.
    Everything,
}

/// All that is wrong with the inputs, not only the first.
#[derive(Debug, thiserror::Error)]
#[error("{} of the inputs cannot be used:\n  - {}", .0.len(), .0.join("\n  - "))]
pub(crate) struct InputProblems(Vec<String>);

impl Inputs {
    /// The fingerprint of a checkpoint's weights, as its files hold them; nothing where no model is asked.
    ///
    /// # Errors
    ///
    /// When it cannot be taken.
    pub(crate) fn weights(&self, model: &str, checkpoint: u32) -> Result<Option<String>> {
        let key = (model.to_owned(), checkpoint);
        let files = self.checkpoint_files.get(&key);
        files.map(|files| weights_of(files)).transpose()
    }

    /// Every file with its fingerprint, for the record.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileFingerprint> {
        self.corpus_files
            .values()
            .chain(self.checkpoint_files.values())
            .flatten()
            .chain(self.list_files.values())
            .chain(&self.foreign_files)
    }
}

/// The fingerprint of the weights among the files of a checkpoint: their lengths and hashes, whatever they are called.
///
/// # Errors
///
/// When it cannot be taken.
pub(crate) fn weights_of(files: &[FileFingerprint]) -> Result<String> {
    // Beside them there are `config.json` and the list of shards.
    let is_weights = |path: &Path| path.extension().is_some_and(|ending| ending != "json");
    let weights = files.iter().filter(|file| is_weights(&file.path));
    let contents: Vec<(u64, &str)> = weights
        .map(|file| (file.bytes, file.sha256.as_str()))
        .collect();
    fingerprint::of_values(&contents)
}

/// Opens and checks every input of `run`; with `full_hash`, large files are hashed whole, too.
///
/// # Errors
///
/// The one problem there is, or [`InputProblems`] with all of them.
pub(crate) fn open(run: &Run, look: Look) -> Result<Inputs> {
    let Look {
        depth,
        device,
        full_hash,
        keep_going,
    } = look;
    let mut problems: Vec<anyhow::Error> = Vec::new();
    let mut unusable = BTreeMap::new();
    let asks_models = run.probe.judge == JudgeChoice::GptNeox && depth != Depth::Corpora;
    if device && asks_models {
        for device in &run.devices {
            if let Err(error) = device.check(run.precision) {
                problems.push(anyhow!(error).context(format!("the device `{device}`")));
            }
        }
    }
    if depth != Depth::Everything {
        problems.extend(absent(run, look, &mut unusable));
    }
    let mut corpora = BTreeMap::new();
    let mut list_lengths = BTreeMap::new();
    let mut largest_tokens = BTreeMap::new();
    for corpus in &run.corpora {
        if corpus.paths().any(|path| run.absent(path).is_some()) {
            continue;
        }
        match open_corpus(corpus, depth) {
            Ok((open, largest)) => {
                if let Selection::List(path) = &corpus.selection {
                    match List::open(path, open.order.len()).and_then(List::check) {
                        Ok(n) => drop(list_lengths.insert(corpus.name.clone(), n)),
                        Err(error) => problems.push(error),
                    }
                }
                largest_tokens.insert(corpus.name.clone(), largest);
                corpora.insert(corpus.name.clone(), open);
            }
            Err(error) => problems.push(error),
        }
    }
    let mut foreign = BTreeMap::new();
    if depth != Depth::Corpora {
        let sets = stages::probe_sets(run);
        for model in &run.models {
            let asked = sets.iter().filter(|set| set.model.name == model.name);
            let corpora: Vec<&str> = run.corpora.iter().map(|c| c.name.as_str()).collect();
            if let Some(path) = &model.verdicts {
                let sets = asked.collect::<Vec<_>>();
                match ForeignVerdicts::read(path, &sets, &corpora, run.probe.l) {
                    Ok(verdicts) => drop(foreign.insert(model.name.clone(), verdicts)),
                    Err(error) => problems
                        .push(error.context(format!("the verdicts of the model `{}`", model.name))),
                }
            }
        }
    }
    if asks_models {
        for model in &run.models {
            let sets = stages::probe_sets(run);
            let asked = sets.iter().filter(|set| set.model.name == model.name);
            let largest = asked.filter_map(|set| *largest_tokens.get(&set.corpus.name)?);
            let largest = largest.max();
            for checkpoint in model.present(run) {
                if model.verdicts.is_some() {
                    continue;
                }
                if let Err(error) = check_checkpoint(run, model, checkpoint, largest) {
                    let (name, steps) = (&model.name, checkpoint.steps);
                    let error = error.context(format!("the model `{name}` at checkpoint {steps}"));
                    if keep_going {
                        unusable.insert((name.clone(), steps), format!("{error:#}"));
                    } else {
                        problems.push(error);
                    }
                }
            }
        }
    }
    if !problems.is_empty() {
        return Err(all(problems));
    }
    let hashing = Hashing {
        full_hash,
        asks_models,
        // Tokens are exported before another program can have judged them.
        reads_verdicts: depth != Depth::Corpora,
    };
    let mut inputs = fingerprints(run, corpora, list_lengths, unusable, hashing)?;
    inputs.foreign = foreign;
    stages::check_coverage(run, &inputs)?;
    check_weights(run, &inputs)?;
    Ok(inputs)
}

/// What is not in the hub's cache and cannot be done without.
fn absent(
    run: &Run,
    look: Look,
    unusable: &mut BTreeMap<(String, u32), String>,
) -> Vec<anyhow::Error> {
    let of_corpora: Vec<&Path> = run.corpora.iter().flat_map(Corpus::paths).collect();
    let absent = run.absent.iter().filter(|absent| {
        look.depth == Depth::Headers || of_corpora.contains(&absent.path.as_path())
    });
    let mut problems = Vec::new();
    for absent in absent {
        let error = failure::failed(
            format_args!("`{}` is not in the hub's cache", absent.url),
            format_args!("fetch it: `{}`", absent.command),
        );
        let models = run.models.iter().flat_map(|model| {
            let checkpoints = model.checkpoints.iter();
            checkpoints.map(|checkpoint| (model.name.clone(), checkpoint))
        });
        let mut checkpoint = models.filter(|(_, checkpoint)| checkpoint.folder == absent.path);
        match checkpoint.next() {
            Some((model, checkpoint)) if look.keep_going => {
                unusable.insert((model, checkpoint.steps), error.to_string());
            }
            _ => problems.push(error),
        }
    }
    problems
}

/// The corpus and, when everything was read, its largest token id.
fn open_corpus(corpus: &Corpus, depth: Depth) -> Result<(OpenCorpus, Option<u32>)> {
    let open = corpora::open(corpus)?;
    let mut largest = None;
    if depth == Depth::Everything {
        let checked = open.order.check();
        largest = checked.with_context(|| format!("reading the whole corpus `{}`", corpus.name))?;
        if let Some(path) = &corpus.tokenizer {
            crate::text::load(path)?;
        }
    }
    Ok((open, largest))
}

fn check_checkpoint(
    run: &Run,
    model: &Model,
    checkpoint: &CheckpointFolder,
    largest_token: Option<u32>,
) -> Result<()> {
    let config: GptNeoxConfig = GptNeox::check(&checkpoint.folder)?;
    if let Some(shape) = &model.shape {
        check_shape(&config, shape, &model.name)?;
    }
    let needed = usize::from(run.probe.k) + usize::from(run.probe.l);
    if needed > config.max_position_embeddings {
        return Err(failure::failed(
            format_args!(
                "k + l = {needed} tokens are more than its {} positions",
                config.max_position_embeddings
            ),
            "lower `probe.k` or `probe.l` in the run file",
        ));
    }
    if let Some(largest) = largest_token
        && largest as usize >= config.vocab_size
    {
        return Err(failure::failed(
            format_args!(
                "the corpus holds the token id {largest}, its vocabulary ends at {}",
                config.vocab_size
            ),
            "the corpus was made with another tokenizer: name the model's own corpus in the run file",
        ));
    }
    Ok(())
}

/// Refuses a checkpoint of another shape than the registry has of the model.
///
/// # Errors
///
/// The first fact in which they differ.
pub(crate) fn check_shape(found: &GptNeoxConfig, shape: &GptNeoxConfig, name: &str) -> Result<()> {
    let facts = [
        ("vocab_size", found.vocab_size, shape.vocab_size),
        ("hidden_size", found.hidden_size, shape.hidden_size),
        (
            "num_hidden_layers",
            found.num_hidden_layers,
            shape.num_hidden_layers,
        ),
        (
            "num_attention_heads",
            found.num_attention_heads,
            shape.num_attention_heads,
        ),
        (
            "intermediate_size",
            found.intermediate_size,
            shape.intermediate_size,
        ),
        (
            "rotated dimensions of a head",
            found.n_rotary(),
            shape.n_rotary(),
        ),
    ];
    match facts.into_iter().find(|(_, found, known)| found != known) {
        None => Ok(()),
        Some((key, found, known)) => Err(failure::failed(
            format_args!("its {key} is {found}, that of the suite's `{name}` {known}"),
            "these are the weights of another model: download them again, or give the model a name of its own in the run file",
        )),
    }
}

/// What is hashed, and how far.
#[derive(Clone, Copy)]
struct Hashing {
    full_hash: bool,
    asks_models: bool,
    reads_verdicts: bool,
}

fn fingerprints(
    run: &Run,
    corpora: BTreeMap<String, OpenCorpus>,
    list_lengths: BTreeMap<String, u64>,
    unusable: BTreeMap<(String, u32), String>,
    Hashing {
        full_hash,
        asks_models,
        reads_verdicts,
    }: Hashing,
) -> Result<Inputs> {
    let mut inputs = Inputs {
        orders: BTreeMap::new(),
        sources: BTreeMap::new(),
        corpus_files: BTreeMap::new(),
        checkpoint_files: BTreeMap::new(),
        foreign_files: Vec::new(),
        foreign: BTreeMap::new(),
        list_files: BTreeMap::new(),
        list_lengths,
        unusable,
    };
    for (name, open) in corpora {
        let files = all_of(&open.files, full_hash)?;
        inputs.corpus_files.insert(name.clone(), files);
        inputs.sources.insert(name.clone(), open.source);
        if let Some(Selection::List(path)) = run.corpus(&name).map(|corpus| &corpus.selection) {
            let list = FileFingerprint::of(path, full_hash)?;
            inputs.list_files.insert(name.clone(), list);
        }
        inputs.orders.insert(name, open.order);
    }
    if reads_verdicts {
        let foreign = run.models.iter().filter_map(|model| model.verdicts.clone());
        inputs.foreign_files = all_of(&foreign.collect::<Vec<_>>(), full_hash)?;
    }
    if asks_models {
        for model in &run.models {
            for checkpoint in model.present(run) {
                if model.verdicts.is_some() {
                    continue;
                }
                let key = (model.name.clone(), checkpoint.steps);
                if inputs.unusable.contains_key(&key) {
                    continue;
                }
                let files = gpt_neox::checkpoint_files(&checkpoint.folder)?;
                let files = all_of(&files, full_hash)?;
                inputs.checkpoint_files.insert(key, files);
            }
        }
    }
    Ok(inputs)
}

fn all_of(paths: &[PathBuf], full_hash: bool) -> Result<Vec<FileFingerprint>> {
    paths
        .par_iter()
        .map(|path| FileFingerprint::of(path, full_hash))
        .collect()
}

/// Refuses a model of which two checkpoints have the same weights, save those that the registry knows to be equal.
fn check_weights(run: &Run, inputs: &Inputs) -> Result<()> {
    let mut problems = Vec::new();
    for model in &run.models {
        let mut holders: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for checkpoint in &model.checkpoints {
            if let Some(weights) = inputs.weights(&model.name, checkpoint.steps)? {
                holders.entry(weights).or_default().push(checkpoint.steps);
            }
        }
        for equal in holders.into_values().filter(|equal| equal.len() > 1) {
            let steps: Vec<String> = equal.iter().map(u32::to_string).collect();
            let steps = steps.join(", ");
            if model.knows_equal(&equal) {
                progress::say(&format!(
                    "warning: the checkpoints {steps} of `{}` have the same weights, as the suite knows",
                    model.name
                ));
            } else {
                problems.push(failure::failed(
                    format_args!("the checkpoints {steps} of `{}` have the same weights", model.name),
                    "at least one of them is not what its name says: `pipeline audit` compares all, tensor by tensor; leave the wrong ones out of `model.checkpoints`",
                ));
            }
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(all(problems))
    }
}

/// One error that says them all; a lone one keeps its type, and with it its hint.
fn all(mut problems: Vec<anyhow::Error>) -> anyhow::Error {
    if problems.len() == 1 {
        return problems.remove(0);
    }
    let lines = problems.iter().map(|problem| match failure::hint(problem) {
        Some(hint) => format!("{problem:#} ({hint})"),
        None => format!("{problem:#}"),
    });
    InputProblems(lines.collect()).into()
}

/// What a fingerprint of values takes of a file: its content under its name, wherever it lies.
#[derive(Serialize)]
pub(crate) struct Content<'a> {
    name: String,
    bytes: u64,
    sha256: &'a str,
}

/// The contents of `files`, without the folders they lie in.
pub(crate) fn contents(files: &[FileFingerprint]) -> Vec<Content<'_>> {
    let content = |file: &'_ FileFingerprint| {
        file.path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    files
        .iter()
        .map(|file| Content {
            name: content(file),
            bytes: file.bytes,
            sha256: &file.sha256,
        })
        .collect()
}
