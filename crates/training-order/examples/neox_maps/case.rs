//! What our loader answers to a reference case: the arrays that GPT-NeoX's loader was recorded with.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::Path;
use training_order::blend::weights_by_documents;
use training_order::loader::{Evaluation, n_sequences_wanted};
use training_order::mmididx::Dataset;
use training_order::{Items, LoaderSettings, Mixture, Part, TrainingIndex, TrainingOrder};

/// Sequences recorded of the validation and test datasets.
const N_EVALUATION_SEQUENCES: u64 = 40;
/// Tokens recorded of each sequence.
const N_TOKENS: usize = 64;

/// One array: its shape, and its numbers row by row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Vec<i64>,
}

/// The arrays of the names in `expected`, without `.npy`.
///
/// Reads `kind`, `params` or the preshuffled fields of `case.json`, and the data files beside it.
///
/// # Errors
///
/// When the case cannot be read, or a name in `expected` is none of ours.
pub(crate) fn answer(
    case: &Path,
    expected: &BTreeSet<String>,
) -> Result<BTreeMap<String, Array>, Box<dyn Error>> {
    let json: Value = serde_json::from_slice(&fs::read(case.join("case.json"))?)?;
    let mut answers = Answers {
        expected,
        arrays: BTreeMap::new(),
    };
    match json["kind"].as_str() {
        Some("neox") => answers.neox(case, &json["params"])?,
        Some("preshuffled") => answers.preshuffled(case, &json)?,
        kind => return Err(format!("the case is of the kind {kind:?}").into()),
    }
    match expected
        .iter()
        .find(|name| !answers.arrays.contains_key(*name))
    {
        None => Ok(answers.arrays),
        Some(name) => Err(format!("there is no answer to `{name}`").into()),
    }
}

struct Answers<'a> {
    expected: &'a BTreeSet<String>,
    arrays: BTreeMap<String, Array>,
}

