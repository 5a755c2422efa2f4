//! JSON in which no key stands twice.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;

/// What Windows editors put before UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads JSON; a key that stands twice in one object is an error, where serde would take the last.
pub(crate) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err(serde_json::Error::custom(
            "it begins with a byte order mark, save it as UTF-8 without one",
        ));
    }
    serde_json::from_slice(text).map(|Unique(value)| value)
}

/// Refuses JSON in which a key stands twice in one object, and keeps nothing of it.
pub(crate) fn check_keys(text: &[u8]) -> Result<(), serde_json::Error> {
    serde_json::from_slice(text).map(|OnceEach| ())
}

/// A value whose objects have each key once.
struct Unique(Value);

/// The same, not kept.
struct OnceEach;

impl<'de> Deserialize<'de> for OnceEach {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKeys)
    }
}

struct AnyKeys;

impl<'de> Visitor<'de> for AnyKeys {
    type Value = OnceEach;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<OnceEach, E> {
        Ok(OnceEach)
    }

    fn visit_bool<E>(self, _: bool) -> Result<OnceEach, E> {
        Ok(OnceEach)
    }

    fn visit_u64<E>(self, _: u64) -> Result<OnceEach, E> {
        Ok(OnceEach)
    }

    fn visit_i64<E>(self, _: i64) -> Result<OnceEach, E> {
        Ok(OnceEach)
    }

    fn visit_f64<E>(self, _: f64) -> Result<OnceEach, E> {
        Ok(OnceEach)
    }

    fn visit_str<E>(self, _: &str) -> Result<OnceEach, E> {
        Ok(OnceEach)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<OnceEach, A::Error> {
        while items.next_element::<OnceEach>()?.is_some() {}
        Ok(OnceEach)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<OnceEach, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value::<OnceEach>()?;
            if let Some(twice) = keys.replace(key) {
                return Err(A::Error::custom(stands_twice(&twice)));
            }
        }
        Ok(OnceEach)
    }
}

fn stands_twice(key: &str) -> String {
    format!("the key {key:?} stands twice")
}

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Unique)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Unique(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(stands_twice(&key)));
            }
            let Unique(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_stand_once_are_read() {
        let text = br#"{"a": [1, -2, 0.5, null, true, "x"], "b": {"a": {}}}"#;
        let plain: Value = serde_json::from_slice(text).unwrap();
        assert_eq!(parse(text).unwrap(), plain);
        check_keys(text).unwrap();
        for (text, problem) in [
            (&b"{\"a\": 1, \"a\": 1}"[..], "the key \"a\" stands twice"),
            (
                b"[{\"b\": {\"c\": 1, \"c\": 2}}]",
                "the key \"c\" stands twice",
            ),
            (b"\xef\xbb\xbf{}", "byte order mark"),
            (b"{} x", "trailing characters"),
            (b"{\"a\": NaN}", "expected value"),
            (b"", "EOF"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
            // Only the mark is another parser's business.
            let error = check_keys(text).unwrap_err().to_string();
            assert!(
                error.contains(problem) || problem.contains("mark"),
                "{error}"
            );
        }
    }
}
