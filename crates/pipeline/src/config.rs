//! From a run file to a `Run`: everything the stages read, typed and checked, paths absolute.

mod analysis;
mod checkpoints;
mod corpus;
mod keys;
mod model;
mod recorded;
mod run_file;
mod selection;

pub(crate) use analysis::{Analysis, Interval};
pub(crate) use keys::KEYS;
pub(crate) use selection::{Sample, Selection};

use crate::corpora::OrderSource;
use crate::files;
use crate::hub::{Absent, HubPath};
use crate::judges::{JudgeChoice, Measure};
use crate::learning_rate::Schedule;
use crate::suite::Suite;
use gpt_neox::{DeviceChoice, GptNeoxConfig, Precision};
use run_file::{ProbeTable, RunFile};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use training_order::{BatchPosition, Split};

/// Margins that f32 cannot tell from a tie, in logits: implementations differ by a few 10⁻⁵.
const NEAR_TIE: f32 = 1e-4;

/// Checkpoints of all models of a run together; each is a folder to open, a file of a dataset and a row of each
/// summary.
pub(crate) const MOST_CHECKPOINTS: usize = 100_000;

/// A run as the stages see it: nothing later reads the run file or a flag again.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) suite: String,
    /// Output folder.
    pub(crate) out: PathBuf,
    /// The device of this process: the first of `devices`.
    #[serde(serialize_with = "as_text")]
    pub(crate) device: DeviceChoice,
    /// One process runs on each; all of one kind.
    #[serde(serialize_with = "as_texts")]
    pub(crate) devices: Vec<DeviceChoice>,
    #[serde(serialize_with = "as_text")]
    pub(crate) precision: Precision,
    /// Nothing: as fits the number of probes.
    pub(crate) layout: Option<Layout>,
    pub(crate) probe: Probe,
    /// Probes that are decided about together, where the run file says so; changes only speed and rounding, so that no
    /// fingerprint holds it.
    pub(crate) batch_size: Option<u32>,
    pub(crate) analysis: Analysis,
    pub(crate) corpora: Vec<Corpus>,
    pub(crate) models: Vec<Model>,
    /// The run file, for `run.json`.
    #[serde(skip)]
    pub(crate) source: Source,
    /// The SHA-256 of every input, where the run file is a `run.json`.
    #[serde(skip)]
    pub(crate) recorded: BTreeMap<PathBuf, String>,
    /// What the run names on the hub and the cache does not hold, by the path that stands for it.
    #[serde(skip)]
    pub(crate) absent: BTreeMap<PathBuf, Absent>,
    /// What the user should know and need not mend.
    #[serde(skip)]
    pub(crate) warnings: Vec<String>,
}

/// How the table `memorization` lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layout {
    File,
    Dataset,
}

/// What a run can be started from again.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    /// The folder that its paths are relative to.
    pub(crate) folder: PathBuf,
    /// Its keys, with what the command line puts in their place.
    pub(crate) keys: toml::Table,
}

/// How probes are cut and judged.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Probe {
    /// Prompt tokens.
    pub(crate) k: u16,
    /// Continuation tokens.
    pub(crate) l: u16,
    /// Tokens of the sequence before the prompt.
    pub(crate) offset: u16,
    pub(crate) judge: JudgeChoice,
    /// Asked beside the exact measure.
    pub(crate) measures: BTreeSet<Measure>,
    /// Whether greedy decoding may not choose token 0.
    pub(crate) suppress_eos: bool,
    /// Margins nearer to 0 than this are near ties, in logits.
    pub(crate) near_tie: f32,
    /// Whether near ties are judged again in f32.
    pub(crate) recheck: bool,
    /// Probes in one verdict part.
    pub(crate) part_size: u32,
}

