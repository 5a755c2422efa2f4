//! `pipeline audit`: checkpoints that are not what their names say, made of the miniature suite's.

use crate::program::{Outcome, RunFile, mini, pipeline, root, succeed, table};
use gpt_neox::{Checkpoint, GptNeoxConfig, tensor_shapes};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A checkpoint's tensors: shape and numbers.
type Weights = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Steps of a training run that is the miniature's, with checkpoints between its own.
const STEPS: [u32; 13] = [
    600, 750, 900, 1050, 1200, 1350, 1500, 1650, 1800, 1950, 2100, 2250, 2400,
];

fn read(folder: &Path) -> Weights {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let shapes = tensor_shapes(checkpoint.config()).into_iter();
    shapes
        .map(|(name, shape)| {
            let numbers = checkpoint.read(&name).unwrap();
            (name, (shape, numbers))
        })
        .collect()
}

fn write(folder: &Path, config: &Path, weights: &Weights) {
    fs::create_dir_all(folder).unwrap();
    fs::copy(config, folder.join("config.json")).unwrap();
    let bytes: BTreeMap<&String, (&Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, (shape, numbers))| {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            (name, (shape, bytes.collect()))
        })
        .collect();
    let views = bytes.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap();
        (*name, view)
    });
    let file = safetensors::serialize(views, None).unwrap();
    assert!(!SafeTensors::deserialize(&file).unwrap().is_empty());
    fs::write(folder.join("model.safetensors"), file).unwrap();
}

/// A run: its checkpoints in `models/step…`, and its run file.
struct Run {
    folder: TempDir,
    file: PathBuf,
    weights: BTreeMap<u32, Weights>,
}

impl Run {
    fn new() -> Self {
        let own = [600, 1200, 1800, 2400].map(|step| {
            (
                step,
                read(&mini().join(format!("standard/model/step{step}"))),
            )
        });
        let own = BTreeMap::from(own);
        let between = |step: u32| {
            let (lo, before) = own.range(..=step).next_back().unwrap();
            let (hi, after) = own.range(step..).next().unwrap();
            let share = if lo == hi {
                0.0
            } else {
                f64::from(step - lo) / f64::from(hi - lo)
            };
            let mixed = before.iter().map(|(name, (shape, a))| {
                let mix = a.iter().zip(&after[name].1).map(|(a, b)| {
                    #[expect(clippy::cast_possible_truncation, reason = "a weight")]
                    let mixed = (f64::from(*a) + share * f64::from(b - a)) as f32;
                    mixed
                });
                (name.clone(), (shape.clone(), mix.collect()))
            });
            mixed.collect::<Weights>()
        };
        let folder = tempfile::tempdir().unwrap();
        let file = RunFile {
            judge: "gpt-neox",
            checkpoints: folder.path().join("models"),
            numbers: STEPS.to_vec(),
            ..RunFile::default()
        };
        let run = Self {
            file: file.write(folder.path()),
            folder,
            weights: STEPS.map(|step| (step, between(step))).into(),
        };
        for step in STEPS {
            run.save(step, &run.weights[&step]);
        }
        run
    }

    fn save(&self, step: u32, weights: &Weights) {
        let config = mini().join("standard/model/step600/config.json");
        let folder = self.folder.path().join(format!("models/step{step}"));
        write(&folder, &config, weights);
    }

    fn call(&self, command: &str) -> Outcome {
        pipeline(self.folder.path(), &[command, self.file.to_str().unwrap()])
    }

    /// The lines of the audit that say what is wrong.
    fn wrong(&self) -> Vec<String> {
        let outcome = self.call("audit");
        let lines = outcome.stdout.lines();
        let wrong: Vec<String> = lines
            .filter_map(|line| Some(line.strip_prefix("wrong: mini: ")?.to_owned()))
            .collect();
        assert_eq!(outcome.code, i32::from(!wrong.is_empty()), "{outcome:?}");
        assert_eq!(
            outcome.stdout.contains("mini: nothing wrong\n"),
            wrong.is_empty()
        );
        wrong
    }
}

/// The first tensors of one, the others of another.
fn with_first_shard(shard: &Weights, rest: &Weights) -> Weights {
    let n = rest.len() / 3;
    let first = shard.iter().take(n);
    let all = first.chain(rest.iter().skip(n));
    all.map(|(name, tensor)| (name.clone(), tensor.clone()))
        .collect()
}

