//! A PyTorch checkpoint: a pickle that describes tensors, and the storages that hold their numbers.
//!
//! Two containers are read: the ZIP archive that `torch.save` has written since PyTorch 1.6, and
//! the one before it, which `_use_new_zipfile_serialization=False` still writes. Nothing is taken from
//! the file before its length is known to hold it.

use super::LoadError;
use super::opened::OpenFile;
use super::pickle::{LONGEST, PickledStorage, PickledTensor, Reader};
use super::zip;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes of a storage that are held while its checksum is taken.
const CHUNK: u64 = 1 << 20;
/// What the old container begins with: the number 0x1950a86a20f9469cfc6c.
const OLD_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Bytes among which it stands, whatever the protocol of the pickle around it.
const OLD_BEGINNING: u64 = 64;

const OUTSIDE: &str = "it needs more numbers than its storage has";

/// What is wrong with a PyTorch checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PytorchError {
    /// It begins as no checkpoint does.
    #[error("it does not begin as `torch.save` has it since PyTorch 0.1.10")]
    Unknown,
    /// The archive around it is damaged.
    #[error("the archive is damaged: {0}")]
    Archive(String),
    /// A file of the archive is compressed or encrypted.
    #[error("`{name}` is compressed or encrypted, which `torch.save` does not do")]
    Compressed {
        /// The file in the archive.
        name: String,
    },
    /// Its pickle is damaged, or holds what no state dict does.
    #[error("its pickle cannot be read: {0}")]
    Pickle(String),
    /// It holds another object.
    #[error("it holds an object that is not a dictionary of tensors")]
    NoStateDict,
    /// It was written on another kind of machine.
    #[error("its numbers are big-endian")]
    BigEndian,
    /// A tensor does not lie in the storage that it names.
    #[error("the tensor `{tensor}`: {problem}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// An open checkpoint.
#[derive(Debug)]
pub(super) struct PytorchFile {
    file: OpenFile,
    tensors: BTreeMap<String, PickledTensor>,
    storages: BTreeMap<String, Storage>,
}

/// Where the numbers of some tensors lie.
#[derive(Debug)]
struct Storage {
    start: u64,
    size: u64,
    /// Where the file has one.
    crc: Option<u32>,
    /// Whether the checksum was found right.
    is_whole: AtomicBool,
}

impl PytorchError {
    pub(super) fn at(self, file: &OpenFile) -> LoadError {
        LoadError::Pytorch {
            path: file.path().to_owned(),
            source: self,
        }
    }
}

impl PytorchFile {
    /// Reads what it says of its tensors and finds their storages.
    pub(super) fn open(file: OpenFile) -> Result<Self, LoadError> {
        let beginning = file.read_at(0, file.len().min(OLD_BEGINNING))?;
        let (tensors, storages) = if beginning.starts_with(b"PK\x03\x04") {
            of_archive(&file)?
        } else if beginning
            .windows(OLD_MAGIC.len())
            .any(|bytes| bytes == OLD_MAGIC)
        {
            of_old_file(&file)?
        } else {
            return Err(PytorchError::Unknown.at(&file));
        };
        for (name, tensor) in &tensors {
            if let Err(problem) = fits(tensor) {
                let (tensor, problem) = (name.clone(), problem.to_owned());
                return Err(PytorchError::Tensor { tensor, problem }.at(&file));
            }
        }
        Ok(Self {
            file,
            tensors,
            storages,
        })
    }

    pub(super) fn file(&self) -> &OpenFile {
        &self.file
    }

    pub(super) fn tensors(&self) -> &BTreeMap<String, PickledTensor> {
        &self.tensors
    }

    /// The bytes of a tensor, row by row; None where there is no such tensor. The storage that it
    /// lies in is held to its checksum.
    pub(super) fn read(&self, name: &str) -> Option<Result<Vec<u8>, LoadError>> {
        let tensor = self.tensors.get(name)?;
        let storage = self.storages.get(&tensor.storage.key)?;
        Some(self.read_tensor(name, tensor, storage))
    }

    fn read_tensor(
        &self,
        name: &str,
        tensor: &PickledTensor,
        storage: &Storage,
    ) -> Result<Vec<u8>, LoadError> {
        let size = tensor.element.size;
        let n = count(tensor) * size;
        if n == 0 {
            return Ok(Vec::new());
        }
        if is_contiguous(tensor) && tensor.offset == 0 && n == storage.size {
            let bytes = self.file.read_at(storage.start, n)?;
            if !storage.is_whole.load(Ordering::Relaxed) {
                self.compare(name, storage, crc32fast::hash(&bytes))?;
            }
            return Ok(bytes);
        }
        if !storage.is_whole.load(Ordering::Relaxed) && storage.crc.is_some() {
            let mut hash = crc32fast::Hasher::new();
            for at in (0..storage.size).step_by(1 << 20) {
                let n = CHUNK.min(storage.size - at);
                hash.update(&self.file.read_at(storage.start + at, n)?);
            }
            self.compare(name, storage, hash.finalize())?;
        }
        let first = storage.start + tensor.offset * size;
        if is_contiguous(tensor) {
            return self.file.read_at(first, n);
        }
        let window = self.file.read_at(first, extent(tensor) * size)?;
        gathered(&window, tensor).ok_or_else(|| {
            let (tensor, problem) = (name.to_owned(), OUTSIDE.to_owned());
            PytorchError::Tensor { tensor, problem }.at(&self.file)
        })
    }