/// A tokenized corpus and the order in which its models were trained on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Corpus {
    pub(crate) name: String,
    pub(crate) data: Data,
    /// What the order is taken from, where the run file says so.
    pub(crate) order: Option<OrderSource>,
    /// GPT-NeoX's maps, without `_doc_idx.npy` and so on, where the run file names them.
    pub(crate) maps: Option<PathBuf>,
    /// The part of the items that is for training, where the run had a split.
    #[serde(serialize_with = "as_optional_text")]
    pub(crate) split: Option<Split>,
    /// A `tokenizer.json`, for `inspect`.
    pub(crate) tokenizer: Option<PathBuf>,
    /// Context length in tokens; a sequence holds one more.
    pub(crate) sequence_length: u32,
    /// Sequences per optimizer step.
    pub(crate) batch_size: u32,
    /// Optimizer steps of the whole training run.
    pub(crate) steps: u32,
    /// The data loader's seed.
    pub(crate) seed: u32,
    /// Which sequences are probed.
    pub(crate) selection: Selection,
    /// Whether the probes' exposures are counted, which reads the whole corpus.
    pub(crate) exposures: bool,
    pub(crate) contrast: Option<Contrast>,
}

/// Probes that several models are asked, whatever they were trained on, with their likelihood.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Contrast {
    pub(crate) models: BTreeSet<String>,
    /// Optimizer steps.
    pub(crate) checkpoints: BTreeSet<u32>,
    /// Which of the corpus' probes, where not all are.
    pub(crate) sample: Option<Sample>,
}

/// The files of a corpus: paths of `.idx` and `.bin` without these endings.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Data {
    One(PathBuf),
    Mixture {
        members: Vec<PathBuf>,
        weights: Weights,
    },
}

/// How often the members of a mixture are served.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Weights {
    /// GPT-NeoX's `train-data-weights`.
    Given(Vec<f64>),
    /// GPT-NeoX's `weight_by_num_documents`.
    ByDocuments {
        /// GPT-NeoX's `weighted_sampler_alpha`.
        alpha: f64,
    },
}

/// A model and its checkpoints.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    /// The corpus it was trained on and is probed with; [`Contrast`]s may ask it of others, too.
    pub(crate) corpus: String,
    /// Another program's verdicts, where it is not probed here.
    pub(crate) verdicts: Option<PathBuf>,
    /// The schedule that the registry has of it, where it is one of the suite.
    pub(crate) schedule: Option<Schedule>,
    /// The shape that the registry has of it, where it is one of the suite.
    #[serde(skip)]
    pub(crate) shape: Option<GptNeoxConfig>,
    pub(crate) checkpoints: Vec<CheckpointFolder>,
    /// Probes it decides about in a second, for `plan`.
    pub(crate) probes_per_second: Option<f64>,
    /// Share of sequences that is taken to be memorized, for `plan`.
    pub(crate) assumed_rate: Option<AssumedRate>,
    /// Checkpoints that hold the same weights, and may.
    #[serde(skip)]
    equal_checkpoints: Vec<Vec<u32>>,
}

/// A share of memorized sequences, before anything is measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct AssumedRate {
    /// 0 … 1
    pub(crate) rate: f64,
    /// Who says so.
    pub(crate) source: String,
}

/// The weights after so many optimizer steps.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckpointFolder {
    pub(crate) steps: u32,
    pub(crate) folder: PathBuf,
}

/// What the command line puts in the place of the run file's values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Overrides {
    pub(crate) out: Option<PathBuf>,
    pub(crate) device: Option<String>,
}

/// Why a run file cannot be run: all of it, not only the first.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigError {
    pub(crate) file: PathBuf,
    pub(crate) problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [only] => write!(f, "the run file `{}`: {only}", self.file.display()),
            several => {
                write!(
                    f,
                    "the run file `{}` has {} problems:",
                    self.file.display(),
                    several.len()
                )?;
                several
                    .iter()
                    .try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}

impl Data {
    /// The weights of a mixture.
    pub(crate) fn weights(&self) -> Option<&Weights> {
        match self {
            Self::One(_) => None,
            Self::Mixture { weights, .. } => Some(weights),
        }
    }
}