impl Answers<'_> {
    fn add(&mut self, name: String, shape: Vec<usize>, numbers: Vec<i64>) {
        if self.expected.contains(&name) {
            self.arrays.insert(name, Array { shape, numbers });
        }
    }

    fn wants(&self, start: &str) -> bool {
        self.expected.iter().any(|name| name.starts_with(start))
    }

    fn neox(&mut self, case: &Path, params: &Value) -> Result<(), Box<dyn Error>> {
        let run = Run::read(case, params)?;
        let evaluation = Evaluation {
            interval: run.number("eval_interval")?,
            iters: run.number("eval_iters")?,
        };
        let wanted = n_sequences_wanted(run.n_steps, run.batch_size(), evaluation);
        let parts = [
            ("train", Part::Training),
            ("valid", Part::Validation),
            ("test", Part::Test),
        ];
        for ((name, part), n_sequences) in parts.into_iter().zip(wanted) {
            if !self.wants(name) {
                continue;
            }
            let mixture = Mixture::build(
                run.datasets(name)?,
                part,
                &run.items,
                n_sequences,
                run.sequence_length,
                run.seed,
            )?;
            self.maps(name, &mixture, run.items == Items::TrainDataPaths)?;
            let n = match part {
                Part::Training => mixture.len(),
                _ => mixture.len().min(N_EVALUATION_SEQUENCES),
            };
            match part {
                Part::Training => self.training(&run, &mixture)?,
                _ => self.sequences(name, &mixture, (0..n).collect(), run.sequence_length)?,
            }
            if self.wants(&format!("{name}_full")) {
                self.sequences(
                    &format!("{name}_full"),
                    &mixture,
                    (0..n).collect(),
                    run.sequence_length,
                )?;
            }
        }
        Ok(())
    }

    /// The three maps of each member, and how the members are mixed.
    fn maps(&mut self, name: &str, mixture: &Mixture, paths: bool) -> Result<(), Box<dyn Error>> {
        for (number, member) in mixture.members().iter().enumerate() {
            let stem = if paths {
                format!("{name}_{number}")
            } else {
                name.to_owned()
            };
            let (map, dataset) = (member.index_map(), member.dataset());
            let widened = |n: Result<u32, _>| n.map(i64::from);
            let documents: Vec<i64> = map.doc_idx().map(widened).collect::<Result<_, _>>()?;
            self.add(format!("{stem}_doc_idx"), vec![documents.len()], documents);
            let shuffled: Vec<i64> = map.shuffle_idx().map(widened).collect::<Result<_, _>>()?;
            self.add(
                format!("{stem}_shuffle_idx"),
                vec![shuffled.len()],
                shuffled,
            );
            let starts = map.sample_idx(dataset)?;
            let shape = vec![starts.len(), 2];
            let starts = starts.into_iter().flatten().map(i64::try_from);
            self.add(
                format!("{stem}_sample_idx"),
                shape,
                starts.collect::<Result<_, _>>()?,
            );
        }
        if paths {
            let len = usize::try_from(mixture.len())?;
            let (members, places) = match mixture.blend() {
                None => (vec![0; len], (0..i64::try_from(len)?).collect()),
                Some(blend) => (
                    blend.members().iter().copied().map(i64::from).collect(),
                    blend.places().iter().copied().map(i64::from).collect(),
                ),
            };
            self.add(format!("{name}_blend_dataset_index"), vec![len], members);
            self.add(
                format!("{name}_blend_dataset_sample_index"),
                vec![len],
                places,
            );
        }
        Ok(())
    }

    /// What the loader serves, step by step, from the iteration on at which the run is resumed.
    fn training(&mut self, run: &Run<'_>, mixture: &Mixture) -> Result<(), Box<dyn Error>> {
        let per_micro_batch = u64::from(run.micro_batch) * u64::from(run.n_ranks);
        let n_micro_batches = mixture.len() / per_micro_batch;
        let accumulation = u64::from(run.accumulation);
        let mut next = (u64::from(run.resume) * accumulation)
            .checked_rem(n_micro_batches)
            .unwrap_or(0);
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for step in run.resume..run.n_steps {
            if next + accumulation > n_micro_batches {
                break;
            }
            for micro_batch in 0..accumulation {
                for slot in 0..per_micro_batch {
                    let place = next * per_micro_batch + slot;
                    let (member, sample) = mixture.place(place).ok_or("a place beyond the end")?;
                    let rank = slot / u64::from(run.micro_batch);
                    let row = [
                        u64::from(step),
                        micro_batch,
                        rank,
                        place,
                        member as u64,
                        sample.into(),
                    ];
                    rows.extend(row.map(i64::try_from));
                    places.push(place);
                }
                next += 1;
            }
        }
        let rows = rows.into_iter().collect::<Result<_, _>>()?;
        self.add("train_order".to_owned(), vec![places.len(), 6], rows);
        self.sequences("train", mixture, places, run.sequence_length)
    }

    /// First tokens and checksums of the sequences at `places`.
    fn sequences(
        &mut self,
        name: &str,
        mixture: &Mixture,
        places: Vec<u64>,
        sequence_length: u32,
    ) -> Result<(), Box<dyn Error>> {
        let mut sequences = Vec::new();
        for place in places {
            let mut sequence = Vec::new();
            let read = mixture.read_tokens(place, 0..sequence_length + 1, &mut sequence);
            read.ok_or("a place beyond the end")??;
            sequences.push(sequence);
        }
        self.tokens(name, &sequences);
        Ok(())
    }

    fn tokens(&mut self, name: &str, sequences: &[Vec<u32>]) {
        let width = sequences.first().map_or(0, Vec::len).min(N_TOKENS);
        let first = sequences.iter().flat_map(|sequence| &sequence[..width]);
        let first = first.copied().map(i64::from).collect();
        self.add(
            format!("{name}_tokens64"),
            vec![sequences.len(), width],
            first,
        );
        let checksums = sequences.iter().map(|sequence| {
            let bytes: Vec<u8> = sequence
                .iter()
                .flat_map(|token| token.to_le_bytes())
                .collect();
            i64::from(crc32fast::hash(&bytes))
        });
        self.add(
            format!("{name}_crc32"),
            vec![sequences.len()],
            checksums.collect(),
        );
    }

    fn preshuffled(&mut self, case: &Path, json: &Value) -> Result<(), Box<dyn Error>> {
        let number = |key: &str| json[key].as_u64().ok_or(format!("`{key}` is no count"));
        let row_length = u32::try_from(number("tokens_per_sequence")?)?;
        let n_sequences = number("n_sequences")?;
        let settings = LoaderSettings {
            items: Items::TrainDataPaths,
            sequence_length: row_length - 1,
            batch_size: 1,
            n_steps: u32::try_from(n_sequences)?,
            seed: 0,
        };
        let dataset = Dataset::open(&case.join(prefix_of_the_only_idx(case)?))?;
        let order = TrainingOrder::preshuffled(dataset, &settings)?;
        let mut sequences = Vec::new();
        for index in (0..n_sequences).map(TrainingIndex::new) {
            let mut sequence = Vec::new();
            order.read_tokens(index, 0..row_length, &mut sequence)?;
            sequences.push(sequence);
        }
        self.tokens("train", &sequences);
        Ok(())
    }
}

