//! The keys of a `config.json`, each with its type, its default and its names in both dialects.

use super::ConfigError;
use serde_json::{Map, Value};

/// The object of a `config.json`.
pub(super) struct Keys(pub(super) Map<String, Value>);

impl Keys {
    /// The value of a key, or of one in an object by `object.key`; null counts.
    fn at(&self, path: &str) -> Option<&Value> {
        match path.split_once('.') {
            None => self.0.get(path),
            Some((object, key)) => self.0.get(object)?.get(key),
        }
    }

    /// The same where it is not null.
    pub(super) fn given(&self, path: &str) -> Option<&Value> {
        self.at(path).filter(|value| !value.is_null())
    }

    pub(super) fn must_be(
        &self,
        key: &'static str,
        default: Option<&str>,
        expected: &'static str,
    ) -> Result<(), ConfigError> {
        let found = match self.at(key) {
            Some(Value::String(found)) if found == expected => return Ok(()),
            Some(found) => shown(found),
            None if default == Some(expected) => return Ok(()),
            None => "missing".to_owned(),
        };
        Err(ConfigError::Unsupported {
            key,
            found,
            expected,
        })
    }

    /// Refuses rotary embeddings of another kind than the first one's.
    pub(super) fn check_rope(&self) -> Result<(), ConfigError> {
        for (object, key) in [
            ("rope_parameters", "rope_parameters.rope_type"),
            ("rope_scaling", "rope_scaling"),
        ] {
            let keys = match self.given(object) {
                None => continue,
                Some(Value::Object(keys)) => keys,
                Some(found) => return Err(of_type(object, found, "an object")),
            };
            let kinds = ["rope_type", "type"].map(|kind| keys.get(kind));
            let other = |kind: &&Value| !kind.is_null() && *kind != "default";
            if let Some(kind) = kinds.into_iter().flatten().find(other) {
                let whole = Value::Object(keys.clone());
                return Err(ConfigError::Unsupported {
                    key,
                    found: shown(if object == key { &whole } else { kind }),
                    expected: "default",
                });
            }
        }
        Ok(())
    }

    pub(super) fn size(&self, key: &'static str) -> Result<usize, ConfigError> {
        let value = self.at(key).ok_or(ConfigError::Absent { key })?;
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| of_type(key, value, "a whole number"))
    }

    pub(super) fn number(&self, path: &str) -> Result<Option<f64>, ConfigError> {
        let number = |value: &Value| {
            value
                .as_f64()
                .ok_or_else(|| of_type(path, value, "a number"))
        };
        self.at(path).map(number).transpose()
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.at(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(found) => Err(of_type(key, found, "true or false")),
        }
    }

    /// A number that goes by several names, which must agree; the first is that of transformers up to 4.
    pub(super) fn rotary(
        &self,
        names: [&'static str; 4],
        default: f64,
    ) -> Result<f64, ConfigError> {
        let mut found: Option<(&'static str, f64)> = None;
        for second in names {
            if self.given(second).is_none() {
                continue;
            }
            let Some(second_value) = self.number(second)? else {
                continue;
            };
            match found {
                None => found = Some((second, second_value)),
                Some((first, first_value)) if first_value.to_bits() != second_value.to_bits() => {
                    return Err(ConfigError::Dialects {
                        first,
                        first_value,
                        second,
                        second_value,
                    });
                }
                Some(_) => {}
            }
        }
        let [old, new, ..] = names;
        match found {
            Some((_, value)) => Ok(value),
            // Absent, transformers has its default; it fails on null.
            None if names.iter().all(|name| self.at(name).is_none()) => Ok(default),
            None => Err(ConfigError::Missing { old, new }),
        }
    }
}

fn of_type(key: &str, found: &Value, expected: &'static str) -> ConfigError {
    ConfigError::Type {
        key: key.to_owned(),
        found: shown(found),
        expected,
    }
}

/// A value as it is quoted in an error, not at any length.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 100;
    let text = match value {
        Value::String(text) => format!("`{}`", text.escape_debug()),
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}
