//! `pipeline suite`: what is known of the published models.

use crate::cli::{SuiteCommand, SuiteOptions};
use crate::failure;
use crate::suite::{SEQUENCE_LENGTH, Suite, SuiteModel};
use crate::terminal;
use anyhow::Result;
use indicatif::HumanCount;
use std::io::Write;

/// Seed of the data order that the preshuffled corpora have.
const PRESHUFFLED_SEED: u32 = 1234;

/// Lists the models, or shows one.
///
/// # Errors
///
/// When no model is called so, or stdout is closed.
pub(crate) fn suite(options: &SuiteOptions) -> Result<()> {
    let suite = Suite::load()?;
    match &options.command {
        None => list(&suite, options),
        Some(SuiteCommand::Show { name }) => show(&suite, name),
    }
}

fn list(suite: &Suite, options: &SuiteOptions) -> Result<()> {
    let fits = |wanted: &Option<String>, found: &str| {
        wanted.as_deref().is_none_or(|wanted| wanted == found)
    };
    let models: Vec<SuiteModel<'_>> = suite
        .models()
        .filter(|model| {
            fits(&options.series, model.series)
                && fits(&options.size, &model.size.name)
                && fits(&options.corpus, model.corpus)
        })
        .collect();
    if models.is_empty() {
        return Err(failure::usage(
            "no model of the suite is so",
            "`pipeline suite` without flags lists all, with their series, sizes and corpora",
        ));
    }
    let mut out = terminal::stdout();
    writeln!(
        out,
        "{:<24}{:<13}{:>15}  {:<14}{:>5}{:>7}{:>9}{:>13}",
        "model", "series", "parameters", "corpus", "seed", "batch", "steps", "checkpoints"
    )?;
    for model in models {
        writeln!(
            out,
            "{:<24}{:<13}{:>15}  {:<14}{:>5}{:>7}{:>9}{:>13}",
            model.name,
            model.series,
            HumanCount(model.size.parameters).to_string(),
            model.corpus,
            model.seed,
            model.batch_size,
            HumanCount(u64::from(model.steps)).to_string(),
            model.checkpoints.len(),
        )?;
    }
    Ok(())
}

fn show(suite: &Suite, name: &str) -> Result<()> {
    let Some(model) = suite.find(name) else {
        return Err(failure::usage(
            format_args!("no model of the suite is called `{name}`"),
            format_args!(
                "did you mean {}? `pipeline suite` lists them all",
                suite.near(name).join(", ")
            ),
        ));
    };
    let mut out = terminal::stdout();
    let asked = name.strip_prefix("EleutherAI/").unwrap_or(name);
    if !asked.eq_ignore_ascii_case(model.name) {
        writeln!(out, "{asked} is called {} since January 2023\n", model.name)?;
    }
    let lines = facts(&model)
        .into_iter()
        .chain(data(suite, &model))
        .chain(caveats(&model));
    for (key, value) in lines {
        writeln!(out, "{key:<15}{value}")?;
    }
    Ok(())
}

