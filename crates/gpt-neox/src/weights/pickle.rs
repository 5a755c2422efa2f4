//! The pickle of a PyTorch checkpoint, read as data: nothing that it calls is run.
//!
//! A state dict is a dictionary of tensors, each of which names a storage. Objects lie in one list
//! and refer to each other by their index, so that neither nesting nor repeated references cost
//! more than the pickle's own length (opcodes: `pickletools.py` of Python).

mod calls;
mod machine;

use super::pytorch::PytorchError;
use machine::Machine;
use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a pickle that are read: a state dict of Pythia-12B has 0.2 million.
pub(super) const LONGEST: usize = 4 << 20;
/// Dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;
/// Dictionaries and lists around a tensor.
const MOST_NESTED: usize = 16;
/// Bytes of a tensor's name.
const LONGEST_NAME: usize = 512;
/// Entries of dictionaries and lists that are looked at, repeated references included.
const MOST_ENTRIES: usize = 1 << 20;
/// Tensors of a file.
const MOST_TENSORS: usize = 1 << 16;

/// A type of PyTorch's: its name and the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ElementType {
    pub(super) name: &'static str,
    pub(super) size: u64,
}

/// What the pickle says of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PickledTensor {
    pub(super) storage: PickledStorage,
    pub(super) element: ElementType,
    /// Of its first number in the storage, in numbers.
    pub(super) offset: u64,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<u64>,
}

/// What the pickle says of a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PickledStorage {
    pub(super) key: String,
    pub(super) bytes: u64,
    element: Option<ElementType>,
}

/// Reads pickles that follow each other.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// An index into a pickle's objects.
type Index = u32;

enum Object {
    /// Of no use for weights.
    Other,
    None,
    Bool(bool),
    Int(i64),
    /// Where it stands in the pickle.
    Text(Range<usize>),
    Sequence(Vec<Index>),
    Dict(Vec<(Index, Index)>),
    /// Its module and name.
    Class(Range<usize>, Range<usize>),
    Storage(Box<PickledStorage>),
    Tensor(Box<PickledTensor>),
}

/// A pickle that was read.
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    objects: Vec<Object>,
    root: Index,
}

type Result<T> = std::result::Result<T, PytorchError>;

fn damaged<T>(problem: impl Into<String>) -> Result<T> {
    Err(PytorchError::Pickle(problem.into()))
}

impl ElementType {
    /// By the name of a class of storages.
    fn of_storage(name: &str) -> Result<Option<Self>> {
        let name = match name {
            "UntypedStorage" => return Ok(None),
            "FloatStorage" => "float32",
            "DoubleStorage" => "float64",
            "HalfStorage" => "float16",
            "BFloat16Storage" => "bfloat16",
            "LongStorage" => "int64",
            "IntStorage" => "int32",
            "ShortStorage" => "int16",
            "CharStorage" => "int8",
            "ByteStorage" => "uint8",
            "BoolStorage" => "bool",
            other => return damaged(format!("storages of the type {other:?} are unknown")),
        };
        Self::of(name).map(Some)
    }

    /// By the name that torch gives it.
    fn of(name: &str) -> Result<Self> {
        let (name, size) = match name {
            "float64" => ("F64", 8),
            "float32" => ("F32", 4),
            "float16" => ("F16", 2),
            "bfloat16" => ("BF16", 2),
            "int64" => ("I64", 8),
            "int32" => ("I32", 4),
            "int16" => ("I16", 2),
            "int8" => ("I8", 1),
            "uint64" => ("U64", 8),
            "uint32" => ("U32", 4),
            "uint16" => ("U16", 2),
            "uint8" => ("U8", 1),
            "bool" => ("Bool", 1),
            other => return damaged(format!("numbers of the type {other:?} are unknown")),
        };
        Ok(Self { name, size })
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Where the next pickle begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Reads one pickle.
    pub(super) fn pickle(&mut self) -> Result<Pickle<'a>> {
        let (objects, root) = Machine::new(self).run()?;
        Ok(Pickle {
            bytes: self.bytes,
            objects,
            root,
        })
    }

