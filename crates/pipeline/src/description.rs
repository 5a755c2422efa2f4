//! What a run is: its settings and the contents of its inputs. Says in which keys two runs differ.

use crate::config::{Run, device_kind};
use crate::fingerprint;
use crate::inputs::{Content, FOREIGN, Inputs, contents};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Keys of a run that change neither a number nor who may work on it: where files lie, and how fast it goes.
const PLACES: [&str; 4] = ["out", "device", "devices", "batch_size"];
/// The same of a corpus …
const PLACES_OF_CORPUS: [&str; 2] = ["maps", "tokenizer"];
/// … and of a model.
const PLACES_OF_MODEL: [&str; 2] = ["probes_per_second", "assumed_rate"];
/// At most so many differences are named.
const MOST: usize = 5;

/// The settings of a run, and the contents of the files it reads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Description {
    /// As in `run.json`, without what changes nothing.
    settings: Value,
    /// By corpus, checkpoint, list and model of foreign verdicts: names, lengths and hashes.
    contents: Value,
}

impl Description {
    /// That of a run whose inputs are open.
    ///
    /// # Errors
    ///
    /// When a setting has no JSON form.
    pub(crate) fn of(run: &Run, inputs: &Inputs) -> Result<Self> {
        let all: BTreeMap<String, Vec<Content<'_>>> = inputs
            .by_name()
            .map(|(name, files)| (name, contents(files)))
            .collect();
        // As they stand in a file: a number of 32 bits is another one in 64.
        let run = serde_json::from_slice(&serde_json::to_vec(run)?)?;
        Ok(Self {
            settings: settings(&run),
            contents: serde_json::to_value(all)?,
        })
    }

    /// That of a `run.json`, finished or not.
    pub(crate) fn of_record(record: &Value) -> Self {
        Self {
            settings: settings(&record["run"]),
            contents: record.get("contents").cloned().unwrap_or_else(|| json!({})),
        }
    }

    /// The contents, for `run.json`.
    pub(crate) fn contents(&self) -> &Value {
        &self.contents
    }

    /// The fingerprint of the settings.
    ///
    /// # Errors
    ///
    /// When they have no JSON form.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        fingerprint::of_values(&self.settings)
    }

    /// In what another run differs, which would work on the same folder at the same time.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        differ("", &other.settings, &self.settings, &mut found);
        contents_differ(&other.contents, &self.contents, &mut found);
        found.truncate(MOST);
        found
    }

    /// In what an earlier run differs whose verdicts this one cannot go on from. Models, checkpoints and what is
    /// done with verdicts may be others.
    pub(crate) fn conflicts(&self, earlier: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for key in ["suite", "precision", "device_kind", "probe"] {
            differ(key, &earlier.settings[key], &self.settings[key], &mut found);
        }
        let named = |settings: &Value, kind: &str| -> Map<String, Value> {
            settings[kind].as_object().cloned().unwrap_or_default()
        };
        let corpora = named(&self.settings, "corpora");
        for (name, there) in named(&earlier.settings, "corpora") {
            if let Some(here) = corpora.get(&name) {
                differ(&format!("corpus `{name}`"), &there, here, &mut found);
            }
        }
        // Foreign verdicts are joined anew.
        let mut there = earlier.contents.clone();
        if let Some(there) = there.as_object_mut() {
            there.retain(|name, _| !name.starts_with(FOREIGN));
        }
        contents_differ(&there, &self.contents, &mut found);
        found.truncate(MOST);
        found
    }
}

/// The settings among the keys of a run, corpora and models by their names.
fn settings(run: &Value) -> Value {
    let mut settings = run.clone();
    let kind = run["device"].as_str().map(kind_of).unwrap_or_default();
    remove(&mut settings, &PLACES);
    settings["device_kind"] = kind.into();
    for corpus in list(&mut settings, "corpora") {
        remove(corpus, &PLACES_OF_CORPUS);
        // Of a mixture its weights decide, wherever its members lie.
        let weights = corpus["data"]["mixture"]["weights"].take();
        corpus["data"] = weights;
        if let Some(selection) = corpus.get_mut("selection").and_then(Value::as_object_mut)
            && selection.contains_key("list")
        {
            selection.insert("list".to_owned(), Value::Null);
        }
    }
    for model in list(&mut settings, "models") {
        remove(model, &PLACES_OF_MODEL);
        model["verdicts"] = (!model["verdicts"].is_null()).into();
        let checkpoints = list(model, "checkpoints");
        let steps = checkpoints
            .iter()
            .map(|checkpoint| checkpoint["steps"].clone());
        model["checkpoints"] = steps.collect();
    }
    for kind in ["corpora", "models"] {
        let named = list(&mut settings, kind).iter_mut().map(|entry| {
            let name = entry["name"].as_str().unwrap_or_default().to_owned();
            remove(entry, &["name"]);
            (name, entry.take())
        });
        let named: Map<String, Value> = named.collect();
        settings[kind] = Value::Object(named);
    }
    settings
}

