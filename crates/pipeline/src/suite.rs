//! The Pythia suite: what is known of every published model, from `data/suite.toml`.

use crate::config::AssumedRate;
use crate::learning_rate::Schedule;
use anyhow::{Context, Result};
use gpt_neox::GptNeoxConfig;
use indicatif::HumanCount;
use serde::Deserialize;

/// The registry as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Suite {
    size: Vec<Size>,
    series: Vec<Series>,
    model: Vec<Entry>,
    pub(crate) corpus: Vec<SuiteCorpus>,
    bad_revisions: Vec<BadRevisions>,
    equal_checkpoints: Vec<EqualCheckpoints>,
    discrepancy: Vec<Discrepancy>,
    published_memorization: PublishedMemorization,
}

/// How much final models were found to have memorized.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PublishedMemorization {
    source: String,
    /// Sequences that each was asked about.
    sequences: u32,
    totals: Vec<PublishedTotal>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PublishedTotal {
    model: String,
    size: String,
    corpus: String,
    memorized: u32,
}

/// Shape and schedule of the models of a size.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the field's own words")]
pub(crate) struct Size {
    pub(crate) name: String,
    /// What it was called until 20 January 2023.
    pub(crate) old_name: Option<String>,
    pub(crate) layers: usize,
    pub(crate) hidden_size: usize,
    pub(crate) heads: usize,
    pub(crate) intermediate_size: usize,
    /// Entries of the vocabulary, padding included.
    pub(crate) vocabulary: usize,
    pub(crate) parameters: u64,
    pub(crate) parameters_without_embeddings: u64,
    /// The highest of the schedule.
    pub(crate) learning_rate: f64,
    learning_rate_min: f64,
    /// Of training.
    pub(crate) precision: String,
    pub(crate) model_parallel: u32,
    gpus: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Series {
    name: String,
    about: String,
    batch_size: u32,
    steps: u32,
    first_checkpoints: Vec<u32>,
    checkpoint_every: u32,
}

/// A model as it is written: what is absent stands with its size or its series.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    name: String,
    series: String,
    size: String,
    corpus: String,
    seed: u32,
    weight_seed: Option<u32>,
    batch_size: Option<u32>,
    steps: Option<u32>,
    checkpoint_every: Option<u32>,
    revision_factor: Option<u32>,
    gpus: Option<u32>,
    learning_rate_min: Option<f64>,
    config: Option<String>,
    #[serde(default)]
    notes: Vec<String>,
}

/// Training data.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct SuiteCorpus {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Repository of the tokenized corpus, not shuffled.
    pub(crate) tokenized: String,
    /// Repository of the corpus in the order of seed 1234.
    pub(crate) preshuffled: String,
    /// Repository of GPT-NeoX's maps.
    pub(crate) maps: Option<String>,
    pub(crate) notes: Vec<String>,
}

/// Revisions that do not hold what their names say.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct BadRevisions {
    model: String,
    /// Optimizer steps; none where it is not known which.
    #[serde(default)]
    pub(crate) checkpoints: Vec<u32>,
    pub(crate) about: String,
    pub(crate) issue: String,
}

/// Checkpoints that hold the same weights, and may.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct EqualCheckpoints {
    series: String,
    pub(crate) checkpoints: Vec<u32>,
    pub(crate) about: String,
    pub(crate) issue: String,
}

/// Sources that disagree.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Discrepancy {
    models: Vec<String>,
    pub(crate) key: String,
    /// A value, and who says it.
    pub(crate) says: Vec<(String, String)>,
    pub(crate) used: String,
    pub(crate) why: String,
}

/// All that is known of one model.
#[derive(Clone, Debug)]
pub(crate) struct SuiteModel<'a> {
    pub(crate) name: &'a str,
    pub(crate) series: &'a str,
    pub(crate) about_series: &'a str,
    pub(crate) size: &'a Size,
    pub(crate) corpus: &'a str,
    /// Seed of the data order.
    pub(crate) seed: u32,
    pub(crate) weight_seed: u32,
    /// Sequences per optimizer step.
    pub(crate) batch_size: u32,
    /// Optimizer steps.
    pub(crate) steps: u32,
    /// Optimizer steps after which weights were published, ascending.
    pub(crate) checkpoints: Vec<u32>,
    /// What a checkpoint's steps are multiplied by in the name of its revision.
    pub(crate) revision_factor: u32,
    pub(crate) gpus: u32,
    pub(crate) learning_rate_min: f64,
    /// Its file in the repository of the suite.
    pub(crate) config: Option<&'a str>,
    pub(crate) notes: &'a [String],
    pub(crate) bad_revisions: Vec<&'a BadRevisions>,
    pub(crate) equal_checkpoints: Vec<&'a EqualCheckpoints>,
    pub(crate) discrepancies: Vec<&'a Discrepancy>,
}