impl Corpus {
    /// Whether a sequence that is probed is one of the contrast's.
    pub(crate) fn in_contrast(&self, place: BatchPosition) -> bool {
        self.contrast.as_ref().is_some_and(|contrast| {
            let sample = contrast.sample.as_ref();
            sample.is_none_or(|sample| sample.holds(place, self.batch_size))
        })
    }

    /// Every path that it names.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        let data = match &self.data {
            Data::One(path) => std::slice::from_ref(path),
            Data::Mixture { members, .. } => members,
        };
        let list = match &self.selection {
            Selection::List(path) => Some(path),
            Selection::Census | Selection::Sample(_) | Selection::Windows(_) => None,
        };
        let others = self.maps.iter().chain(&self.tokenizer).chain(list);
        data.iter().chain(others).map(PathBuf::as_path)
    }
}

impl Model {
    /// Whether the registry knows that these checkpoints hold the same weights.
    pub(crate) fn knows_equal(&self, checkpoints: &[u32]) -> bool {
        self.equal_checkpoints
            .iter()
            .any(|known| checkpoints.iter().all(|steps| known.contains(steps)))
    }

    /// The checkpoints that are not waiting to be fetched.
    pub(crate) fn present<'a>(
        &'a self,
        run: &'a Run,
    ) -> impl Iterator<Item = &'a CheckpointFolder> {
        self.checkpoints
            .iter()
            .filter(|checkpoint| run.absent(&checkpoint.folder).is_none())
    }
}

impl Run {
    /// Reads and checks the run file at `path`; paths in it are relative to its folder.
    ///
    /// # Errors
    ///
    /// All that is wrong with the file itself; inputs it names are not opened here.
    pub(crate) fn load(path: &Path, overrides: &Overrides) -> Result<Self, ConfigError> {
        let failed = |problems| ConfigError {
            file: path.to_owned(),
            problems,
        };
        let text = files::read_text(path, files::TEXT)
            .map_err(|error| failed(vec![format!("it cannot be read: {error}")]))?;
        let file = std::path::absolute(path)
            .map_err(|error| failed(vec![format!("its folder has no absolute path: {error}")]))?;
        let (text, folder, recorded) = if path.extension().is_some_and(|ending| ending == "json") {
            let recorded = recorded::read(&text).map_err(|error| failed(vec![error]))?;
            (recorded.text, recorded.folder, recorded.inputs)
        } else {
            let folder = file.parent().unwrap_or(Path::new("/"));
            (text, folder.to_owned(), BTreeMap::new())
        };
        let raw = run_file::parse(&text).map_err(failed)?;
        let mut run = check(raw, &folder, overrides).map_err(failed)?;
        let mut keys: toml::Table = text
            .parse()
            .map_err(|error| failed(vec![format!("it is no TOML\n{error}")]))?;
        keys.insert("out".to_owned(), run.out.display().to_string().into());
        if let Some(device) = &overrides.device {
            keys.remove("devices");
            keys.insert("device".to_owned(), device.clone().into());
        }
        run.source = Source {
            path: file,
            folder,
            keys,
        };
        run.recorded = recorded;
        Ok(run)
    }

    /// The corpus of that name.
    pub(crate) fn corpus(&self, name: &str) -> Option<&Corpus> {
        self.corpora.iter().find(|corpus| corpus.name == name)
    }

    /// The schedule of the model of that name, where the registry knows it.
    pub(crate) fn schedule(&self, name: &str) -> Option<Schedule> {
        self.models
            .iter()
            .find(|model| model.name == name)?
            .schedule
    }

    /// What is not in the hub's cache of that which a path stands for.
    pub(crate) fn absent(&self, path: &Path) -> Option<&Absent> {
        self.absent.get(path)
    }

    /// The models probed with the corpus of that name.
    pub(crate) fn models_of<'a>(&'a self, corpus: &'a str) -> impl Iterator<Item = &'a Model> {
        self.models
            .iter()
            .filter(move |model| model.corpus == corpus)
    }
}