/// A key and its value; no key where the line continues the one before.
type Line = (&'static str, String);

/// What the model is.
fn facts(model: &SuiteModel<'_>) -> Vec<Line> {
    let shape = model.shape();
    let count = |n: u64| HumanCount(n).to_string();
    let size = model.size;
    let tokens = u64::from(model.batch_size) * u64::from(SEQUENCE_LENGTH);
    let parameters = format!(
        "{}; {} without embeddings",
        count(size.parameters),
        count(size.parameters_without_embeddings)
    );
    let shape = format!(
        "{} layers, hidden size {}, {} heads of {}, {} of them rotated, feed-forward {}",
        size.layers,
        size.hidden_size,
        size.heads,
        shape.head_size(),
        shape.n_rotary(),
        size.intermediate_size
    );
    let vocabulary = count(size.vocabulary as u64);
    let batch = count(u64::from(model.batch_size));
    let schedule = format!(
        "{:e} after a warm-up of 1 % of the steps, cosine decay to {:e}",
        size.learning_rate, model.learning_rate_min
    );
    let trained = format!(
        "in {} on {} GPUs, model-parallel {}",
        size.precision, model.gpus, size.model_parallel
    );
    let seeds = format!(
        "{} of the data order, {} of the first weights",
        model.seed, model.weight_seed
    );
    vec![
        ("model", model.name.to_owned()),
        (
            "series",
            format!("{}: {}", model.series, model.about_series),
        ),
        ("repository", model.repository()),
        ("parameters", parameters),
        ("shape", shape),
        (
            "vocabulary",
            format!("50,277 tokens, padded to {vocabulary}"),
        ),
        (
            "batch",
            format!("{batch} sequences, {} tokens", count(tokens)),
        ),
        ("steps", count(u64::from(model.steps))),
        ("learning rate", schedule),
        ("trained", trained),
        ("seeds", seeds),
        ("checkpoints", checkpoints(model)),
        (
            "configuration",
            model.config.unwrap_or("not published").to_owned(),
        ),
    ]
}

/// What it was trained on, and where that is.
fn data(suite: &Suite, model: &SuiteModel<'_>) -> Vec<Line> {
    let mut lines = Vec::new();
    for corpus in suite
        .corpus
        .iter()
        .filter(|corpus| corpus.name == model.corpus)
    {
        lines.push(("corpus", format!("{}: {}", corpus.name, corpus.about)));
        lines.push(("", format!("tokenized, not shuffled: {}", corpus.tokenized)));
        if model.seed == PRESHUFFLED_SEED {
            lines.push(("", format!("in training order: {}", corpus.preshuffled)));
        }
        if let Some(maps) = &corpus.maps {
            lines.push(("", format!("GPT-NeoX's maps: {maps}")));
        }
        lines.extend(corpus.notes.iter().map(|note| ("", note.clone())));
    }
    lines
}

/// What to be careful about.
fn caveats(model: &SuiteModel<'_>) -> Vec<Line> {
    let which = |checkpoints: &[u32]| {
        let names: Vec<String> = checkpoints
            .iter()
            .map(|&steps| model.revision(steps))
            .collect();
        if names.is_empty() {
            String::new()
        } else {
            format!("{}: ", names.join(", "))
        }
    };
    let mut lines: Vec<Line> = model
        .notes
        .iter()
        .map(|note| ("note", note.clone()))
        .collect();
    for bad in &model.bad_revisions {
        let line = format!("{}{} ({})", which(&bad.checkpoints), bad.about, bad.issue);
        lines.push(("bad revisions", line));
    }
    for equal in &model.equal_checkpoints {
        let line = format!(
            "{}{} ({})",
            which(&equal.checkpoints),
            equal.about,
            equal.issue
        );
        lines.push(("equal", line));
    }
    for found in &model.discrepancies {
        let says: Vec<String> = found
            .says
            .iter()
            .map(|(value, source)| format!("{value} ({source})"))
            .collect();
        lines.push((
            "sources differ",
            format!("{}: {}", found.key, says.join("; ")),
        ));
        lines.push((
            "",
            format!("used here: {}, since {}", found.used, found.why),
        ));
    }
    lines
}

/// The checkpoints in words: those before the first regular one, then from where to where.
fn checkpoints(model: &SuiteModel<'_>) -> String {
    let n = model.checkpoints.len();
    let every = n.checked_sub(2).map_or(0, |place| {
        model.checkpoints[n - 1] - model.checkpoints[place]
    });
    let early: Vec<String> = model
        .checkpoints
        .iter()
        .take_while(|&&steps| steps < every)
        .map(u32::to_string)
        .collect();
    let first = if early.is_empty() {
        String::new()
    } else {
        format!("{}, ", early.join(", "))
    };
    let factor = if model.revision_factor == 1 {
        String::new()
    } else {
        format!(
            "; revisions are named after {} times the steps",
            model.revision_factor
        )
    };
    format!("{n}: {first}{every} … {} by {every}{factor}", model.steps)
}