    fn compare(&self, name: &str, storage: &Storage, found: u32) -> Result<(), LoadError> {
        match storage.crc {
            Some(crc) if crc != found => {
                let problem = "the numbers of its storage do not have the checksum in the archive";
                let (tensor, problem) = (name.to_owned(), problem.to_owned());
                Err(PytorchError::Tensor { tensor, problem }.at(&self.file))
            }
            _ => {
                storage.is_whole.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }
}

type Contents = (BTreeMap<String, PickledTensor>, BTreeMap<String, Storage>);

fn of_archive(file: &OpenFile) -> Result<Contents, LoadError> {
    let entries = zip::entries(file)?;
    // The folder of `data.pkl` is that of all others.
    let roots = entries
        .keys()
        .filter_map(|name| name.strip_suffix("data.pkl"));
    let root = roots
        .filter(|root| root.is_empty() || root.ends_with('/'))
        .min_by_key(|root| root.len());
    let missing = |name: &str| PytorchError::Archive(format!("it lacks {name:?}")).at(file);
    let root = root.ok_or_else(|| missing("data.pkl"))?;
    // `torch.save` can leave checksums out; then there is none.
    let data = format!("{root}data/");
    let has_crc = entries
        .iter()
        .any(|(name, entry)| name.starts_with(&data) && entry.crc != 0);
    let read = |name: &str, most: u64| -> Result<Option<Vec<u8>>, LoadError> {
        let name = format!("{root}{name}");
        let Some(entry) = entries.get(&name) else {
            return Ok(None);
        };
        if entry.size > most {
            let problem = format!("{name:?} has {} bytes, over {most}", entry.size);
            return Err(PytorchError::Archive(problem).at(file));
        }
        let bytes = file.read_at(entry.start(file, &name)?, entry.size)?;
        if entry.crc != 0 && crc32fast::hash(&bytes) != entry.crc {
            let problem = format!("{name:?} does not have its checksum");
            return Err(PytorchError::Archive(problem).at(file));
        }
        Ok(Some(bytes))
    };
    if read("byteorder", 64)?.is_some_and(|order| order.trim_ascii() == b"big") {
        return Err(PytorchError::BigEndian.at(file));
    }
    let pickle = read("data.pkl", LONGEST as u64)?.ok_or_else(|| missing("data.pkl"))?;
    let tensors = Reader::new(&pickle)
        .pickle()
        .and_then(|pickle| pickle.tensors())
        .map_err(|error| error.at(file))?;
    let mut storages = BTreeMap::new();
    for (tensor, PickledTensor { storage, .. }) in &tensors {
        if storages.contains_key(&storage.key) {
            continue;
        }
        let wrong = |problem| {
            let tensor = tensor.clone();
            PytorchError::Tensor { tensor, problem }.at(file)
        };
        let name = format!("{data}{}", storage.key);
        let entry = entries
            .get(&name)
            .ok_or_else(|| wrong(format!("the archive lacks its storage {name:?}")))?;
        if entry.size != storage.bytes {
            let (found, expected) = (entry.size, storage.bytes);
            return Err(wrong(format!(
                "its storage {name:?} has {found} bytes, the pickle says {expected}"
            )));
        }
        let found = Storage {
            start: entry.start(file, &name)?,
            size: entry.size,
            crc: has_crc.then_some(entry.crc),
            is_whole: AtomicBool::new(!has_crc),
        };
        storages.insert(storage.key.clone(), found);
    }
    check_sizes(file, &tensors)?;
    Ok((tensors, storages))
}

/// Pickles of a magic number, of a version, of the machine, of the tensors, and of the names of
/// storages, which follow in this order: the count of their numbers, and these.
fn of_old_file(file: &OpenFile) -> Result<Contents, LoadError> {
    let at = |error: PytorchError| error.at(file);
    let beginning = file.read_at(0, file.len().min(2 * LONGEST as u64))?;
    let mut reader = Reader::new(&beginning);
    let mut read = || -> Result<_, PytorchError> {
        reader.pickle()?;
        let version = reader.pickle()?.int();
        if version != Some(1001) {
            return Err(PytorchError::Pickle("its version is unknown".to_owned()));
        }
        match reader.pickle()?.flag("little_endian") {
            Some(true) => {}
            Some(false) => return Err(PytorchError::BigEndian),
            None => return Err(PytorchError::Pickle("its byte order is missing".to_owned())),
        }
        Ok((reader.pickle()?.tensors()?, reader.pickle()?.names()?))
    };
    let (tensors, names) = read().map_err(at)?;
    check_sizes(file, &tensors)?;
    let mut declared: BTreeMap<&str, &PickledTensor> = BTreeMap::new();
    for tensor in tensors.values() {
        declared.insert(&tensor.storage.key, tensor);
    }
    let mut storages = BTreeMap::new();
    let mut place = reader.position() as u64;
    for name in names {
        let wrong = |problem: String| {
            at(PytorchError::Archive(format!(
                "the storage {name:?} {problem}"
            )))
        };
        let Some(tensor) = declared.remove(name.as_str()) else {
            return Err(wrong("belongs to no tensor, or stands twice".to_owned()));
        };
        let size = tensor.storage.bytes;
        let start = place + size_of::<u64>() as u64;
        let end = start.checked_add(size).filter(|end| *end <= file.len());
        let Some(end) = end else {
            return Err(wrong("is cut short".to_owned()));
        };
        let mut n = [0; size_of::<u64>()];
        n.copy_from_slice(&file.read_at(place, start - place)?);
        let (found, expected) = (u64::from_le_bytes(n), size / tensor.element.size);
        if found != expected {
            return Err(wrong(format!(
                "has {found} numbers, the pickle says {expected}"
            )));
        }
        let storage = Storage {
            start,
            size,
            crc: None,
            is_whole: AtomicBool::new(true),
        };
        storages.insert(name, storage);
        place = end;
    }
    if let Some(key) = declared.into_keys().next() {
        let problem = format!("it lacks the storage {key:?}");
        return Err(at(PytorchError::Archive(problem)));
    }
    if place != file.len() {
        let problem = "something stands behind its last storage".to_owned();
        return Err(at(PytorchError::Archive(problem)));
    }
    Ok((tensors, storages))
}

/// Refuses a storage that two tensors call differently long.
fn check_sizes(
    file: &OpenFile,
    tensors: &BTreeMap<String, PickledTensor>,
) -> Result<(), LoadError> {
    let mut seen: BTreeMap<&str, &PickledStorage> = BTreeMap::new();
    for (tensor, PickledTensor { storage, .. }) in tensors {
        let first = seen.entry(&storage.key).or_insert(storage);
        if *first != storage {
            let (tensor, problem) = (tensor.clone(), "its storage has two sizes".to_owned());
            return Err(PytorchError::Tensor { tensor, problem }.at(file));
        }
    }
    Ok(())
}

/// Whether all of a tensor's numbers lie in its storage, which has at least as many.
fn fits(tensor: &PickledTensor) -> Result<(), &'static str> {
    let n_stored = tensor.storage.bytes / tensor.element.size;
    let counts = tensor.shape.iter().map(|n| *n as u64);
    let n = counts.clone().try_fold(1_u64, u64::checked_mul);
    let steps = counts.zip(&tensor.strides).map(|(n, stride)| {
        let last = n.saturating_sub(1);
        last.checked_mul(*stride)
    });
    let mut steps = steps;
    let last = steps.try_fold(tensor.offset, |sum, step| sum.checked_add(step?));
    match (n, last) {
        (Some(0), _) => Ok(()),
        (Some(n), Some(last)) if n <= n_stored && last < n_stored => Ok(()),
        _ => Err(OUTSIDE),
    }
}

/// Numbers of a tensor that [`fits`].
fn count(tensor: &PickledTensor) -> u64 {
    tensor.shape.iter().map(|n| *n as u64).product()
}

/// Numbers of its storage from its first to its last; it has some.
fn extent(tensor: &PickledTensor) -> u64 {
    let steps = tensor.shape.iter().zip(&tensor.strides);
    steps
        .map(|(n, stride)| (*n as u64 - 1) * stride)
        .sum::<u64>()
        + 1
}

/// Whether its numbers follow each other, row by row; it has some.
fn is_contiguous(tensor: &PickledTensor) -> bool {
    let mut expected = 1;
    let dimensions = tensor.shape.iter().zip(&tensor.strides).rev();
    for (n, stride) in dimensions.filter(|(n, _)| **n > 1) {
        if *stride != expected {
            return false;
        }
        expected *= *n as u64;
    }
    true
}

/// The numbers of a tensor row by row, out of those from its first to its last.
fn gathered(window: &[u8], tensor: &PickledTensor) -> Option<Vec<u8>> {
    let size = usize::try_from(tensor.element.size).ok()?;
    let n: usize = tensor.shape.iter().product();
    let mut bytes = Vec::with_capacity(n * size);
    let mut indices = vec![0; tensor.shape.len()];
    for _ in 0..n {
        let steps = indices.iter().zip(&tensor.strides);
        let place: u64 = steps.map(|(index, stride)| *index as u64 * stride).sum();
        let first = usize::try_from(place).ok()? * size;
        bytes.extend_from_slice(window.get(first..first + size)?);
        for (index, n) in indices.iter_mut().zip(&tensor.shape).rev() {
            *index += 1;
            if *index < *n {
                break;
            }
            *index = 0;
        }
    }
    Some(bytes)
}
