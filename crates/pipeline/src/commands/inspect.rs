//! `pipeline inspect`: a sequence or a batch as the model met it.

use super::mini_run_file;
use crate::cli::{InspectOptions, Inspected};
use crate::config::{Corpus, Overrides, Run};
use crate::corpora::{self, OpenCorpus};
use crate::{failure, text};
use anyhow::Result;
use std::io::Write;
use std::ops::Range;
use tokenizers::Tokenizer;
use training_order::{TrainingIndex, TrainingOrder};

/// Shows what `options` asks for on stdout.
///
/// # Errors
///
/// When the run file, the corpus or the tokenizer cannot be read, or the training run never reached the
/// place asked for.
pub(crate) fn inspect(options: &InspectOptions) -> Result<()> {
    let file = options.file.clone().map_or_else(mini_run_file, Ok)?;
    let run = Run::load(&file, &Overrides::default())?;
    let corpus = choose(&run, options.corpus.as_deref())?;
    let OpenCorpus { order, source, .. } = corpora::open(corpus)?;
    let tokenizer = corpus.tokenizer.as_deref().map(text::load).transpose()?;
    let indices = wanted(corpus, &order, &options.what)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "order: {source}")?;
    for index in indices.map(TrainingIndex::new) {
        show_sequence(&mut out, corpus, &order, tokenizer.as_ref(), index)?;
    }
    Ok(())
}

/// The training indices asked for.
fn wanted(corpus: &Corpus, order: &TrainingOrder, what: &Inspected) -> Result<Range<u64>> {
    let name = &corpus.name;
    match *what {
        Inspected::Sequence { training_index } => {
            let index = u64::from(training_index);
            if index < order.n_sequences() {
                return Ok(index..index + 1);
            }
            Err(failure::usage(
                format_args!("the training index {index} is not among the sequences of `{name}`"),
                format_args!("the last one is {}", order.n_sequences() - 1),
            ))
        }
        Inspected::Batch { step } => {
            let size = u64::from(order.batch_size());
            let first = u64::from(step) * size;
            if step < order.n_steps() {
                return Ok(first..first + size);
            }
            Err(failure::usage(
                format_args!("step {step} is not among the steps of `{name}`"),
                format_args!("the last one is {}", order.n_steps() - 1),
            ))
        }
    }
}

fn choose<'a>(run: &'a Run, name: Option<&str>) -> Result<&'a Corpus> {
    let known = || {
        run.corpora
            .iter()
            .map(|corpus| corpus.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match (name, run.corpora.as_slice()) {
        (Some(name), _) => run.corpus(name).ok_or_else(|| {
            failure::usage(
                format_args!("the run file has no corpus `{name}`"),
                format_args!("its corpora: {}", known()),
            )
        }),
        (None, [only]) => Ok(only),
        (None, _) => Err(failure::usage(
            "the run file has several corpora",
            format_args!("choose one with `--corpus`: {}", known()),
        )),
    }
}

fn show_sequence(
    out: &mut impl Write,
    corpus: &Corpus,
    order: &TrainingOrder,
    tokenizer: Option<&Tokenizer>,
    index: TrainingIndex,
) -> Result<()> {
    let position = order.position(index);
    let sample = order.sample(index).map_or_else(
        || "none (preshuffled)".to_owned(),
        |sample| sample.to_string(),
    );
    let mut tokens = Vec::new();
    order.read_tokens(index, 0..order.sequence_length() + 1, &mut tokens)?;
    writeln!(
        out,
        "\ncorpus {}  training index {}  step {}  row {}  sample {sample}",
        corpus.name,
        index.get(),
        position.step,
        position.row
    )?;
    writeln!(
        out,
        "first seen by the checkpoint of {} steps",
        u64::from(position.step) + 1
    )?;
    for span in order.documents(index)? {
        let n_tokens = span.tokens.end - span.tokens.start;
        writeln!(
            out,
            "  document {}  tokens {}..{}  ({n_tokens})",
            span.document, span.tokens.start, span.tokens.end
        )?;
    }
    let ids: Vec<String> = tokens.iter().map(ToString::to_string).collect();
    writeln!(out, "tokens ({}): {}", ids.len(), ids.join(" "))?;
    if let Some(tokenizer) = tokenizer {
        writeln!(out, "text:\n{}", text::decode(tokenizer, &tokens)?)?;
    }
    Ok(())
}
