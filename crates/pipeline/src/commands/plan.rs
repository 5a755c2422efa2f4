//! `pipeline plan`: which sequences are probed, and what that takes and could show, before anything is spent.

use super::check;
use super::columns::write_columns;
use super::run::enter;
use crate::claims::Work;
use crate::cli::PlanOptions;
use crate::config::{Overrides, Run};
use crate::description::Description;
use crate::inputs::{self, Depth, Inputs, Look};
use crate::manifest::{self, Manifest};
use crate::output;
use crate::progress;
use crate::stages::{self, CorpusSurvey, ModelSurvey, Trend, export};
use crate::tables::{EXPOSURES_BY_STEP, POSITIONS, Pending};
use crate::terminal;
use anyhow::{Result, ensure};
use gpt_neox::DeviceChoice;
use indicatif::{HumanBytes, HumanCount};
use std::io::Write;
use std::path::Path;

/// Plans the run file at `file`.
///
/// # Errors
///
/// What is wrong with the run file, its corpora or the output folder.
pub(crate) fn plan(file: &Path, options: &PlanOptions) -> Result<()> {
    let PlanOptions {
        out,
        export_tokens,
        probes_per_second,
    } = options;
    let overrides = Overrides {
        out: out.clone(),
        device: None,
    };
    let run = Run::load(file, &overrides)?;
    check::warn(&run);
    output::admit(&run, true)?;
    if let Some(path) = export_tokens {
        export::check_place(&run, path)?;
    }
    let inputs = inputs::open(&run, Look::at(Depth::Corpora, false))?;
    output::admit(&run, true)?;
    check::warn_absent(&run);
    // Read before the stage could replace what it stands beside.
    let speed = Speed::of(&run, *probes_per_second)?;
    let description = Description::of(&run, &inputs)?;
    output::refuse_conflicts(&run.out, &description)?;
    let record = Manifest::new(&run, &inputs, &description).text()?;
    let output = enter(&run.out, description, record, Work::default())?;
    let mut pending = Pending::default();
    stages::plan(&run, &inputs, &mut pending)?;
    pending.land(&|| output.check())?;
    let mut written = vec![
        run.out.join(POSITIONS.path),
        run.out.join(EXPOSURES_BY_STEP.path),
    ];
    if let Some(path) = export_tokens {
        stages::export_tokens(&run, &inputs, path)?;
        written.push(std::path::absolute(path)?);
    }
    let mut stdout = terminal::stdout();
    show(&mut stdout, &run, &inputs, &speed)?;
    writeln!(stdout)?;
    for path in written {
        writeln!(stdout, "{}", path.display())?;
    }
    Ok(())
}

/// What is known of how fast probes are decided, beside what the run file says of single models.
pub(super) struct Speed {
    /// Probes in a second: for every model when it was stated, for those without an own speed when it was measured.
    rate: Option<f64>,
    stated: bool,
    source: String,
}

impl Speed {
    /// The speed that was stated, or that of the finished run in the output folder.
    ///
    /// # Errors
    ///
    /// When the stated speed is none.
    pub(super) fn of(run: &Run, stated: Option<f64>) -> Result<Self> {
        if let Some(rate) = stated {
            ensure!(
                rate.is_finite() && rate > 0.0,
                crate::failure::usage(
                    format_args!("{rate} probes per second is no speed"),
                    "give a number above 0"
                )
            );
            return Ok(Self {
                rate: Some(rate),
                stated: true,
                source: "`--probes-per-second`".to_owned(),
            });
        }
        let path = run.out.join(manifest::FILE);
        let measured = manifest::measured_speed(&path, run);
        Ok(Self {
            source: match measured {
                Some(_) => format!(
                    "measured by the run of `{}`, on {} in {}",
                    path.display(),
                    run.device,
                    run.precision
                ),
                None => "none is known: state one with `--probes-per-second` or `model.probes-per-second`".to_owned(),
            },
            rate: measured,
            stated: false,
        })
    }

    /// The speed of a model and who says it.
    fn of_model(&self, model: &ModelSurvey) -> Option<f64> {
        if self.stated {
            return self.rate;
        }
        model.probes_per_second.or(self.rate)
    }
}

/// Writes what the plan takes and could show.
///
/// # Errors
///
/// When a list or `out` fails.
pub(super) fn show(out: &mut impl Write, run: &Run, inputs: &Inputs, speed: &Speed) -> Result<()> {
    let (corpora, models) = stages::survey(run, inputs)?;
    show_corpora(out, &corpora)?;
    writeln!(out)?;
    show_models(out, run, &models, speed)?;
    for corpus in corpora.iter().filter(|corpus| corpus.n_lacking > 0) {
        progress::say(&format!(
            "warning: corpus `{}`: {} sequences of the windows lie beyond what its files hold, and are not probed",
            corpus.name,
            HumanCount(corpus.n_lacking)
        ));
    }
    Ok(())
}