#[test]
fn checkpoints_that_are_not_what_their_names_say_are_found() {
    let run = Run::new();
    assert_eq!(run.wrong(), [""; 0]);

    // As pythia-2.8b: many revisions hold the last weights.
    for step in [1050, 1200, 1950] {
        run.save(step, &run.weights[&2400]);
    }
    let wrong = run.wrong();
    assert_eq!(
        wrong[0],
        "checkpoints 1050, 1200, 1950, 2400: the same weights"
    );
    // The way there and back is far.
    for pair in ["900 and 1050", "1200 and 1350"] {
        let start = format!("checkpoints {pair}: ");
        assert!(
            wrong.iter().any(|line| line.starts_with(&start)),
            "{pair}: {wrong:?}"
        );
    }
    for command in ["run", "check"] {
        let refused = run.call(command);
        assert_eq!(refused.code, 1);
        let text = "the checkpoints 1050, 1200, 1950, 2400 of `mini` have the same weights";
        assert!(refused.stderr.contains(text), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: ") && refused.stderr.contains("pipeline audit"));
    }
    assert!(!run.folder.path().join("out").exists());
    for step in [1050, 1200, 1950] {
        run.save(step, &run.weights[&step]);
    }

    // As pythia-12b: the first shard is the last checkpoint's.
    let last = &run.weights[&2400];
    run.save(1050, &with_first_shard(last, &run.weights[&1050]));
    let wrong = run.wrong();
    assert!(
        wrong[0].starts_with("checkpoints 1050 and 2400: "),
        "{wrong:?}"
    );
    assert!(wrong[0].contains(" tensors are the same, "), "{wrong:?}");

    // A first shard of another run is no other checkpoint's, and far from both neighbours.
    let foreign = read(&mini().join("deduped/model/step1200"));
    run.save(1050, &with_first_shard(&foreign, &run.weights[&1050]));
    let wrong = run.wrong();
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    for (line, pair) in wrong.iter().zip(["900 and 1050", "1050 and 1200"]) {
        assert!(line.starts_with(&format!("checkpoints {pair}: ")), "{line}");
        assert!(
            line.ends_with(" times as far apart, per step, as their neighbours"),
            "{line}"
        );
    }

    // A damaged one is said to be, and the others are compared.
    fs::write(
        run.folder.path().join("models/step1050/model.safetensors"),
        "x",
    )
    .unwrap();
    let wrong = run.wrong();
    assert_eq!(wrong.len(), 1);
    assert!(wrong[0].starts_with("checkpoint 1050: `"), "{wrong:?}");
    assert!(
        wrong[0].contains("is no whole safetensors file"),
        "{wrong:?}"
    );
}

#[test]
fn equal_tensors_have_equal_hashes_in_every_file_format() {
    // Four `.bin` shards, and the same numbers in one safetensors file.
    let source = root().join("crates/gpt-neox/tests/reference/rotary_half_bin_sharded");
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let copied = models.join("step600");
    fs::create_dir_all(&copied).unwrap();
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "reference.safetensors" {
            fs::copy(&path, copied.join(path.file_name().unwrap())).unwrap();
        }
    }
    write(
        &models.join("step2400"),
        &source.join("config.json"),
        &read(&source),
    );
    let file = RunFile {
        judge: "gpt-neox",
        checkpoints: models,
        ..RunFile::default()
    };
    let path = file.write(folder.path());
    let outcome = pipeline(folder.path(), &["audit", path.to_str().unwrap()]);
    assert_eq!(outcome.code, 1);
    let rows: Vec<Vec<&str>> = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("mini "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][1], rows[1][1]);
    assert_ne!(rows[0][2], rows[1][2]);
    let text = "wrong: mini: checkpoints 600, 2400: the same weights\n";
    assert!(outcome.stdout.contains(text), "{}", outcome.stdout);
}

