//! What a pickle calls: the makers of tensors and dictionaries are known by name, none is run.

use super::machine::Machine;
use super::{
    ElementType, Index, LONGEST_NAME, MOST_DIMENSIONS, MOST_ENTRIES, Object, PickledStorage,
    PickledTensor, Result, damaged,
};

impl Machine<'_, '_> {
    /// `('storage', class, key, location, numbers[, view])`
    pub(super) fn storage(&self, id: Index) -> Result<PickledStorage> {
        let Object::Sequence(fields) = self.object(id) else {
            return damaged("a persistent id is not a tuple");
        };
        let [tag, class, key, _location, n_numbers, view @ ..] = fields.as_slice() else {
            return damaged("a persistent id has too few fields");
        };
        if self.words(*tag)? != "storage" {
            return damaged("a persistent id names no storage");
        }
        if view
            .iter()
            .any(|view| !matches!(self.object(*view), Object::None))
        {
            return damaged("a storage is a view of another one, as PyTorch before 0.4 wrote them");
        }
        let class = match self.object(*class) {
            Object::Class(_, name) => self.reader.text(name)?,
            _ => return damaged("the type of a storage is not a class"),
        };
        let element = ElementType::of_storage(class)?;
        let size = element.map_or(1, |element| element.size);
        match self.count(*n_numbers)?.checked_mul(size) {
            None => damaged("a storage is larger than any file"),
            Some(bytes) => Ok(PickledStorage {
                key: self.key(*key)?,
                bytes,
                element,
            }),
        }
    }

    /// A call: those that make tensors and dictionaries are understood, all others give nothing.
    pub(super) fn reduce(&mut self, mut callable: Index, mut arguments: Index) -> Result<()> {
        // A tensor of a subclass is `(function, type, arguments, state)`; its data is what counts.
        loop {
            let (Object::Class(module, name), Object::Sequence(fields)) =
                (self.object(callable), self.object(arguments))
            else {
                return self.push(Object::Other);
            };
            let called = (self.reader.text(module)?, self.reader.text(name)?);
            let made = match (called, fields.as_slice()) {
                (("torch._tensor", "_rebuild_from_type_v2"), [function, _, inner, ..]) => {
                    (callable, arguments) = (*function, *inner);
                    self.n_copied += 1;
                    if self.n_copied > MOST_ENTRIES {
                        return damaged("its calls have no end");
                    }
                    continue;
                }
                (
                    ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"),
                    [data, ..],
                ) => {
                    self.stack.push(*data);
                    return Ok(());
                }
                (("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"), fields) => {
                    Object::Tensor(Box::new(self.tensor(fields, None)?))
                }
                (("torch._utils", "_rebuild_tensor_v3"), fields) => {
                    let Some(Object::Class(_, name)) = fields.get(6).map(|i| self.object(*i))
                    else {
                        return damaged("a tensor has no type");
                    };
                    let element = ElementType::of(self.reader.text(name)?)?;
                    Object::Tensor(Box::new(self.tensor(fields, Some(element))?))
                }
                (("collections", "OrderedDict"), []) => Object::Dict(Vec::new()),
                (("collections", "OrderedDict"), [items]) => {
                    let (entries, n) = self.entries(*items)?;
                    self.n_copied += n;
                    Object::Dict(entries)
                }
                _ => Object::Other,
            };
            return self.push(made);
        }
    }

    /// The pairs of a list of pairs, and how many.
    fn entries(&self, items: Index) -> Result<(Vec<(Index, Index)>, usize)> {
        let Object::Sequence(items) = self.object(items) else {
            return damaged("a dictionary is not made of pairs");
        };
        if self.n_copied + items.len() > MOST_ENTRIES {
            return damaged("its dictionaries have too many entries");
        }
        let entries = items.iter().map(|item| match self.object(*item) {
            Object::Sequence(pair) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => damaged("a dictionary is not made of pairs"),
        });
        Ok((entries.collect::<Result<Vec<_>>>()?, items.len()))
    }

    /// `(storage, offset, shape, strides, …)`
    fn tensor(&self, fields: &[Index], element: Option<ElementType>) -> Result<PickledTensor> {
        let [storage, offset, shape, strides, ..] = fields else {
            return damaged("a tensor has too few fields");
        };
        let Object::Storage(storage) = self.object(*storage) else {
            return damaged("a tensor has no storage");
        };
        let element = match (storage.element, element) {
            (Some(a), Some(b)) if a != b => return damaged("a tensor has two types"),
            (Some(element), _) | (None, Some(element)) => element,
            (None, None) => return damaged("a tensor has no type"),
        };
        let (shape, strides) = (self.counts(*shape)?, self.counts(*strides)?);
        if shape.len() != strides.len() {
            return damaged("a tensor has more strides than dimensions, or fewer");
        }
        let shape = shape.into_iter().map(usize::try_from);
        let Ok(shape) = shape.collect::<std::result::Result<_, _>>() else {
            return damaged("a tensor is larger than any file");
        };
        Ok(PickledTensor {
            storage: (**storage).clone(),
            element,
            offset: self.count(*offset)?,
            shape,
            strides,
        })
    }

    fn counts(&self, sequence: Index) -> Result<Vec<u64>> {
        match self.object(sequence) {
            Object::Sequence(items) if items.len() <= MOST_DIMENSIONS => {
                items.iter().map(|item| self.count(*item)).collect()
            }
            Object::Sequence(_) => damaged("a tensor has too many dimensions"),
            _ => damaged("a shape is not a tuple"),
        }
    }

    fn count(&self, number: Index) -> Result<u64> {
        match self.object(number) {
            Object::Int(number) => match u64::try_from(*number) {
                Ok(number) => Ok(number),
                Err(_) => damaged(format!("a size is {number}")),
            },
            _ => damaged("a size is not a whole number"),
        }
    }

    fn words(&self, text: Index) -> Result<&str> {
        match self.object(text) {
            Object::Text(range) => self.reader.text(range),
            _ => damaged("a name is not a text"),
        }
    }

    fn key(&self, key: Index) -> Result<String> {
        match self.object(key) {
            Object::Int(number) => Ok(number.to_string()),
            _ => match self.words(key)? {
                key if key.len() <= LONGEST_NAME => Ok(key.to_owned()),
                _ => damaged("a name is too long"),
            },
        }
    }
}
