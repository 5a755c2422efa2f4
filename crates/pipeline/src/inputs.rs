//! The files a run reads: opened, checked and fingerprinted before any work.

use crate::config::{CheckpointFolder, Corpus, Model, Run, Selection};
use crate::corpora::{self, OpenCorpus, OrderSource};
use crate::failure;
use crate::files::Identity;
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
use std::sync::atomic::Ordering;
use training_order::TrainingOrder;
use training_order::mmididx::Dataset;

/// What the tables of foreign verdicts are called; a number follows.
pub(crate) const FOREIGN: &str = "foreign verdicts";

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

    /// The files of each corpus, checkpoint, list and table of foreign verdicts, by what they are.
    pub(crate) fn by_name(&self) -> impl Iterator<Item = (String, &[FileFingerprint])> {
        let corpora = self.corpus_files.iter();
        let corpora = corpora.map(|(name, files)| (format!("corpus `{name}`"), files.as_slice()));
        let checkpoints = self.checkpoint_files.iter().map(|((model, steps), files)| {
            (
                format!("model `{model}` at checkpoint {steps}"),
                files.as_slice(),
            )
        });
        let lists = self.list_files.iter().map(|(name, file)| {
            (
                format!("list of corpus `{name}`"),
                std::slice::from_ref(file),
            )
        });
        let foreign = self.foreign_files.iter().enumerate();
        let foreign = foreign
            .map(|(number, file)| (format!("{FOREIGN} {number}"), std::slice::from_ref(file)));
        corpora.chain(checkpoints).chain(lists).chain(foreign)
    }

    /// Refuses inputs that are not those any more whose fingerprints were taken.
    ///
    /// # Errors
    ///
    /// When a file was exchanged or written to.
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        self.files().try_for_each(FileFingerprint::hold)?;
        for order in self.orders.values() {
            order.check_unchanged()?;
        }
        Ok(())
    }

    /// The same for the files of one checkpoint.
    ///
    /// # Errors
    ///
    /// When one was exchanged or written to.
    pub(crate) fn check_checkpoint(&self, model: &str, checkpoint: u32) -> Result<()> {
        let files = self.checkpoint_files.get(&(model.to_owned(), checkpoint));
        files
            .into_iter()
            .flatten()
            .try_for_each(FileFingerprint::hold)
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
    let held = held(run);
    let Opened {
        corpora,
        list_lengths,
        largest_tokens,
    } = open_corpora(run, depth, &mut problems);
    let foreign = if depth == Depth::Corpora {
        BTreeMap::new()
    } else {
        read_foreign(run, &mut problems)
    };
    if asks_models {
        let sets = stages::probe_sets(run);
        for model in &run.models {
            let asked = sets.iter().filter(|set| set.model.name == model.name);
            let largest = asked.filter_map(|set| *largest_tokens.get(&set.corpus.name)?);
            let largest = largest.max();
            for checkpoint in model.present(run) {
                if model.verdicts.is_some() {
                    continue;
                }
                let checked = check_checkpoint(run, model, checkpoint, largest)
                    .and_then(|()| check_weights_of(checkpoint, depth));
                if let Err(error) = checked {
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
    // What was opened and read is what was hashed.
    for order in inputs.orders.values() {
        order.check_unchanged()?;
    }
    for (path, identity) in held {
        identity.hold(&path)?;
    }
    inputs.foreign = foreign;
    stages::check_coverage(run, &inputs)?;
    check_weights(run, &inputs)?;
    Ok(inputs)
}

/// The files that are read before they are hashed, as they are now.
fn held(run: &Run) -> Vec<(PathBuf, Identity)> {
    let lists = run
        .corpora
        .iter()
        .filter_map(|corpus| match &corpus.selection {
            Selection::List(path) => Some(path),
            Selection::Census | Selection::Sample(_) | Selection::Windows(_) => None,
        });
    let foreign = run.models.iter();
    let foreign = foreign.filter_map(|model| model.verdicts.as_ref());
    lists
        .chain(foreign)
        .filter_map(|path| Some((path.clone(), Identity::at(path).ok()?)))
        .collect()
}

/// What was opened of the corpora; all of it by their names.
#[derive(Default)]
struct Opened {
    corpora: BTreeMap<String, OpenCorpus>,
    list_lengths: BTreeMap<String, u64>,
    /// Nothing where the tokens were not read.
    largest_tokens: BTreeMap<String, Option<u32>>,
}

fn open_corpora(run: &Run, depth: Depth, problems: &mut Vec<anyhow::Error>) -> Opened {
    let mut opened = Opened::default();
    for corpus in &run.corpora {
        if corpus.paths().any(|path| run.absent(path).is_some()) {
            continue;
        }
        let name = &corpus.name;
        match open_corpus(corpus, depth) {
            Ok((open, largest)) => {
                if let Selection::List(path) = &corpus.selection {
                    match List::open(path, open.order.len()).and_then(List::check) {
                        Ok(n) => drop(opened.list_lengths.insert(name.clone(), n)),
                        Err(error) => problems.push(error),
                    }
                }
                opened.largest_tokens.insert(name.clone(), largest);
                opened.corpora.insert(name.clone(), open);
            }
            Err(error) => problems.push(error),
        }
    }
    opened
}

/// The verdicts of other programs, by the model's name.
fn read_foreign(run: &Run, problems: &mut Vec<anyhow::Error>) -> BTreeMap<String, ForeignVerdicts> {
    let sets = stages::probe_sets(run);
    let corpora: Vec<&str> = run
        .corpora
        .iter()
        .map(|corpus| corpus.name.as_str())
        .collect();
    let mut foreign = BTreeMap::new();
    for model in &run.models {
        let Some(path) = &model.verdicts else {
            continue;
        };
        let asked = sets.iter().filter(|set| set.model.name == model.name);
        let asked: Vec<_> = asked.collect();
        let what = format!("reading the verdicts `{}`", path.display());
        let read = progress::during(&what, None, |_| {
            ForeignVerdicts::read(path, &asked, &corpora, run.probe.l)
        });
        match read {
            Ok(verdicts) => drop(foreign.insert(model.name.clone(), verdicts)),
            Err(error) => {
                problems.push(error.context(format!("the verdicts of the model `{}`", model.name)));
            }
        }
    }
    foreign
}

/// What is not in the hub's cache and cannot be done without.
fn absent(
    run: &Run,
    look: Look,
    unusable: &mut BTreeMap<(String, u32), String>,
) -> Vec<anyhow::Error> {
    let of_corpora: Vec<&Path> = run.corpora.iter().flat_map(Corpus::paths).collect();
    let absent = run.absent.values().filter(|absent| {
        look.depth == Depth::Headers || of_corpora.contains(&absent.path.as_path())
    });
    let checkpoints = run.models.iter().flat_map(|model| {
        let checkpoints = model.checkpoints.iter();
        checkpoints.map(move |checkpoint| {
            (
                checkpoint.folder.as_path(),
                (model.name.clone(), checkpoint.steps),
            )
        })
    });
    let checkpoints: BTreeMap<&Path, (String, u32)> = checkpoints.collect();
    let mut problems = Vec::new();
    for absent in absent {
        let error = failure::failed(
            format_args!("`{}` is not in the hub's cache", absent.url),
            format_args!("fetch it: `{}`", absent.command),
        );
        match checkpoints.get(absent.path.as_path()) {
            Some(checkpoint) if look.keep_going => {
                unusable.insert(checkpoint.clone(), error.to_string());
            }
            _ => problems.push(error),
        }
    }
    problems
}

/// The corpus and, when everything was read, its largest token id.
fn open_corpus(corpus: &Corpus, depth: Depth) -> Result<(OpenCorpus, Option<u32>)> {
    let what = format!("opening the corpus `{}`", corpus.name);
    let open = progress::during(&what, None, |_| corpora::open(corpus))?;
    for bin in open.order.datasets().filter_map(Dataset::ignored_bin) {
        progress::say(&format!(
            "warning: all shards of `{}` lie beside it, and are read in its place",
            bin.display()
        ));
    }
    let mut largest = None;
    if depth == Depth::Everything {
        let what = format!("reading the whole corpus `{}`", corpus.name);
        let total = open.order.n_to_check();
        let checked = progress::during(&what, Some(total), |done| {
            let count = |n| {
                done.fetch_add(n, Ordering::Relaxed);
            };
            open.order.check_with(&count)
        });
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

/// Reads every weight, where everything is to be read: a run would stumble over one that is not finite.
fn check_weights_of(checkpoint: &CheckpointFolder, depth: Depth) -> Result<()> {
    if depth != Depth::Everything {
        return Ok(());
    }
    let what = format!("reading the checkpoint `{}`", checkpoint.folder.display());
    progress::during(&what, None, |_| {
        Ok(gpt_neox::Checkpoint::open(&checkpoint.folder)?.check()?)
    })
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
    let total = paths
        .iter()
        .map(|path| FileFingerprint::cost(path, full_hash))
        .sum();
    let what = match paths {
        [] => return Ok(Vec::new()),
        [path, ..] => format!("hashing `{}` and the files with it", path.display()),
    };
    progress::during(&what, Some(total), |n_read| {
        let files = paths.par_iter();
        files
            .map(|path| FileFingerprint::counted(path, full_hash, n_read))
            .collect()
    })
}

/// Refuses two checkpoints with the same weights, of one model or of two, save those that the registry knows to be
/// equal, and the first weights of models that were begun alike.
fn check_weights(run: &Run, inputs: &Inputs) -> Result<()> {
    const CURE: &str = "at least one of them is not what its name says: `pipeline audit` compares all, tensor by tensor; leave the wrong ones out of `model.checkpoints`";
    let mut holders: BTreeMap<String, Vec<(&Model, Vec<u32>)>> = BTreeMap::new();
    for model in &run.models {
        for checkpoint in &model.checkpoints {
            let Some(weights) = inputs.weights(&model.name, checkpoint.steps)? else {
                continue;
            };
            let holders = holders.entry(weights).or_default();
            match holders.last_mut() {
                Some((last, steps)) if last.name == model.name => steps.push(checkpoint.steps),
                _ => holders.push((model, vec![checkpoint.steps])),
            }
        }
    }
    let mut problems = Vec::new();
    for holders in holders.into_values() {
        for (model, steps) in holders.iter().filter(|(_, steps)| steps.len() > 1) {
            let what = format!(
                "the checkpoints {} of `{}` have the same weights",
                list(steps),
                model.name
            );
            if model.knows_equal(steps) {
                progress::say(&format!("warning: {what}, as the suite knows"));
            } else {
                problems.push(failure::failed(what, CURE));
            }
        }
        if holders.len() < 2 {
            continue;
        }
        let names = holders
            .iter()
            .map(|(model, steps)| format!("`{}` at checkpoint {}", model.name, list(steps)));
        let what = format!(
            "the models {} have the same weights",
            names.collect::<Vec<_>>().join(" and ")
        );
        if holders.iter().all(|(_, steps)| steps == &[0]) {
            progress::say(&format!("warning: {what}: they were begun alike"));
        } else {
            problems.push(failure::failed(what, CURE));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(all(problems))
    }
}

fn list(steps: &[u32]) -> String {
    let steps: Vec<String> = steps.iter().map(u32::to_string).collect();
    steps.join(", ")
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