/// Tokens of a training sequence that are predicted, for every model of the suite.
pub(crate) const SEQUENCE_LENGTH: u32 = 2048;
const ROTARY_PCT: f64 = 0.25;

impl Suite {
    /// Reads the registry that this program was built with.
    ///
    /// # Errors
    ///
    /// When it is not written as it should be.
    pub(crate) fn load() -> Result<Self> {
        toml::from_str(include_str!("../../../data/suite.toml"))
            .context("reading the registry `data/suite.toml`")
    }

    /// Every model, in the order of the file.
    pub(crate) fn models(&self) -> impl Iterator<Item = SuiteModel<'_>> {
        self.model.iter().filter_map(|entry| self.resolve(entry))
    }

    /// The model of that name, with or without `EleutherAI/`; old names are understood.
    pub(crate) fn find(&self, name: &str) -> Option<SuiteModel<'_>> {
        let name = name.strip_prefix("EleutherAI/").unwrap_or(name);
        let name = name.to_ascii_lowercase();
        let known = |name: &str| self.model.iter().find(|entry| entry.name == name);
        let entry = known(&name).or_else(|| known(&self.renamed(&name)?))?;
        self.resolve(entry)
    }

    /// The share of sequences that the published model of the same size and corpus has memorized.
    pub(crate) fn published_rate(&self, model: &SuiteModel<'_>) -> Option<AssumedRate> {
        let PublishedMemorization {
            source,
            sequences,
            totals,
        } = &self.published_memorization;
        let total = totals
            .iter()
            .find(|total| total.size == model.size.name && total.corpus == model.corpus)?;
        Some(AssumedRate {
            rate: f64::from(total.memorized) / f64::from(*sequences),
            source: format!(
                "{}: {} of {} memorized ({source})",
                total.model,
                HumanCount(total.memorized.into()),
                HumanCount((*sequences).into())
            ),
        })
    }

    /// Names near `name`, the nearest first.
    pub(crate) fn near(&self, name: &str) -> Vec<&str> {
        let mut near: Vec<(f64, &str)> = self
            .model
            .iter()
            .map(|entry| (strsim::jaro_winkler(&entry.name, name), entry.name.as_str()))
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        near.into_iter().take(3).map(|(_, name)| name).collect()
    }

    /// Today's name of a model that is called by its old one.
    fn renamed(&self, name: &str) -> Option<String> {
        let rest = name.strip_prefix("pythia-")?;
        let (size, suffix) = rest
            .find('-')
            .map_or((rest, ""), |dash| rest.split_at(dash));
        let size = self
            .size
            .iter()
            .find(|known| known.old_name.as_deref() == Some(size))?;
        Some(format!("pythia-{}{suffix}", size.name))
    }

    /// Nothing for an entry of a size or series that is not there, which a test rules out.
    fn resolve<'a>(&'a self, entry: &'a Entry) -> Option<SuiteModel<'a>> {
        let size = self.size.iter().find(|size| size.name == entry.size)?;
        let series = self
            .series
            .iter()
            .find(|series| series.name == entry.series)?;
        let steps = entry.steps.unwrap_or(series.steps);
        let every = entry.checkpoint_every.unwrap_or(series.checkpoint_every);
        let regular = (1..=steps / every).map(|n| n * every);
        Some(SuiteModel {
            name: &entry.name,
            series: &entry.series,
            about_series: &series.about,
            size,
            corpus: &entry.corpus,
            seed: entry.seed,
            weight_seed: entry.weight_seed.unwrap_or(entry.seed),
            batch_size: entry.batch_size.unwrap_or(series.batch_size),
            steps,
            checkpoints: series
                .first_checkpoints
                .iter()
                .copied()
                .chain(regular)
                .collect(),
            revision_factor: entry.revision_factor.unwrap_or(1),
            gpus: entry.gpus.unwrap_or(size.gpus),
            learning_rate_min: entry.learning_rate_min.unwrap_or(size.learning_rate_min),
            config: entry.config.as_deref(),
            notes: &entry.notes,
            bad_revisions: self
                .bad_revisions
                .iter()
                .filter(|bad| bad.model == entry.name)
                .collect(),
            equal_checkpoints: self
                .equal_checkpoints
                .iter()
                .filter(|equal| equal.series == entry.series)
                .collect(),
            discrepancies: self
                .discrepancy
                .iter()
                .filter(|discrepancy| discrepancy.models.contains(&entry.name))
                .collect(),
        })
    }
}

