//! The machine that a pickle is a program for.

use super::{Index, Object, Reader, Result, damaged};
use std::collections::HashMap;

/// Its stack, its marks and its memo.
pub(super) struct Machine<'a, 'b> {
    pub(super) reader: &'b mut Reader<'a>,
    pub(super) objects: Vec<Object>,
    pub(super) stack: Vec<Index>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Index>,
    /// Entries that were copied from one object to another.
    pub(super) n_copied: usize,
}

impl<'a, 'b> Machine<'a, 'b> {
    pub(super) fn new(reader: &'b mut Reader<'a>) -> Self {
        Self {
            reader,
            objects: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            n_copied: 0,
        }
    }

    /// Runs to the end of the pickle: its objects, and the index of the one that it is.
    #[expect(clippy::too_many_lines, reason = "an arm for each kind of opcode")]
    pub(super) fn run(mut self) -> Result<(Vec<Object>, Index)> {
        loop {
            let opcode = u8::try_from(self.reader.number(1)?).unwrap_or(u8::MAX);
            match opcode {
                b'.' => {
                    let root = self.pop()?;
                    return Ok((self.objects, root));
                }
                // PROTO, FRAME
                0x80 => {
                    let protocol = self.reader.number(1)?;
                    if protocol > 5 {
                        return damaged(format!("its protocol {protocol} is unknown"));
                    }
                }
                0x95 => {
                    self.reader.take(8)?;
                }
                b'N' | 0x88 | 0x89 | b'K' | b'M' | b'J' | 0x8a | 0x8b | b'G' => {
                    self.scalar(opcode)?;
                }
                b'X' | 0x8c | 0x8d | b'U' | b'T' | b'C' | b'B' | 0x8e | 0x96 => {
                    self.bytes(opcode)?;
                }
                b'}' => self.push(Object::Dict(Vec::new()))?,
                // EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET
                b']' | b')' | 0x8f => self.push(Object::Sequence(Vec::new()))?,
                b'(' => self.marks.push(self.stack.len()),
                // LIST, TUPLE, FROZENSET
                b'l' | b't' | 0x91 => {
                    let items = self.pop_to_mark()?;
                    self.push(Object::Sequence(items))?;
                }
                0x85..=0x87 => {
                    let n = usize::from(opcode - 0x84);
                    self.sequence_of(n)?;
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    self.push(Object::Dict(pairs(&items)?))?;
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(&[item])?;
                }
                b'e' | 0x90 => {
                    let items = self.pop_to_mark()?;
                    self.extend(&items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.set(&[key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(&items)?;
                }
                // POP, POP_MARK, DUP
                b'0' if self.marks.last() == Some(&self.stack.len()) => {
                    self.marks.pop();
                }
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_to_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'h' | b'j' => {
                    let place = self.reader.number(if opcode == b'h' { 1 } else { 4 })?;
                    match self.memo.get(&place) {
                        Some(index) => self.stack.push(*index),
                        None => return damaged(format!("its memo has no {place}")),
                    }
                }
                b'q' | b'r' => {
                    let place = self.reader.number(if opcode == b'q' { 1 } else { 4 })?;
                    let top = self.top()?;
                    self.memo.insert(place, top);
                }
                // MEMOIZE
                0x94 => {
                    let top = self.top()?;
                    self.memo.insert(self.memo.len() as u64, top);
                }
                b'c' | 0x93 => self.class(opcode)?,
                b'Q' => {
                    let id = self.pop()?;
                    let storage = self.storage(id)?;
                    self.push(Object::Storage(Box::new(storage)))?;
                }
                b'R' => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    self.reduce(callable, arguments)?;
                }
                // NEWOBJ, NEWOBJ_EX
                0x81 | 0x92 => {
                    for _ in 0..if opcode == 0x81 { 2 } else { 3 } {
                        self.pop()?;
                    }
                    self.push(Object::Other)?;
                }
                // BUILD: what it sets beside a dictionary's entries is no tensor of a state dict.
                b'b' => {
                    self.pop()?;
                    self.top()?;
                }
                other => return damaged(format!("the opcode {other:#04x} is unknown")),
            }
        }
    }

    fn scalar(&mut self, opcode: u8) -> Result<()> {
        let object = match opcode {
            b'N' => Object::None,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            b'K' | b'M' => {
                let n = if opcode == b'K' { 1 } else { 2 };
                Object::Int(self.reader.number(n)?.cast_signed())
            }
            b'J' => {
                let number = self.reader.number(4)?.to_le_bytes();
                let [a, b, c, d, ..] = number;
                Object::Int(i32::from_le_bytes([a, b, c, d]).into())
            }
            0x8a | 0x8b => {
                let n = self.reader.number(if opcode == 0x8a { 1 } else { 4 })?;
                let range = self.reader.take(n)?;
                long(&self.reader.bytes[range])
            }
            _ => {
                self.reader.take(8)?;
                Object::Other
            }
        };
        self.push(object)
    }

    /// A text, or bytes, which weights have no use for.
    fn bytes(&mut self, opcode: u8) -> Result<()> {
        let width = match opcode {
            0x8c | b'U' | b'C' => 1,
            b'X' | b'T' | b'B' => 4,
            _ => 8,
        };
        let n = self.reader.number(width)?;
        let range = self.reader.take(n)?;
        let object = match opcode {
            b'X' | 0x8c | 0x8d => {
                self.reader.text(&range)?;
                Object::Text(range)
            }
            // A text of Python 2, or its bytes.
            b'U' | b'T' if self.reader.text(&range).is_ok() => Object::Text(range),
            _ => Object::Other,
        };
        self.push(object)
    }

    fn class(&mut self, opcode: u8) -> Result<()> {
        if opcode == b'c' {
            let class = Object::Class(self.reader.line()?, self.reader.line()?);
            return self.push(class);
        }
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.object(module), self.object(name)) {
            (Object::Text(module), Object::Text(name)) => {
                let class = Object::Class(module.clone(), name.clone());
                self.push(class)
            }
            _ => damaged("a class is not named by two texts"),
        }
    }

    fn extend(&mut self, items: &[Index]) -> Result<()> {
        let top = self.top()?;
        match self.objects.get_mut(top as usize) {
            Some(Object::Sequence(list)) => list.extend(items),
            _ => return damaged("it appends to what is not a list"),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Index]) -> Result<()> {
        let (top, items) = (self.top()?, pairs(items)?);
        match self.objects.get_mut(top as usize) {
            Some(Object::Dict(dict)) => dict.extend(items),
            // The attributes of an object of another class.
            Some(Object::Other) => {}
            _ => return damaged("it sets entries of what is not a dictionary"),
        }
        Ok(())
    }

    fn sequence_of(&mut self, n: usize) -> Result<()> {
        let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        items.reverse();
        self.push(Object::Sequence(items))
    }

    /// An object by its index, which this machine gave.
    pub(super) fn object(&self, index: Index) -> &Object {
        &self.objects[index as usize]
    }

    pub(super) fn push(&mut self, object: Object) -> Result<()> {
        let Ok(index) = Index::try_from(self.objects.len()) else {
            return damaged("it has too many objects");
        };
        self.objects.push(object);
        self.stack.push(index);
        Ok(())
    }

    fn top(&self) -> Result<Index> {
        let bottom = self.marks.last().copied().unwrap_or(0);
        match self.stack.get(bottom..).and_then(<[Index]>::last) {
            Some(top) => Ok(*top),
            None => damaged("its stack is empty"),
        }
    }

    fn pop(&mut self) -> Result<Index> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Index>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark)),
            None => damaged("its stack has no mark"),
        }
    }
}

fn pairs(items: &[Index]) -> Result<Vec<(Index, Index)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if rest.is_empty() {
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    } else {
        damaged("a key of a dictionary has no value")
    }
}

/// A number of any length in two's complement; one of more than 64 bits is of no use for weights.
fn long(bytes: &[u8]) -> Object {
    let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut number = [if negative { 0xff } else { 0 }; 8];
    match number.get_mut(..bytes.len()) {
        None => Object::Other,
        Some(low) => {
            low.copy_from_slice(bytes);
            Object::Int(i64::from_le_bytes(number))
        }
    }
}