fn show_corpora(out: &mut impl Write, corpora: &[CorpusSurvey]) -> Result<()> {
    let mut rows = vec![
        [
            "corpus",
            "probed",
            "probes",
            "not trained on",
            "tokens",
            "in the corpus",
        ]
        .map(str::to_owned),
    ];
    rows.extend(corpora.iter().map(|corpus| {
        [
            corpus.name.clone(),
            corpus.selection.clone(),
            HumanCount(corpus.n_probes).to_string(),
            HumanCount(corpus.n_untrained).to_string(),
            HumanCount(corpus.n_tokens).to_string(),
            HumanBytes(corpus.n_bytes).to_string(),
        ]
    }));
    Ok(write_columns(out, &rows, 2)?)
}

fn show_models(
    out: &mut impl Write,
    run: &Run,
    models: &[ModelSurvey],
    speed: &Speed,
) -> Result<()> {
    let unit = match run.device {
        DeviceChoice::Cpu => "CPU-hours",
        DeviceChoice::Gpu(..) => "GPU-hours",
    };
    let none = || "–".to_owned();
    let mut rows = vec![
        [
            "model",
            "corpus",
            "checkpoints",
            "verdicts",
            "tokens",
            "bytes read",
            "probes/s",
            unit,
        ]
        .map(str::to_owned),
    ];
    for model in models {
        let rate = speed.of_model(model);
        rows.push([
            model.name.clone(),
            model.corpus.clone(),
            model.n_checkpoints.to_string(),
            HumanCount(model.n_verdicts).to_string(),
            HumanCount(model.n_tokens).to_string(),
            HumanBytes(model.n_bytes).to_string(),
            rate.map_or_else(none, |rate| format!("{rate:.0}")),
            rate.map_or_else(none, |rate| hours(model.n_verdicts, rate)),
        ]);
    }
    let sum = |of: fn(&ModelSurvey) -> u64| models.iter().map(of).sum::<u64>();
    let rates: Option<Vec<f64>> = models.iter().map(|model| speed.of_model(model)).collect();
    let seconds = rates.map(|rates| {
        let seconds = models.iter().zip(rates);
        seconds
            .map(|(model, rate)| approximate(model.n_verdicts) / rate)
            .sum::<f64>()
    });
    rows.push([
        "total".to_owned(),
        String::new(),
        sum(|model| model.n_checkpoints).to_string(),
        HumanCount(sum(|model| model.n_verdicts)).to_string(),
        HumanCount(sum(|model| model.n_tokens)).to_string(),
        HumanBytes(sum(|model| model.n_bytes)).to_string(),
        String::new(),
        seconds.map_or_else(none, |seconds| format!("{:.2}", seconds / 3600.0)),
    ]);
    write_columns(out, &rows, 2)?;
    let of_models = models
        .iter()
        .filter(|model| model.probes_per_second.is_some())
        .count();
    let own = if speed.stated || of_models == 0 {
        ""
    } else {
        "`model.probes-per-second`; where it is not given, "
    };
    writeln!(out, "speed: {own}{}", speed.source)?;
    writeln!(out)?;
    show_trends(out, models)
}

fn show_trends(out: &mut impl Write, models: &[ModelSurvey]) -> Result<()> {
    let none = || "–".to_owned();
    let mut rows = vec![
        [
            "model",
            "corpus",
            "checkpoint",
            "seen",
            "not seen",
            "assumed rate",
            "hits",
            "smallest slope",
            "halves' ratio",
        ]
        .map(str::to_owned),
    ];
    let windows = models
        .iter()
        .filter_map(|model| Some((model, model.window.as_ref()?)));
    for (model, window) in windows.clone() {
        let assumed = window.assumed.as_ref();
        let number = |of: fn(&Trend) -> String| window.trend.as_ref().map_or_else(none, of);
        rows.push([
            model.name.clone(),
            model.corpus.clone(),
            window.checkpoint.to_string(),
            HumanCount(window.n_seen).to_string(),
            HumanCount(window.n_unseen).to_string(),
            assumed.map_or_else(none, |assumed| format!("{:.3} %", 100.0 * assumed.rate)),
            number(|trend| format!("{:.0}", trend.n_hits)),
            number(|trend| format!("{:.4}", trend.slope)),
            number(|trend| format!("{:.4}", trend.halves_ratio)),
        ]);
    }
    write_columns(out, &rows, 2)?;
    writeln!(
        out,
        "smallest slope: change of the log rate from step 0 to the last checkpoint that 80 % of such runs find at the 5 % level\n\
         halves' ratio: what that is between the second and the first half, if the trend is log-linear"
    )?;
    for (model, window) in windows {
        let source = match &window.assumed {
            Some(assumed) => assumed.source.as_str(),
            None => "none is known: state one with `model.assumed-rate`",
        };
        writeln!(out, "assumed rate of {}: {source}", model.name)?;
    }
    Ok(())
}

fn hours(n_verdicts: u64, rate: f64) -> String {
    format!("{:.2}", approximate(n_verdicts) / rate / 3600.0)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate for a person to read"
)]
fn approximate(n: u64) -> f64 {
    n as f64
}
