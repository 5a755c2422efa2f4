//! When was each sequence trained on? GPT-NeoX's data loader, rebuilt from its files and its seed.
//!
//! # The files
//!
//! A tokenized corpus is a pair of files, `NAME.bin` and `NAME.idx`, written by Megatron's
//! `MMapIndexedDataset`. The `.bin` holds nothing but token ids. The `.idx`, all little-endian and without
//! padding, says where each item (a document) lies in it:
//!
//! | byte offset | size | content |
//! | --- | --- | --- |
//! | 0 | 9 | magic, `MMIDIDX\0\0` |
//! | 9 | 8 | u64, version, 1 |
//! | 17 | 1 | u8, code of the token type in the `.bin` |
//! | 18 | 8 | u64, n: number of items |
//! | 26 | 8 | u64, m: length of the last array, normally n + 1 |
//! | 34 | 4 n | i32, tokens of each item |
//! | 34 + 4 n | 8 n | i64, byte offset of each item in the `.bin` |
//! | 34 + 12 n | 8 m | i64, item at which each document starts; the trainer ignores it |
//!
//! The arrays begin at byte 34 and are therefore never aligned.
//!
//! The `.bin` may also lie there as published shards, `NAME-00000-of-00020.bin` and so on, named
//! after the last number. Where all shards of a set are there, they are read, and a `.bin` beside
//! them is not: [`mmididx::Dataset::ignored_bin`] names it. Pythia's script that puts shards
//! together makes the whole `.bin` first and fills it afterwards, so that its length does not show
//! whether it is whole.
//!
//! Files are mapped into memory and read in place. Only regular files are: a pipe, a device, a
//! socket or a folder is an error. Each file's device, inode, length and time of modification are
//! held, and [`TrainingOrder::check_unchanged`] refuses files that differ. No length in a header is
//! believed before it is compared with the file's, and the items must end where the `.bin` does.
//!
//! # The order
//!
//! From these and a seed, GPT-NeoX (`megatron/data/gpt2_dataset.py`) makes three maps with one NumPy random
//! state: `doc_idx`, all items as often as there are epochs, shuffled as a whole; `sample_idx`, which cuts the
//! documents, put end to end in that order, into samples of `sequence_length + 1` tokens, each beginning with
//! the last token of the one before; and `shuffle_idx`, the samples' own shuffle. Sequence *i* of the training
//! run is sample `shuffle_idx[i]`, and optimizer step *s*, counted from 0, consumes the sequences
//! `s · batch_size … (s + 1) · batch_size − 1`, whatever the layout of devices. A checkpoint of *n* steps has
//! seen exactly the batches with *s* < *n*: see [`Checkpoint::has_seen`].
//!
//! That is GPT-NeoX's packing `packed`. Since 2024 there are others, whose maps [`MapFiles::find`]
//! and [`TrainingOrder::from_maps`] refuse: by their names, and by samples that all begin with a
//! document.
//!
//! # Example
//!
//! ```
//! use training_order::mmididx::{Dataset, TokenType, Writer};
//! use training_order::{Items, LoaderSettings, TrainingIndex, TrainingOrder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let prefix = folder.path().join("corpus");
//! let mut writer = Writer::create(&prefix, TokenType::U16)?;
//! for document in 0..40 {
//!     writer.write(&[document; 25])?;
//! }
//! writer.finish()?;
//!
//! let settings = LoaderSettings {
//!     items: Items::TrainDataPaths,
//!     sequence_length: 8,
//!     batch_size: 4,
//!     n_steps: 30,
//!     seed: 1234,
//! };
//! let order = TrainingOrder::from_seed(Dataset::open(&prefix)?, &settings)?;
//! let index = TrainingIndex::new(17);
//! assert_eq!(order.position(index).step, 4);
//! assert_eq!(order.position(index).row, 1);
//!
//! let mut tokens = Vec::new();
//! order.read_tokens(index, 0..9, &mut tokens)?;
//! assert_eq!(tokens.len(), 9);
//! # Ok(())
//! # }
//! ```

pub mod blend;
mod exposure;
mod file;
mod impostor;
pub mod index_map;
pub mod loader;
mod map;
mod mixture;
pub mod mmididx;
pub mod npy;
pub mod numpy_random;
mod order;
mod position;

pub use blend::Blend;
pub use exposure::{DocumentCopies, ProbeExposure};
pub use file::Change;
pub use impostor::Impostor;
pub use index_map::{BuildError, DocumentSpan, MapError, MapFiles, Packing};
pub use loader::{Items, Part, Split, SplitError};
pub use mixture::{Member, Mixture};
pub use mmididx::{OpenError, ReadError};
pub use order::{Exposure, LoaderSettings, OrderError, TrainingOrder};
pub use position::{BatchPosition, Checkpoint, TrainingIndex};
