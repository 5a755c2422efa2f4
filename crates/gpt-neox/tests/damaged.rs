//! Checkpoints that must not be believed: each is refused by the file's name, with a cure, at once.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use gpt_neox::{
    Checkpoint, DeviceChoice, GptNeox, Judge, JudgeError, LoadError, Measures, Precision, Probes,
};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reference")
        .join(name)
}

/// A copy of a reference model.
fn copy(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(reference(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

/// What opening and reading all of it says, which must take no time.
fn read_all(folder: &Path) -> Result<(), LoadError> {
    let begun = Instant::now();
    let read = Checkpoint::open(folder).and_then(|checkpoint| checkpoint.check());
    assert!(begun.elapsed() < Duration::from_secs(20));
    read
}

/// The words of an error, which has a cure and names what is at fault.
fn refused(folder: &Path, file: &str) -> String {
    let error = read_all(folder).unwrap_err();
    let words = words(&error);
    assert!(words.contains(file), "{words}");
    assert!(error.hint().is_some(), "{words}");
    assert!(
        GptNeox::load(folder, DeviceChoice::Cpu, Precision::F32).is_err(),
        "what the check refuses does not load: {words}"
    );
    words
}

fn words(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Rewrites a file of weights: each tensor's name, type, shape and bytes.
fn rewrite(path: &Path, mut change: impl FnMut(&mut String, &mut Dtype, &mut Vec<u8>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.tensors().into_iter().map(|(mut name, tensor)| {
        let (mut dtype, mut data) = (tensor.dtype(), tensor.data().to_vec());
        change(&mut name, &mut dtype, &mut data);
        (name, dtype, tensor.shape().to_vec(), data)
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data).unwrap();
        (name, view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn whole_checkpoints_pass() {
    for name in [
        "massive_activations_f16",
        "old_bin_bf16",
        "parallel_published_f16",
        "rotary_all_sharded",
        "rotary_half_bin_sharded",
        "rotary_of_80_bin_f16",
        "sequential_bf16",
        "tied_no_bias",
    ] {
        read_all(&reference(name)).unwrap();
        // The hub's cache is made of links.
        let linked = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(reference(name)).unwrap() {
            let path = entry.unwrap().path();
            symlink(&path, linked.path().join(path.file_name().unwrap())).unwrap();
        }
        read_all(linked.path()).unwrap();
    }
    let mini = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/mini/standard/model");
    for step in [600, 2400] {
        read_all(&mini.join(format!("step{step}"))).unwrap();
    }
}

#[test]
fn only_regular_files_are_opened() {
    for (model, file) in [
        ("parallel_published_f16", "config.json"),
        ("parallel_published_f16", "model.safetensors"),
        ("rotary_of_80_bin_f16", "pytorch_model.bin"),
        ("rotary_all_sharded", "model.safetensors.index.json"),
        ("rotary_all_sharded", "model-00002-of-00004.safetensors"),
    ] {
        for found in ["a pipe", "a device", "a folder"] {
            let folder = copy(model);
            let path = folder.path().join(file);
            fs::remove_file(&path).unwrap();
            match found {
                "a pipe" => {
                    let made = Command::new("mkfifo").arg(&path).status().unwrap();
                    assert!(made.success());
                }
                "a device" => symlink("/dev/zero", &path).unwrap(),
                _ => fs::create_dir(&path).unwrap(),
            }
            let words = refused(folder.path(), file);
            assert!(words.contains(found), "{words}");
        }
        let folder = copy(model);
        let path = folder.path().join(file);
        fs::remove_file(&path).unwrap();
        symlink("gone", &path).unwrap();
        refused(folder.path(), file);
    }
}

#[test]
fn what_was_saved_in_place_of_a_file_is_named() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n";
    for (model, file) in [
        ("parallel_published_f16", "config.json"),
        ("parallel_published_f16", "model.safetensors"),
        ("rotary_of_80_bin_f16", "pytorch_model.bin"),
        ("rotary_all_sharded", "model.safetensors.index.json"),
    ] {
        for (text, expected) in [
            (pointer, "git lfs pull"),
            ("Entry not found", "access"),
            ("\n<!DOCTYPE html>\n<html>", "access"),
        ] {
            let folder = copy(model);
            fs::write(folder.path().join(file), text).unwrap();
            let error = read_all(folder.path()).unwrap_err();
            assert!(error.to_string().contains(file), "{error}");
            assert!(error.hint().unwrap().contains(expected), "{error}");
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    for model in [
        "parallel_published_f16",
        "rotary_of_80_bin_f16",
        "rotary_all_sharded",
    ] {
        for file in checkpoint_files(&reference(model)) {
            let folder = copy(model);
            let path = folder.path().join(&file);
            let open = || {
                let checkpoint = Checkpoint::open(folder.path()).unwrap();
                checkpoint.check_unchanged().unwrap();
                checkpoint
            };
            let changed = |checkpoint: &Checkpoint| match checkpoint.check().unwrap_err() {
                LoadError::Changed { path: found } => assert_eq!(found, path),
                error => panic!("{error}"),
            };
            // Another file at its path.
            let checkpoint = open();
            let other = folder.path().join("other");
            fs::copy(&path, &other).unwrap();
            fs::rename(&other, &path).unwrap();
            changed(&checkpoint);
            // The same file, with another last byte.
            let checkpoint = open();
            edit(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
            changed(&checkpoint);
            // Gone.
            edit(&path, |bytes| *bytes.last_mut().unwrap() ^= 1);
            let checkpoint = open();
            fs::remove_file(&path).unwrap();
            changed(&checkpoint);
        }
    }
}

fn checkpoint_files(folder: &Path) -> Vec<PathBuf> {
    let files = gpt_neox::checkpoint_files(folder).unwrap().into_iter();
    files
        .map(|path| path.strip_prefix(folder).unwrap().to_owned())
        .collect()
}

/// Where the record of the last file of an archive whose name ends so is, in its list of files.
fn record(bytes: &[u8], name: &str) -> usize {
    let ends = |at: &usize| {
        let n = usize::from(u16::from_le_bytes([bytes[at + 28], bytes[at + 29]]));
        bytes[at + 46..at + 46 + n].ends_with(name.as_bytes())
    };
    let mut records = (0..bytes.len() - 46).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02"));
    records.rfind(ends).unwrap()
}

#[test]
fn an_archive_is_held_to_what_it_says_of_itself() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 9] = [
        ("lacks its storage", |bytes| {
            let at = record(bytes, "data/3");
            bytes[at + 46..][..100]
                .windows(6)
                .position(|name| name == b"data/3")
                .map(|place| bytes[at + 46 + place] = b'x')
                .unwrap();
        }),
        ("checksum", |bytes| {
            let at = record(bytes, "data/3");
            bytes[at + 16] ^= 1;
        }),
        ("checksum", |bytes| {
            let at = record(bytes, "data.pkl");
            bytes[at + 16] ^= 1;
        }),
        ("compressed", |bytes| {
            let at = record(bytes, "data/3");
            bytes[at + 10] = 8;
        }),
        ("encrypted", |bytes| {
            let at = record(bytes, "data/3");
            bytes[at + 8] |= 1;
        }),
        ("the pickle says", |bytes| {
            let at = record(bytes, "data/3");
            bytes[at + 20] += 4;
            bytes[at + 24] += 4;
        }),
        ("over", |bytes| {
            let at = record(bytes, "data.pkl");
            bytes[at + 23] = 0x7f;
            bytes[at + 27] = 0x7f;
        }),
        ("lies outside", |bytes| {
            let at = record(bytes, "data/3");
            bytes[at + 45] = 0x7f;
        }),
        ("behind its end", |bytes| bytes.extend([0; 100])),
    ];
    for (problem, change) in changes {
        let folder = copy("rotary_of_80_bin_f16");
        edit(&folder.path().join("pytorch_model.bin"), change);
        let words = refused(folder.path(), "pytorch_model.bin");
        assert!(words.contains(problem), "{words}");
    }
    // A number that is another one.
    let folder = copy("rotary_of_80_bin_f16");
    edit(&folder.path().join("pytorch_model.bin"), |bytes| {
        bytes[20_000] ^= 1;
    });
    refused(folder.path(), "pytorch_model.bin");
    // The archive of PyTorch before 0.1.10, which can claim any length.
    let folder = copy("rotary_of_80_bin_f16");
    edit(&folder.path().join("pytorch_model.bin"), |bytes| {
        bytes.truncate(4096);
        bytes.fill(0);
        bytes[257..262].copy_from_slice(b"ustar");
    });
    let words = refused(folder.path(), "pytorch_model.bin");
    assert!(words.contains("torch.save"), "{words}");
}

#[test]
fn a_file_that_was_not_filled_to_its_end_is_refused() {
    for (model, file) in [
        ("parallel_published_f16", "model.safetensors"),
        ("old_bin_bf16", "pytorch_model.bin"),
    ] {
        let folder = copy(model);
        edit(&folder.path().join(file), |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
        });
        let words = refused(folder.path(), file);
        // Of the old container the counts are zero, too.
        assert!(
            words.contains("zeros in a row") || words.contains("has 0 numbers"),
            "{words}"
        );
    }
    let folder = copy("parallel_published_f16");
    rewrite(
        &folder.path().join("model.safetensors"),
        |name, dtype, data| {
            if name == "gpt_neox.final_layer_norm.bias" {
                assert_eq!(*dtype, Dtype::F16);
                data[4..6].copy_from_slice(&half::f16::NAN.to_le_bytes());
            }
        },
    );
    let words = refused(folder.path(), "model.safetensors");
    assert!(words.contains("weight 2 of"), "{words}");
}

#[test]
fn names_with_a_prefix_are_told_apart() {
    for prefix in ["module.", "_orig_mod.", "model.", "_orig_mod.module."] {
        let folder = copy("parallel_published_f16");
        rewrite(&folder.path().join("model.safetensors"), |name, _, _| {
            name.insert_str(0, prefix);
        });
        let error = read_all(folder.path()).unwrap_err();
        assert!(matches!(&error, LoadError::Prefix { prefix: found, .. } if found == prefix));
        assert!(error.hint().unwrap().contains(prefix), "{error}");
    }
}

#[test]
fn shards_are_where_their_list_says() {
    let list = "model.safetensors.index.json";
    // In a folder below: all of them load.
    let folder = copy("rotary_all_sharded");
    fs::create_dir(folder.path().join("below")).unwrap();
    let shards = checkpoint_files(folder.path());
    for shard in shards
        .iter()
        .filter(|file| file.extension().unwrap() == "safetensors")
    {
        let below = folder.path().join("below").join(shard);
        fs::rename(folder.path().join(shard), below).unwrap();
    }
    let text = fs::read_to_string(folder.path().join(list)).unwrap();
    let below = text.replace("\"model-", "\"./below/model-");
    fs::write(folder.path().join(list), &below).unwrap();
    read_all(folder.path()).unwrap();
    // The same place by an absolute path, and by one that leads out and in again.
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    let absolute = format!("\"{}/below/model-", folder.path().display());
    let around = format!("\"../{name}/below/model-");
    for outside in [absolute, around] {
        let text = text.replace("\"model-", &outside);
        fs::write(folder.path().join(list), text).unwrap();
        let words = refused(folder.path(), list);
        assert!(words.contains("leads out"), "{words}");
    }
    // Another file of the same name.
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let first = "model-00001-of-00004.safetensors";
    fs::copy(folder.path().join("below").join(first), other.join(first)).unwrap();
    let places = below.replacen(&format!("./below/{first}"), &format!("other/{first}"), 1);
    fs::write(folder.path().join(list), places).unwrap();
    refused(folder.path(), first);
}

#[test]
fn headers_cannot_claim_memory() {
    let folder = copy("parallel_published_f16");
    let huge = format!(
        r#"{{"a": {{"dtype": "F32", "shape": [{0}, 4], "data_offsets": [0, {1}]}}}}"#,
        1_u64 << 31,
        1_u64 << 35
    );
    // Nine tensors of 2⁶¹ bytes: their end is beyond 2⁶⁴.
    let tensors = (0..9_u64).map(|i| {
        let (start, end) = (i << 61, i.wrapping_add(1) << 61);
        let size = 1_u64 << 61;
        format!(r#""t{i}": {{"dtype": "U8", "shape": [{size}], "data_offsets": [{start}, {end}]}}"#)
    });
    let overflowing = format!("{{{}}}", tensors.collect::<Vec<_>>().join(", "));
    let twice = r#"{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}"#;
    for text in [huge.as_str(), &overflowing, twice, "{}", "[", ""] {
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.push(0);
        fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
        refused(folder.path(), "model.safetensors");
    }
    for length in [u64::MAX, 1 << 63, 100_000_000] {
        fs::write(
            folder.path().join("model.safetensors"),
            length.to_le_bytes(),
        )
        .unwrap();
        refused(folder.path(), "model.safetensors");
    }
    let config = fs::read_to_string(folder.path().join("config.json")).unwrap();
    let layers = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1000000");
    assert_ne!(layers, config);
    let padded = config.clone() + &" ".repeat(1 << 20);
    for text in [
        layers,
        padded,
        String::new(),
        format!("\u{feff}{config}"),
        config + "}",
    ] {
        fs::write(folder.path().join("config.json"), text).unwrap();
        refused(folder.path(), "config.json");
    }
}

#[test]
fn logits_that_overflow_are_no_verdicts() {
    let folder = copy("parallel_published_f16");
    let tokens: Vec<u32> = (0..40 * 20).map(|i| i * 7 % 128).collect();
    let probes = Probes::new(&tokens, 8, 12).unwrap();
    for odd_row in [None, Some(127)] {
        rewrite(
            &folder.path().join("model.safetensors"),
            |name, dtype, data| {
                if *dtype == Dtype::F16 {
                    let halves = data.as_chunks::<2>().0.iter();
                    let floats = halves.map(|half| half::f16::from_le_bytes(*half).to_f32());
                    *data = floats.flat_map(f32::to_le_bytes).collect();
                    *dtype = Dtype::F32;
                }
                if name == "embed_out.weight" {
                    let n = data.len() / 128;
                    for (row, bytes) in data.chunks_exact_mut(n).enumerate() {
                        let number: f32 = if odd_row.is_none_or(|odd| odd == row) {
                            3e38
                        } else {
                            0.5
                        };
                        bytes.as_chunks_mut::<4>().0.fill(number.to_le_bytes());
                    }
                }
            },
        );
        read_all(folder.path()).unwrap();
        let mut model = GptNeox::load(folder.path(), DeviceChoice::Cpu, Precision::F32).unwrap();
        for (score, likelihood) in [(false, false), (true, false), (false, true), (true, true)] {
            for suppress_eos in [false, true] {
                let measures = Measures {
                    score,
                    likelihood,
                    suppress_eos,
                };
                let error = model.judge(&probes, measures).unwrap_err();
                let JudgeError::NotFinite { probe, .. } = error else {
                    panic!("{error}");
                };
                assert!(probe < 40 && (odd_row.is_some() || probe == 0), "{probe}");
                assert!(error.to_string().contains("finite"), "{error}");
                assert!(error.hint().is_some());
            }
        }
        assert!(model.sequence_likelihoods(&tokens, 20).is_err());
        assert!(model.sequence_logits(&tokens, 20).is_err());
    }
}