    fn take(&mut self, n: u64) -> Result<Range<usize>> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        match end.filter(|end| *end <= self.bytes.len()) {
            None => damaged("it ends too early"),
            Some(end) => {
                let taken = self.at..end;
                self.at = end;
                Ok(taken)
            }
        }
    }

    /// A little-endian number of `n` bytes, at most 8.
    fn number(&mut self, n: u64) -> Result<u64> {
        let range = self.take(n)?;
        let bytes = self.bytes[range].iter().rev();
        Ok(bytes.fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Result<Range<usize>> {
        let rest = &self.bytes[self.at..];
        let Some(n) = rest.iter().position(|byte| *byte == b'\n') else {
            return damaged("it ends too early");
        };
        let line = self.at..self.at + n;
        self.at += n + 1;
        Ok(line)
    }

    fn text(&self, range: &Range<usize>) -> Result<&'a str> {
        match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok(text) => Ok(text),
            Err(_) => damaged("a text is not UTF-8"),
        }
    }
}

impl Pickle<'_> {
    /// The root, where it is a whole number.
    pub(super) fn int(&self) -> Option<i64> {
        match self.objects.get(self.root as usize)? {
            Object::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// An entry of the root, where that is a dictionary and the entry is true or false.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        let Object::Dict(entries) = self.objects.get(self.root as usize)? else {
            return None;
        };
        let value = entries.iter().find_map(|(name, value)| {
            (self.key(*name).as_deref() == Some(key)).then_some(*value)
        })?;
        match self.objects.get(value as usize)? {
            Object::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The root, where it is a list of names.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let Some(Object::Sequence(items)) = self.objects.get(self.root as usize) else {
            return damaged("the list of storages is none");
        };
        let names = items.iter().map(|item| match self.key(*item) {
            Some(name) => Ok(name),
            None => damaged("the name of a storage is not a text"),
        });
        names.collect()
    }

    /// All tensors of the root, which must be a dictionary; the names of dictionaries within
    /// dictionaries are put together with dots.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, PickledTensor>> {
        if !matches!(self.objects.get(self.root as usize), Some(Object::Dict(_))) {
            return Err(PytorchError::NoStateDict);
        }
        let mut tensors = BTreeMap::new();
        let mut open = vec![(String::new(), self.root, 0)];
        let mut n_seen = 0;
        while let Some((name, index, depth)) = open.pop() {
            n_seen += 1;
            if n_seen > MOST_ENTRIES {
                return damaged("it refers to the same objects too often");
            }
            let mut nested = |key: Option<String>, value: Index| -> Result<()> {
                let Some(key) = key else { return Ok(()) };
                let dot = if name.is_empty() { "" } else { "." };
                let name = format!("{name}{dot}{key}");
                if depth == MOST_NESTED || name.len() > LONGEST_NAME || open.len() > MOST_TENSORS {
                    return damaged("it is nested too deeply");
                }
                open.push((name, value, depth + 1));
                Ok(())
            };
            match self.objects.get(index as usize) {
                Some(Object::Dict(entries)) => {
                    for (key, value) in entries.iter().filter(|(_, value)| self.holds(*value)) {
                        nested(self.key(*key), *value)?;
                    }
                }
                Some(Object::Sequence(items)) => {
                    for (place, item) in items.iter().enumerate() {
                        if self.holds(*item) {
                            nested(Some(place.to_string()), *item)?;
                        }
                    }
                }
                Some(Object::Tensor(tensor)) => {
                    if tensors.len() == MOST_TENSORS {
                        return damaged("it has too many tensors");
                    }
                    if tensors.insert(name.clone(), (**tensor).clone()).is_some() {
                        return damaged(format!("two tensors have the name {name:?}"));
                    }
                }
                _ => {}
            }
        }
        Ok(tensors)
    }

    /// Whether a tensor can be in it.
    fn holds(&self, index: Index) -> bool {
        matches!(
            self.objects.get(index as usize),
            Some(Object::Dict(_) | Object::Sequence(_) | Object::Tensor(_))
        )
    }

    fn key(&self, index: Index) -> Option<String> {
        match self.objects.get(index as usize)? {
            Object::Int(number) => Some(number.to_string()),
            Object::Text(range) => {
                let text = self.bytes.get(range.clone())?;
                // No tensor that a model needs has such a name.
                let text = &text[..text.len().min(LONGEST_NAME + 1)];
                Some(String::from_utf8_lossy(text).into_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
