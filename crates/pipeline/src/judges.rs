//! Who decides about probes: a model, or a script that stands in for one.

use crate::config::{CheckpointFolder, Run};
use anyhow::{Context, Result};
use gpt_neox::{GptNeox, Judge, JudgeError, Probes, Verdict};
use serde::{Deserialize, Serialize};

/// The judges a run file can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JudgeChoice {
    GptNeox,
    Scripted,
}

/// The judge of one checkpoint, ready to be asked.
///
/// # Errors
///
/// When the checkpoint cannot be loaded.
pub(crate) fn load(run: &Run, checkpoint: &CheckpointFolder) -> Result<Box<dyn Judge>> {
    match run.probe.judge {
        JudgeChoice::Scripted => Ok(Box::new(Scripted {
            checkpoint: checkpoint.steps,
        })),
        JudgeChoice::GptNeox => {
            let model = GptNeox::load(&checkpoint.folder, run.device, run.precision).with_context(
                || format!("loading the checkpoint `{}`", checkpoint.folder.display()),
            )?;
            Ok(Box::new(model))
        }
    }
}

/// Answers (sum of the probe's token ids + checkpoint) mod (l + 1): instantly, and so that a test can
/// foretell it.
struct Scripted {
    checkpoint: u32,
}

impl Judge for Scripted {
    fn judge(&mut self, probes: &Probes<'_>) -> Result<Vec<Verdict>, JudgeError> {
        let outcomes = probes.continuation_len() as u64 + 1;
        let verdicts = probes.rows().map(|tokens| {
            let sum: u64 = tokens.iter().copied().map(u64::from).sum();
            let n_prefix_matched = (sum + u64::from(self.checkpoint)) % outcomes;
            // A continuation is at most 65,535 tokens long: the run file's l is a u16.
            Verdict {
                n_prefix_matched: u16::try_from(n_prefix_matched).unwrap_or(u16::MAX),
            }
        });
        Ok(verdicts.collect())
    }

    fn n_at_once(&self) -> usize {
        // Any number is answered at once; this one lets the progress bar move.
        4096
    }
}