/// Collects what is to be said of a run file while its values are checked.
struct Problems {
    /// What keeps it from being run.
    all: Vec<String>,
    warnings: Vec<String>,
    absent: BTreeMap<PathBuf, Absent>,
    /// The folder that its paths are relative to.
    folder: PathBuf,
}

impl Problems {
    fn add(&mut self, place: &str, problem: impl fmt::Display) {
        self.all.push(format!("{place}: {problem}"));
    }

    /// A path of the run file from the root; of what is on the hub, the path in its cache.
    fn resolve(&mut self, place: &str, path: &str) -> PathBuf {
        self.check_path(place, path);
        match HubPath::parse(path) {
            Err(error) => self.add(place, error),
            Ok(None) => return absolute(&self.folder.join(path)),
            Ok(Some(hub)) => match hub.find() {
                Ok(path) => return path,
                Err(absent) => {
                    let path = absent.path.clone();
                    self.absent.insert(path.clone(), absent);
                    return path;
                }
            },
        }
        PathBuf::new()
    }

    fn check_path(&mut self, place: &str, path: &str) {
        // No system call takes one.
        if path.contains('\0') {
            self.add(place, "a path cannot hold the character NUL");
        }
    }

    /// A value that must lie in `range`; the range's end where it does not.
    fn within<T: Copy + PartialOrd + fmt::Display>(
        &mut self,
        place: &str,
        value: T,
        lo: T,
        hi: T,
    ) -> T {
        // Neither does what is not a number.
        if !(lo <= value && value <= hi) {
            self.add(place, format_args!("{value} is not in {lo} … {hi}"));
            return lo;
        }
        value
    }

