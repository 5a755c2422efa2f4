//! `pipeline inspect`: a sequence, a batch or a document as the model met it.

mod save;

use super::mini_run_file;
use crate::cli::{InspectOptions, Inspected};
use crate::config::{Corpus, Overrides, Run};
use crate::corpora::{self, OpenCorpus};
use crate::terminal;
use crate::{failure, text};
use anyhow::Result;
use std::collections::HashSet;
use std::io::Write;
use std::ops::Range;
use tokenizers::Tokenizer;
use training_order::{BatchPosition, DocumentSpan, Exposure, TrainingIndex, TrainingOrder};

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
    let viewer = Viewer {
        corpus,
        order,
        tokenizer,
    };
    let mut out = terminal::stdout();
    match &options.what {
        Inspected::Sequence { training_index } => {
            let index = viewer.sequence(*training_index)?;
            writeln!(out, "order: {source}")?;
            viewer.show_sequence(&mut out, index)
        }
        Inspected::Batch { step, steps, save } => {
            let indices = viewer.batches(*step, steps.as_ref())?;
            if let Some(path) = save {
                save::save(path, &run, &viewer.order, indices)?;
                return Ok(writeln!(out, "{}", path.display())?);
            }
            writeln!(out, "order: {source}")?;
            indices
                .map(TrainingIndex::new)
                .try_for_each(|index| viewer.show_sequence(&mut out, index))
        }
        Inspected::Document { document, member } => {
            let (tokens, exposures) = viewer.document(*document, *member)?;
            writeln!(out, "order: {source}")?;
            viewer.show_document(&mut out, *document, &tokens, &exposures)
        }
    }
}

/// A corpus, as it is shown.
struct Viewer<'a> {
    corpus: &'a Corpus,
    order: TrainingOrder,
    tokenizer: Option<Tokenizer>,
}

impl Viewer<'_> {
    /// A sequence, if the run has it.
    fn sequence(&self, training_index: u32) -> Result<TrainingIndex> {
        let (index, n) = (u64::from(training_index), self.order.n_sequences());
        if index < n {
            return Ok(TrainingIndex::new(index));
        }
        Err(failure::usage(
            format_args!(
                "the training index {index} is not among the sequences of `{}`",
                self.corpus.name
            ),
            format_args!("the last one is {}", n - 1),
        ))
    }

    /// The sequences of one step or several, if the run has them.
    fn batches(&self, step: Option<u32>, steps: Option<&Range<u32>>) -> Result<Range<u64>> {
        // The command line has exactly one of the two.
        let first = steps.map(|steps| steps.start).or(step).unwrap_or(0);
        let last = steps.map(|steps| steps.end - 1).or(step).unwrap_or(0);
        if last >= self.order.n_steps() {
            return Err(failure::usage(
                format_args!(
                    "step {last} is not among the steps of `{}`",
                    self.corpus.name
                ),
                format_args!("the last one is {}", self.order.n_steps() - 1),
            ));
        }
        let size = u64::from(self.order.batch_size());
        Ok(u64::from(first) * size..(u64::from(last) + 1) * size)
    }

    /// The tokens of a document, if there is one, and where they were met.
    fn document(&self, document: u64, member: usize) -> Result<(Vec<u32>, Vec<Exposure>)> {
        let absent = |n: usize| {
            failure::usage(
                format_args!("the corpus `{}` has no dataset {member}", self.corpus.name),
                format_args!("it has {n}, counted from 0"),
            )
        };
        let dataset = self
            .order
            .datasets()
            .nth(member)
            .ok_or_else(|| absent(self.order.datasets().count()))?;
        if document >= dataset.n_items() {
            return Err(failure::usage(
                format_args!(
                    "there is no document {document} in `{}`",
                    dataset.idx_path().display()
                ),
                format_args!("the last one is {}", dataset.n_items().saturating_sub(1)),
            ));
        }
        let mut tokens = Vec::new();
        dataset.read(
            document,
            0..u64::from(dataset.item_len(document)?),
            &mut tokens,
        )?;
        let exposures = self.order.exposures(member, &HashSet::from([document]))?;
        Ok((tokens, exposures))
    }

    fn show_sequence(&self, out: &mut impl Write, index: TrainingIndex) -> Result<()> {
        let order = &self.order;
        let BatchPosition { step, row } = order.position(index);
        let sample = order.sample(index).map_or_else(
            || "none (preshuffled)".to_owned(),
            |sample| sample.to_string(),
        );
        let mut tokens = Vec::new();
        order.read_tokens(index, 0..order.sequence_length() + 1, &mut tokens)?;
        let name = &self.corpus.name;
        writeln!(
            out,
            "\ncorpus {name}  training index {index}  step {step}  row {row}  sample {sample}"
        )?;
        writeln!(
            out,
            "first seen by the checkpoint of {} steps",
            u64::from(step) + 1
        )?;
        for DocumentSpan { document, tokens } in order.documents(index)? {
            let n_tokens = tokens.end - tokens.start;
            writeln!(
                out,
                "  document {document}  tokens {}..{}  ({n_tokens})",
                tokens.start, tokens.end
            )?;
        }
        self.show_tokens(out, &tokens)
    }

    fn show_document(
        &self,
        out: &mut impl Write,
        document: u64,
        tokens: &[u32],
        exposures: &[Exposure],
    ) -> Result<()> {
        writeln!(
            out,
            "\ncorpus {}  document {document}  met in {} sequences",
            self.corpus.name,
            exposures.len()
        )?;
        for Exposure {
            training_index,
            span,
        } in exposures
        {
            let BatchPosition { step, row } = self.order.position(*training_index);
            let (first, end) = (span.tokens.start, span.tokens.end);
            writeln!(
                out,
                "  training index {training_index}  step {step}  row {row}  tokens {first}..{end}"
            )?;
        }
        self.show_tokens(out, tokens)
    }

    fn show_tokens(&self, out: &mut impl Write, tokens: &[u32]) -> Result<()> {
        let ids: Vec<String> = tokens.iter().map(ToString::to_string).collect();
        writeln!(out, "tokens ({}): {}", ids.len(), ids.join(" "))?;
        if let Some(tokenizer) = &self.tokenizer {
            let (text, n_unknown) = text::decode(tokenizer, tokens)?;
            writeln!(out, "text:\n{text}")?;
            if n_unknown > 0 {
                writeln!(
                    out,
                    "({n_unknown} token ids are left out of the text: the tokenizer does not know them)"
                )?;
            }
        }
        Ok(())
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
