//! Token ids as text.

use crate::{door, failure};
use anyhow::{Context, Result, anyhow};
use std::path::Path;
use tokenizers::Tokenizer;

/// Bytes of a `tokenizer.json` at the most: those of Pythia have 2 MB.
const LARGEST: u64 = 256 << 20;

/// Reads a `tokenizer.json`.
///
/// # Errors
///
/// When the file is missing or holds no tokenizer.
pub(crate) fn load(path: &Path) -> Result<Tokenizer> {
    let read = || {
        let text = door::read_text(path, LARGEST)?;
        // The library panics at some damages.
        failure::caught(|| {
            text.parse::<Tokenizer>()
                .map_err(|error| anyhow!("{error}"))
        })
    };
    read().map_err(|error| {
        let cure = failure::hint(&error).unwrap_or_else(|| "`corpus.tokenizer` in the run file must name a `tokenizer.json` as Hugging Face's tokenizers write it".to_owned());
        failure::failed(
            format_args!("reading the tokenizer `{}`: {error:#}", path.display()),
            cure,
        )
    })
}

/// The text of `tokens`, special tokens included, and how many of them the tokenizer does not know:
/// those are left out of the text.
///
/// # Errors
///
/// When the tokenizer cannot decode them.
pub(crate) fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<(String, usize)> {
    let is_known = |token: &&u32| tokenizer.id_to_token(**token).is_some();
    let n_unknown = tokens.len() - tokens.iter().filter(is_known).count();
    let decode = || {
        let text = tokenizer.decode(tokens, false);
        text.map_err(|error| anyhow!("{error}"))
    };
    let text = failure::caught(decode).context("decoding tokens")?;
    Ok((text, n_unknown))
}