impl SuiteModel<'_> {
    /// Its learning rates: warm-up over 1 % of the steps, then a cosine over all of them.
    pub(crate) fn schedule(&self) -> Schedule {
        Schedule {
            max: self.size.learning_rate,
            min: self.learning_rate_min,
            warmup_steps: self.steps / 100,
            decay_steps: self.steps,
        }
    }

    /// Its repository on the hub.
    pub(crate) fn repository(&self) -> String {
        format!("EleutherAI/{}", self.name)
    }

    /// The name of a checkpoint's revision there.
    pub(crate) fn revision(&self, checkpoint: u32) -> String {
        let label = u64::from(checkpoint) * u64::from(self.revision_factor);
        format!("step{label}")
    }

    /// Its shape.
    pub(crate) fn shape(&self) -> GptNeoxConfig {
        GptNeoxConfig {
            vocab_size: self.size.vocabulary,
            hidden_size: self.size.hidden_size,
            num_hidden_layers: self.size.layers,
            num_attention_heads: self.size.heads,
            intermediate_size: self.size.intermediate_size,
            max_position_embeddings: SEQUENCE_LENGTH as usize,
            rotary_pct: ROTARY_PCT,
            rotary_emb_base: 10_000.0,
            layer_norm_eps: 1e-5,
            use_parallel_residual: true,
            attention_bias: true,
            tie_word_embeddings: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_model_is_whole() {
        let suite = Suite::load().unwrap();
        let models: Vec<SuiteModel<'_>> = suite.models().collect();
        assert_eq!(models.len(), suite.model.len());
        assert_eq!(models.len(), 85);
        let names: BTreeSet<&str> = models.iter().map(|model| model.name).collect();
        assert_eq!(names.len(), models.len());
        for model in &models {
            assert!(
                suite
                    .corpus
                    .iter()
                    .any(|corpus| corpus.name == model.corpus)
            );
            // The same data in the same order, whatever the batch.
            assert_eq!(
                u64::from(model.batch_size) * u64::from(model.steps),
                146_432_000
            );
            assert_eq!(model.checkpoints.last(), Some(&model.steps));
            assert_eq!(model.revision(model.steps), "step143000");
        }
        let bad = suite.bad_revisions.iter().map(|bad| &bad.model);
        let disputed = suite.discrepancy.iter().flat_map(|found| &found.models);
        for name in bad.chain(disputed) {
            assert!(names.contains(name.as_str()), "{name}");
        }
    }

    #[test]
    fn parameters_are_those_of_the_shapes() {
        let suite = Suite::load().unwrap();
        for model in suite.models() {
            let shapes = gpt_neox::tensor_shapes(&model.shape());
            let count = |shape: &Vec<usize>| shape.iter().product::<usize>() as u64;
            let all: u64 = shapes.values().map(count).sum();
            let embeddings = shapes.iter().filter(|(name, _)| name.contains("embed_"));
            let embeddings: u64 = embeddings.map(|(_, shape)| count(shape)).sum();
            assert_eq!(all, model.size.parameters, "{}", model.name);
            assert_eq!(
                all - embeddings,
                model.size.parameters_without_embeddings,
                "{}",
                model.name
            );
            // `make_vocab_size_divisible_by` × model-parallel size, in Megatron.
            let multiple = 128 * model.size.model_parallel as usize;
            assert_eq!(
                model.size.vocabulary,
                50_277_usize.next_multiple_of(multiple)
            );
        }
    }

    #[test]
    fn old_names_are_understood() {
        let suite = Suite::load().unwrap();
        let today = |name: &str| suite.find(name).map(|model| model.name.to_owned());
        for (old, new) in [
            ("pythia-19m", "pythia-70m"),
            ("pythia-125m-deduped", "pythia-160m-deduped"),
            ("EleutherAI/pythia-350m", "pythia-410m"),
            ("pythia-800M", "pythia-1b"),
            ("pythia-1.3b-deduped-v0", "pythia-1.4b-deduped-v0"),
            ("pythia-2.7b", "pythia-2.8b"),
            ("pythia-6.7b", "pythia-6.9b"),
            ("pythia-13b", "pythia-12b"),
            ("pythia-160m-data-seed2", "pythia-160m-data-seed2"),
        ] {
            assert_eq!(today(old).as_deref(), Some(new), "{old}");
        }
        assert_eq!(today("pythia-11m"), None);
        assert_eq!(suite.near("pythia-160m-dedup")[0], "pythia-160m-deduped");
    }

    /// The published totals, where they are at hand.
    #[test]
    fn published_rates_are_those_of_the_table() {
        let path = "../../../shared/cases/analysis/pile_memorized_totals.tsv";
        let suite = Suite::load().unwrap();
        assert_eq!(suite.published_memorization.totals.len(), 16);
        let Ok(text) = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        else {
            return;
        };
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split('\t').collect();
            let model = suite.find(cells[1]).unwrap();
            let (n, all): (f64, f64) = (cells[2].parse().unwrap(), cells[3].parse().unwrap());
            let found = suite.published_rate(&model).unwrap();
            assert!((found.rate - n / all).abs() < 1e-15, "{}", model.name);
            assert!(found.source.starts_with(model.name), "{}", found.source);
        }
    }

    /// The table that this registry was made from, where it is at hand.
    #[test]
    fn facts_are_those_of_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/cases/suite.tsv");
        let Ok(text) = std::fs::read_to_string(path) else {
            return;
        };
        let suite = Suite::load().unwrap();
        let mut lines = text
            .lines()
            .map(|line| line.split('\t').collect::<Vec<_>>());
        let header = lines.next().unwrap();
        let mut n = 0;
        for line in lines {
            let text = |key: &str| line[header.iter().position(|name| *name == key).unwrap()];
            let model = suite.find(text("model_id")).unwrap();
            let facts = [
                ("n_checkpoints_hf", model.checkpoints.len().to_string()),
                ("n_layers", model.size.layers.to_string()),
                ("d_model", model.size.hidden_size.to_string()),
                ("n_heads", model.size.heads.to_string()),
                ("d_head", model.shape().head_size().to_string()),
                ("d_ff", model.size.intermediate_size.to_string()),
                ("rotary_pct", model.shape().rotary_pct.to_string()),
                ("rotary_dims", model.shape().n_rotary().to_string()),
                ("vocab_padded", model.size.vocabulary.to_string()),
                ("params_total", model.size.parameters.to_string()),
                ("batch_sequences", model.batch_size.to_string()),
                (
                    "batch_tokens",
                    (model.batch_size * SEQUENCE_LENGTH).to_string(),
                ),
                ("train_iters_actual", model.steps.to_string()),
                ("hf_step_per_actual_step", model.revision_factor.to_string()),
                ("lr_max", model.size.learning_rate.to_string()),
                ("lr_min", model.learning_rate_min.to_string()),
                ("model_parallel", model.size.model_parallel.to_string()),
                ("gpus", model.gpus.to_string()),
                ("seed", model.seed.to_string()),
            ];
            for (key, value) in facts {
                let number = |text: &str| text.parse::<f64>().unwrap();
                let difference = number(text(key)) - number(&value);
                assert!(difference.abs() < 1e-12, "{}: {key}", model.name);
            }
            assert_eq!(text("suite"), model.series);
            assert_eq!(text("data"), model.corpus);
            assert_eq!(text("hf_repo"), model.repository());
            assert_eq!(text("train_precision"), model.size.precision);
            assert_eq!(text("config_path"), model.config.unwrap_or("-"));
            n += 1;
        }
        assert_eq!(n, 79);
    }
}