    /// A name that becomes part of a path and of a column.
    fn name(&mut self, place: &str, name: &str, taken: &mut BTreeSet<String>) {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.starts_with('.') || !name.chars().all(fits) {
            self.add(
                place,
                format_args!("`{name}` is no name: use letters, digits, `-`, `_` and `.`"),
            );
        }
        if !taken.insert(name.to_owned()) {
            self.add(place, format_args!("the name `{name}` is given twice"));
        }
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "every key of the file is looked at once, in its order"
)]
fn check(raw: RunFile, folder: &Path, overrides: &Overrides) -> Result<Run, Vec<String>> {
    let RunFile {
        suite,
        out,
        device,
        devices,
        precision,
        layout,
        probe,
        memorization_by_time,
        trend,
        corpus,
        model,
    } = raw;
    let ProbeTable {
        k,
        l,
        offset,
        judge,
        measures,
        suppress_eos,
        near_tie,
        recheck,
        batch_size,
        part_size,
    } = probe;
    let mut problems = Problems {
        all: Vec::new(),
        warnings: Vec::new(),
        absent: BTreeMap::new(),
        folder: folder.to_owned(),
    };
    let registry = Suite::load().map_err(|error| vec![format!("{error:#}")])?;
    problems.name("suite", &suite, &mut BTreeSet::new());

    // A device given on the command line is judged by the same rules as one in the file.
    let devices = match (&overrides.device, device, devices) {
        (Some(device), _, _) => vec![device.clone()],
        (None, Some(device), None) => vec![device],
        (None, None, Some(devices)) if !devices.is_empty() => devices,
        _ => {
            problems.add("device", "give either `device` or a list of `devices`");
            Vec::new()
        }
    };
    let devices = check_devices(&devices, &mut problems);
    let precision = precision
        .parse::<Precision>()
        .map_err(|error| problems.add("precision", error))
        .ok();

    let probe = Probe {
        k: problems.within("probe.k", k, 1, u16::MAX),
        l: problems.within("probe.l", l, 1, u16::MAX),
        offset,
        judge,
        measures: measures.into_iter().collect(),
        suppress_eos,
        near_tie: problems.within("probe.near-tie", near_tie.unwrap_or(NEAR_TIE), 0.0, 1e3),
        recheck,
        part_size: problems.within("probe.part-size", part_size, 1, 1 << 20),
    };
    let batch_size = batch_size.map(|n| problems.within("probe.batch-size", n, 1, 1 << 20));
    if recheck && precision == Some(Precision::F32) {
        problems.add("probe.recheck", "the run is in `f32` already: leave it out");
    }
    let analysis = analysis::check_analysis(&memorization_by_time, trend, &mut problems);

    let mut names = BTreeSet::new();
    let corpora: Vec<Corpus> = corpus
        .into_iter()
        .map(|table| corpus::check_corpus(table, &probe, &mut names, &mut problems))
        .collect();
    if corpora.is_empty() {
        problems.add("corpus", "there is none: add a `[[corpus]]`");
    }
    let mut names = BTreeSet::new();
    let models: Vec<Model> = model
        .into_iter()
        .map(|table| model::check_model(table, &corpora, &registry, &mut names, &mut problems))
        .collect();
    if models.is_empty() {
        problems.add("model", "there is none: add a `[[model]]`");
    }
    for corpus in &corpora {
        corpus::check_contrast(corpus, &models, &mut problems);
        let parts = format!("{}-contrast", corpus.name);
        if corpus.contrast.is_some() && corpora.iter().any(|other| other.name == parts) {
            problems.add(
                &format!("corpus `{parts}`: name"),
                format_args!(
                    "the parts of the contrast of `{}` are called so: rename one of the two",
                    corpus.name
                ),
            );
        }
    }
    let n_checkpoints: usize = models.iter().map(|model| model.checkpoints.len()).sum();
    problems.within("model.checkpoints", n_checkpoints, 0, MOST_CHECKPOINTS);

    problems.check_path("out", &out);

    match (devices.first().copied(), precision) {
        (Some(device), Some(precision)) if problems.all.is_empty() => Ok(Run {
            suite,
            out: absolute(
                &overrides
                    .out
                    .as_ref()
                    .map_or_else(|| folder.join(out), Clone::clone),
            ),
            device,
            devices,
            precision,
            layout,
            probe,
            batch_size,
            analysis,
            corpora,
            models,
            source: Source {
                path: PathBuf::new(),
                folder: folder.to_owned(),
                keys: toml::Table::new(),
            },
            recorded: BTreeMap::new(),
            absent: problems.absent,
            warnings: problems.warnings,
        }),
        _ => Err(problems.all),
    }
}

/// The devices of a run: equal parts must come of each, so that all are of one kind.
fn check_devices(names: &[String], problems: &mut Problems) -> Vec<DeviceChoice> {
    let mut devices = Vec::new();
    for name in names {
        match name.parse::<DeviceChoice>() {
            Ok(device) => devices.push(device),
            Err(error) => problems.add("device", error),
        }
    }
    let kinds: BTreeSet<String> = devices.iter().copied().map(device_kind).collect();
    if kinds.len() > 1 {
        problems.add("devices", "they are of several kinds, and numbers differ between kinds in the last digits: run them one after another with `--device`");
    }
    devices
}

/// `cpu` or `cuda`: one card is as good as another.
pub(crate) fn device_kind(device: DeviceChoice) -> String {
    let name = device.to_string();
    name.split(':').next().unwrap_or(&name).to_owned()
}

/// The path from the root, with `.` and `..` resolved by name alone, so that messages are short.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    use std::path::Component;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.components()
        .fold(PathBuf::new(), |mut resolved, component| {
            match component {
                Component::ParentDir => {
                    resolved.pop();
                }
                Component::CurDir => {}
                other => resolved.push(other),
            }
            resolved
        })
}

#[expect(clippy::ref_option, reason = "the signature that serde asks for")]
fn as_optional_text<S: Serializer>(
    value: &Option<impl fmt::Display>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.collect_str(value),
        None => serializer.serialize_none(),
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn as_texts<S: Serializer>(values: &[impl fmt::Display], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(ToString::to_string))
}