/// `document.idx` → `document`
fn prefix_of_the_only_idx(folder: &Path) -> Result<String, Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(prefix) = name.strip_suffix(".idx") {
            return Ok(prefix.to_owned());
        }
    }
    Err("there is no `.idx`".into())
}

/// The parameters of a run of GPT-NeoX.
struct Run<'a> {
    case: &'a Path,
    params: &'a Value,
    items: Items,
    n_steps: u32,
    micro_batch: u32,
    accumulation: u32,
    n_ranks: u32,
    sequence_length: u32,
    seed: u32,
    resume: u32,
}

impl<'a> Run<'a> {
    fn read(case: &'a Path, params: &'a Value) -> Result<Self, Box<dyn Error>> {
        let number = |key: &str| -> Result<u32, Box<dyn Error>> {
            let number = params[key].as_u64().ok_or(format!("`{key}` is no count"))?;
            Ok(u32::try_from(number)?)
        };
        let items = match params["data_path"].as_str() {
            None => Items::TrainDataPaths,
            Some(_) => Items::DataPath {
                split: params["split"].as_str().unwrap_or("969, 30, 1").parse()?,
            },
        };
        Ok(Self {
            case,
            params,
            items,
            n_steps: number("train_iters")?,
            micro_batch: number("micro_batch_size")?,
            accumulation: number("gradient_accumulation_steps")?,
            n_ranks: number("data_parallel_size")?,
            sequence_length: number("seq_length")?,
            seed: number("seed")?,
            resume: params["resume_iteration"]
                .as_u64()
                .unwrap_or(0)
                .try_into()?,
        })
    }

    fn number(&self, key: &str) -> Result<u32, Box<dyn Error>> {
        Ok(u32::try_from(
            self.params[key]
                .as_u64()
                .ok_or(format!("`{key}` is no count"))?,
        )?)
    }

    fn batch_size(&self) -> u32 {
        self.micro_batch * self.accumulation * self.n_ranks
    }

    /// The datasets of `part`, with their weights.
    fn datasets(&self, part: &str) -> Result<Vec<(Dataset, f64)>, Box<dyn Error>> {
        let open = |name: &Value| -> Result<Dataset, Box<dyn Error>> {
            Ok(Dataset::open(
                &self.case.join(name.as_str().ok_or("a path is no text")?),
            )?)
        };
        if self.items != Items::TrainDataPaths {
            return Ok(vec![(open(&self.params["data_path"])?, 1.0)]);
        }
        let paths = self.params[format!("{part}_data_paths")]
            .as_array()
            .ok_or("no paths")?;
        let datasets = paths.iter().map(open).collect::<Result<Vec<_>, _>>()?;
        let weights = if self.params["weight_by_num_documents"].as_bool() == Some(true) {
            let alpha = self.params["weighted_sampler_alpha"]
                .as_f64()
                .unwrap_or(0.3);
            let n_documents: Vec<u64> = datasets.iter().map(Dataset::n_items).collect();
            weights_by_documents(&n_documents, alpha)
        } else {
            match self.params[format!("{part}_data_weights")].as_array() {
                None => vec![1.0; datasets.len()],
                Some(weights) => weights.iter().filter_map(Value::as_f64).collect(),
            }
        };
        if weights.len() != datasets.len() {
            return Err("there is not one weight for each path".into());
        }
        Ok(datasets.into_iter().zip(weights).collect())
    }
}