#[test]
fn the_registry_knows_shapes_and_equal_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    // Pythia-14M's shape, in halves.
    let config = r#"{"model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 128, "num_hidden_layers": 6,
        "num_attention_heads": 4, "intermediate_size": 512, "max_position_embeddings": 2048, "vocab_size": 50304,
        "rotary_pct": 0.25, "rotary_emb_base": 10000, "layer_norm_eps": 1e-05, "use_parallel_residual": true,
        "tie_word_embeddings": false}"#;
    let shapes = tensor_shapes(&GptNeoxConfig::from_json(config.as_bytes()).unwrap());
    // Each number is 1.06: weights that are all 0 are refused.
    let bytes = vec![0x3c; 50_304 * 128 * 2];
    let views = shapes.iter().map(|(name, shape)| {
        let n = shape.iter().product::<usize>();
        (
            name,
            TensorView::new(Dtype::F16, shape.clone(), &bytes[..2 * n]).unwrap(),
        )
    });
    let file = safetensors::serialize(views, None).unwrap();
    for step in [0, 1, 1000] {
        let step = folder.path().join(format!("step{step}"));
        fs::create_dir(&step).unwrap();
        fs::write(step.join("config.json"), config).unwrap();
        fs::write(step.join("model.safetensors"), &file).unwrap();
    }
    let audit = |name: &str, steps: &str| {
        let path = RunFile {
            checkpoints: folder.path().to_owned(),
            ..RunFile::default()
        }
        .write(folder.path());
        let pythia = "sequence-length = 2048\nbatch-size = 1024\nsteps = 143000";
        let text = fs::read_to_string(&path).unwrap();
        let text = text
            .replace(
                "sequence-length = 128\nbatch-size = 8\nsteps = 2400",
                pythia,
            )
            .replace("name = \"mini\"", &format!("name = \"{name}\""))
            .replace("[600, 2400]", steps);
        fs::write(&path, text).unwrap();
        pipeline(folder.path(), &["audit", path.to_str().unwrap()])
    };
    let known = audit("pythia-14m", "[0, 1]");
    assert_eq!(known.code, 0, "{}", known.stderr);
    let text = "note: pythia-14m: checkpoints 0, 1: the same weights, as the suite knows\n";
    assert!(known.stdout.contains(text), "{}", known.stdout);
    assert!(known.stdout.contains("  F16  "), "{}", known.stdout);
    let unknown = audit("pythia-14m", "[0, 1, 1000]");
    assert_eq!(unknown.code, 1);
    let text = "wrong: pythia-14m: checkpoints 0, 1, 1000: the same weights\n";
    assert!(unknown.stdout.contains(text), "{}", unknown.stdout);
    let other = audit("pythia-31m", "[0]");
    assert_eq!(other.code, 1);
    let text = "wrong: pythia-31m: checkpoint 0: its hidden_size is 128, that of the suite's `pythia-31m` 256\n";
    assert!(other.stdout.contains(text), "{}", other.stdout);
}

#[test]
fn every_table_of_a_model_carries_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = RunFile {
        judge: "gpt-neox",
        ..RunFile::default()
    }
    .write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    let sample = "seed = 1234\n[corpus.sample]\nevery = 100\nrows = 1\nseed = 1\n";
    fs::write(&path, text.replace("seed = 1234\n", sample)).unwrap();
    succeed(folder.path(), &["run", path.to_str().unwrap()]);
    let audit = succeed(folder.path(), &["audit", path.to_str().unwrap()]);
    let files = |step: &str| {
        let row = audit
            .stdout
            .lines()
            .find(|line| line.contains(step))
            .unwrap();
        row.split_whitespace().nth(2).unwrap().to_owned()
    };
    let out = folder.path().join("out");
    let part = out.join("verdicts/model=mini/checkpoint=600/part-standard-00000.parquet");
    assert!(crate::resume::footer(&part, "weights").starts_with(&files(" 600 ")));
    assert_eq!(table(&out, "memorization.parquet").height(), 2 * 24);
    for name in ["memorization.parquet", "memorization_by_time.parquet"] {
        let weights = crate::resume::footer(&out.join(name), "weights");
        let weights: serde_json::Value = serde_json::from_str(&weights).unwrap();
        let last = weights["mini"]["2400"].as_str().unwrap();
        assert!(last.starts_with(&files(" 2400 ")), "{weights}");
        assert_ne!(weights["mini"]["600"], weights["mini"]["2400"]);
    }
}
