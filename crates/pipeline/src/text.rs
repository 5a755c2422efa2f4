//! Token ids as text.

use crate::failure;
use anyhow::Result;
use std::path::Path;
use tokenizers::Tokenizer;

/// Reads a `tokenizer.json`.
///
/// # Errors
///
/// When the file is missing or holds no tokenizer.
pub(crate) fn load(path: &Path) -> Result<Tokenizer> {
    Tokenizer::from_file(path).map_err(|error| {
        failure::failed(
            format_args!("reading the tokenizer `{}`: {error}", path.display()),
            "`corpus.tokenizer` in the run file must name a `tokenizer.json` as Hugging Face's tokenizers write it",
        )
    })
}

/// The text of `tokens`, special tokens included.
///
/// # Errors
///
/// When the tokenizer cannot decode them.
pub(crate) fn decode(tokenizer: &Tokenizer, tokens: &[u32]) -> Result<String> {
    tokenizer
        .decode(tokens, false)
        .map_err(|error| anyhow::anyhow!("decoding tokens: {error}"))
}