fn kind_of(device: &str) -> String {
    device
        .parse()
        .map_or_else(|_| device.to_owned(), device_kind)
}

fn list<'a>(of: &'a mut Value, key: &str) -> &'a mut [Value] {
    let list = of.get_mut(key).and_then(Value::as_array_mut);
    list.map(Vec::as_mut_slice).unwrap_or_default()
}

fn remove(from: &mut Value, keys: &[&str]) {
    if let Some(from) = from.as_object_mut() {
        from.retain(|key, _| !keys.contains(&key.as_str()));
    }
}

/// Adds a sentence for each value that is another one.
fn differ(place: &str, there: &Value, here: &Value, found: &mut Vec<String>) {
    if there == here || found.len() > MOST {
        return;
    }
    if let (Some(there), Some(here)) = (there.as_object(), here.as_object()) {
        let mut keys: Vec<&String> = there.keys().chain(here.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let place = match (place, key.as_str()) {
                ("", key) => key.to_owned(),
                ("corpora", name) => format!("corpus `{name}`"),
                ("models", name) => format!("model `{name}`"),
                (place, key) => format!("{place}.{}", key.replace('_', "-")),
            };
            let of = |of: &Map<String, Value>| of.get(key).cloned().unwrap_or_default();
            differ(&place, &of(there), &of(here), found);
        }
        return;
    }
    let short = |value: &Value| match value {
        Value::Null => "not given".to_owned(),
        Value::Object(_) => "given".to_owned(),
        Value::Array(values) if values.len() > 8 => format!("{} values", values.len()),
        other => other.to_string(),
    };
    let (there, here) = (short(there), short(here));
    found.push(if there == here {
        format!("{place} is another one")
    } else {
        format!("{place}: {there} there, {here} here")
    });
}

/// Adds a sentence for each input of both whose files are others.
fn contents_differ(there: &Value, here: &Value, found: &mut Vec<String>) {
    let (Some(there), Some(here)) = (there.as_object(), here.as_object()) else {
        return;
    };
    for (name, files) in there {
        if here.get(name).is_some_and(|here| here != files) {
            found.push(format!("{name}: its files have other contents"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(change: impl FnOnce(&mut Value)) -> Description {
        let mut record = json!({
            "run": {
                "suite": "s", "out": "/o", "device": "cpu", "devices": ["cpu"], "precision": "f32",
                "layout": null, "batch_size": null, "probe": {"k": 32, "near_tie": 1e-4},
                "analysis": {"time": {"bins": 12}},
                "corpora": [{"name": "c", "data": {"one": "/c"}, "maps": null, "tokenizer": "/t", "seed": 1,
                    "selection": "census"}],
                "models": [{"name": "m", "corpus": "c", "verdicts": null, "probes_per_second": 1.0,
                    "checkpoints": [{"steps": 10, "folder": "/m10"}]}],
            },
            "contents": {"corpus `c`": [{"name": "c.bin", "bytes": 3, "sha256": "ab"}]},
        });
        change(&mut record);
        Description::of_record(&record)
    }

    #[test]
    fn runs_differ_in_what_decides_them() {
        let base = record(|_| {});
        let places = record(|record| {
            for (key, value) in [("out", "/p"), ("device", "cpu")] {
                record["run"][key] = value.into();
            }
            record["run"]["batch_size"] = 7.into();
            record["run"]["corpora"][0]["data"] = json!({"one": "/elsewhere"});
            record["run"]["models"][0]["checkpoints"][0]["folder"] = "/n".into();
        });
        assert_eq!(base.differences(&places), Vec::<String>::new());
        assert_eq!(base.fingerprint().unwrap(), places.fingerprint().unwrap());
        let bins = record(|record| record["run"]["analysis"]["time"]["bins"] = 5.into());
        assert_eq!(
            bins.differences(&base),
            ["analysis.time.bins: 12 there, 5 here"]
        );
        assert_eq!(bins.conflicts(&base), Vec::<String>::new());
        let k = record(|record| record["run"]["probe"]["k"] = 16.into());
        assert_eq!(k.conflicts(&base), ["probe.k: 32 there, 16 here"]);
        let seed = record(|record| record["run"]["corpora"][0]["seed"] = 2.into());
        assert_eq!(seed.conflicts(&base), ["corpus `c`.seed: 1 there, 2 here"]);
        let more = record(|record| {
            let checkpoints = record["run"]["models"][0]["checkpoints"].as_array_mut();
            checkpoints
                .unwrap()
                .push(json!({"steps": 20, "folder": "/m20"}));
        });
        assert_eq!(more.conflicts(&base), Vec::<String>::new());
        assert_eq!(
            more.differences(&base),
            ["model `m`.checkpoints: [10] there, [10,20] here"]
        );
        let other = record(|record| record["contents"]["corpus `c`"][0]["sha256"] = "cd".into());
        assert_eq!(
            other.conflicts(&base),
            ["corpus `c`: its files have other contents"]
        );
    }
}
