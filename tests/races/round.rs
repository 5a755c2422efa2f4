//! A round: who starts when, with which run file, and what happens to them.

use crate::harness::Random;
use crate::program::RunFile;
use std::fmt;
use std::time::Duration;

/// How a run file differs from the first one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Variant {
    Base,
    /// Other bins: the same verdicts, other tables.
    Bins,
    /// More checkpoints: the verdicts of `Base` and more.
    More,
    /// Eight checkpoints, in few parts.
    Eight,
    /// Other probes.
    K,
    /// Another training order.
    Seed,
}

/// The contents of a run file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Settings {
    pub(super) layout: &'static str,
    pub(super) variant: Variant,
}

impl Settings {
    pub(super) fn run_file(self) -> RunFile {
        let base = RunFile {
            steps: 80,
            part_size: 60,
            numbers: vec![40, 80],
            layout: self.layout,
            ..RunFile::default()
        };
        match self.variant {
            Variant::Base => base,
            Variant::Bins => RunFile { bins: 7, ..base },
            Variant::More => RunFile {
                numbers: vec![20, 40, 60, 80],
                ..base
            },
            Variant::Eight => RunFile {
                numbers: (1..=8).map(|n| n * 10).collect(),
                part_size: 640,
                ..base
            },
            Variant::K => RunFile { k: 16, ..base },
            Variant::Seed => RunFile { seed: 4321, ..base },
        }
    }

    /// The run file's name.
    pub(super) fn name(self) -> String {
        format!("{}-{:?}", self.layout, self.variant).to_lowercase()
    }
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// So long after the start: of the round, or of the process.
    After(Duration),
    /// So many parts of verdicts are there.
    Parts(usize),
    /// A file is being written.
    Partial,
    /// A table is being written, outside the folder of verdicts.
    Table,
}

/// What happens to a process.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// SIGSTOP, and SIGCONT after so long.
    Pause(Duration),
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Actor {
    pub(super) settings: Settings,
    pub(super) start: Moment,
    pub(super) actions: Vec<(Moment, Action)>,
}

/// What is played.
#[derive(Clone, Debug)]
pub(super) struct Round {
    pub(super) actors: Vec<Actor>,
}

impl Round {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let layout = *random.pick(&["file", "dataset"]);
        let n = 2 + random.below(3);
        let equal = random.percent(50);
        // What the rounds differ in: whether anybody is ended from outside.
        let is_deadly = random.percent(50);
        let actors = (0..n).map(|i| {
            let variant = if equal {
                Variant::Base
            } else {
                *random.pick(&[
                    Variant::Base,
                    Variant::Base,
                    Variant::Bins,
                    Variant::More,
                    Variant::K,
                    Variant::Seed,
                ])
            };
            let layout = match (equal, layout) {
                (false, "file") if random.percent(20) => "dataset",
                (false, _) if random.percent(20) => "file",
                _ => layout,
            };
            let start = match random.below(8) {
                _ if i == 0 => Moment::After(Duration::ZERO),
                0..4 => Moment::After(Duration::from_micros(random.below(5000))),
                4 => Moment::After(Duration::from_millis(random.below(300))),
                _ => event(&mut random),
            };
            let mut actions = Vec::new();
            for _ in 0..random.below(4) {
                let pause = Duration::from_millis(5 + random.below(196));
                actions.push((moment(&mut random), Action::Pause(pause)));
            }
            if is_deadly && random.percent(60) {
                let end = *random.pick(&[
                    Action::Kill,
                    Action::Kill,
                    Action::Terminate,
                    Action::Interrupt,
                ]);
                actions.push((moment(&mut random), end));
            }
            Actor {
                settings: Settings { layout, variant },
                start,
                actions,
            }
        });
        Self {
            actors: actors.collect(),
        }
    }

    /// Whether all of them have the same run file.
    pub(super) fn is_equal(&self) -> bool {
        let first = self.actors[0].settings;
        self.actors.iter().all(|actor| actor.settings == first)
    }
}

fn event(random: &mut Random) -> Moment {
    match random.below(4) {
        0 => Moment::Partial,
        1 => Moment::Table,
        _ => Moment::Parts(usize::try_from(1 + random.below(28)).unwrap()),
    }
}

fn moment(random: &mut Random) -> Moment {
    if random.percent(50) {
        event(random)
    } else {
        Moment::After(Duration::from_millis(random.below(400)))
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, actor) in self.actors.iter().enumerate() {
            let name = actor.settings.name();
            writeln!(f, "  process {i}: {name}, starts {:?}", actor.start)?;
            for (moment, action) in &actor.actions {
                writeln!(f, "    {moment:?}: {action:?}")?;
            }
        }
        Ok(())
    }
}
