//! Who decides about probes: a model, or a script that stands in for one.

use crate::config::{CheckpointFolder, Probe, Run};
use crate::progress;
use anyhow::{Context, Result, ensure};
use gpt_neox::{GptNeox, Judge, JudgeError, Likelihood, Measures, Precision, Probes, Verdict};
use serde::{Deserialize, Serialize};

/// The judges a run file can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum JudgeChoice {
    GptNeox,
    Scripted,
}

/// The measures a run file can name, beside the exact one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Measure {
    Score,
    Likelihood,
}

/// Judges the probes of one checkpoint, those with a near tie twice where the run asks for it.
pub(crate) struct Court {
    judge: Box<dyn Judge>,
    /// The same checkpoint in f32, where near ties are judged again.
    second: Option<Box<dyn Judge>>,
    measures: Measures,
    near_tie: f32,
    pub(crate) recheck: Recheck,
    /// How many probes were decided about together at last; None before the first.
    pub(crate) batch_size: Option<usize>,
}

/// How many probes were judged again.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Recheck {
    pub(crate) n: u64,
    /// Those whose `n_prefix_matched` was another then.
    pub(crate) n_changed: u64,
}

/// A verdict as it stands in the tables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    pub(crate) verdict: Verdict,
    /// Whether rounding might have decided the first verdict.
    pub(crate) near_tie: bool,
}

impl Court {
    /// Loads the judge of a checkpoint.
    ///
    /// # Errors
    ///
    /// When the checkpoint cannot be loaded.
    pub(crate) fn open(run: &Run, checkpoint: &CheckpointFolder) -> Result<Self> {
        let load = |precision| load(run, checkpoint, precision);
        let second = run.probe.recheck.then(|| load(Precision::F32));
        Ok(Self {
            judge: load(run.precision)?,
            second: second.transpose()?,
            measures: measures(&run.probe),
            near_tie: run.probe.near_tie,
            recheck: Recheck::default(),
            batch_size: None,
        })
    }

    /// How many probes of `len` tokens it is best asked about at once.
    pub(crate) fn n_at_once(&self, len: usize) -> usize {
        self.judge.n_at_once(len)
    }

    /// One verdict for each probe, in their order; with the likelihood where it is asked for, whatever the run's measures.
    ///
    /// # Errors
    ///
    /// When a probe does not fit the model, or the device fails.
    pub(crate) fn judge(&mut self, probes: &Probes<'_>, likelihood: bool) -> Result<Vec<Judged>> {
        let measures = Measures {
            likelihood: self.measures.likelihood || likelihood,
            ..self.measures
        };
        let len = probes.prompt_len() + probes.continuation_len();
        let batch_size = self.judge.batch_size(len);
        let verdicts = self.judge.judge(probes, measures)?;
        let fitting = self.judge.batch_size(len);
        if fitting < batch_size {
            progress::say(&format!(
                "the device ran out of memory with {batch_size} probes together: now {fitting}"
            ));
        }
        self.batch_size = Some(fitting);
        ensure!(
            verdicts.len() == probes.len(),
            "the judge gave {} verdicts on {} probes",
            verdicts.len(),
            probes.len()
        );
        let mut judged: Vec<Judged> = verdicts
            .into_iter()
            .map(|verdict| Judged {
                verdict,
                near_tie: verdict.closest < self.near_tie,
            })
            .collect();
        let Some(second) = &mut self.second else {
            return Ok(judged);
        };
        let near = judged.iter().zip(probes.rows());
        let near: Vec<u32> = near
            .filter(|(judged, _)| judged.near_tie)
            .flat_map(|(_, tokens)| tokens)
            .copied()
            .collect();
        let near = Probes::new(&near, probes.prompt_len(), probes.continuation_len())?;
        let again = second.judge(&near, measures)?;
        let first = judged.iter_mut().filter(|judged| judged.near_tie);
        for (first, again) in first.zip(again) {
            self.recheck.n += 1;
            let changed = first.verdict.n_prefix_matched != again.n_prefix_matched;
            self.recheck.n_changed += u64::from(changed);
            first.verdict = again;
        }
        Ok(judged)
    }
}

fn measures(probe: &Probe) -> Measures {
    Measures {
        score: probe.measures.contains(&Measure::Score),
        likelihood: probe.measures.contains(&Measure::Likelihood),
        suppress_eos: probe.suppress_eos,
    }
}

fn load(run: &Run, checkpoint: &CheckpointFolder, precision: Precision) -> Result<Box<dyn Judge>> {
    match run.probe.judge {
        JudgeChoice::Scripted => Ok(Box::new(Scripted {
            checkpoint: checkpoint.steps,
            // Any number is answered at once; this one lets the progress bar move.
            batch_size: run.batch_size.map_or(4096, |n| n as usize),
        })),
        JudgeChoice::GptNeox => {
            let mut model =
                GptNeox::load(&checkpoint.folder, run.device, precision).with_context(|| {
                    format!("loading the checkpoint `{}`", checkpoint.folder.display())
                })?;
            if let Some(n) = run.batch_size {
                model.set_batch_size(n as usize);
            }
            Ok(Box::new(model))
        }
    }
}

/// Answers (sum of the probe's token ids + checkpoint) mod (l + 1): instantly, and so that a test can
/// foretell it. After a miss nothing is right; margins are ±1; each token that is right has a surprisal of 0 nats, each
/// other one of 1.
struct Scripted {
    checkpoint: u32,
    batch_size: usize,
}

impl Judge for Scripted {
    fn judge(
        &mut self,
        probes: &Probes<'_>,
        measures: Measures,
    ) -> Result<Vec<Verdict>, JudgeError> {
        // A continuation is at most 65,535 tokens long: the run file's l is a u16.
        let l = u16::try_from(probes.continuation_len()).unwrap_or(u16::MAX);
        let verdicts = probes.rows().map(|tokens| {
            let sum: u64 = tokens.iter().copied().map(u64::from).sum();
            let n = (sum + u64::from(self.checkpoint)) % (u64::from(l) + 1);
            let n = u16::try_from(n).unwrap_or(u16::MAX);
            let missed = f32::from(l - n);
            Verdict {
                n_prefix_matched: n,
                margin: if n == l { 1.0 } else { -1.0 },
                closest: 1.0,
                n_matched: measures.score.then_some(n),
                likelihood: measures.likelihood.then(|| Likelihood {
                    surprisal: missed / f32::from(l),
                    logp_suffix: -missed,
                    n_top1: n,
                }),
            }
        });
        Ok(verdicts.collect())
    }

    fn n_at_once(&self, len: usize) -> usize {
        self.batch_size(len)
    }

    fn batch_size(&self, _len: usize) -> usize {
        self.batch_size
    }
}
