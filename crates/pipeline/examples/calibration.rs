//! Whether the statistics keep what they promise, by simulation: prints the tables of `CALIBRATION.md`.
//!
//! Each line is a number of simulated runs (20,000, or the program's argument), each with generators of its own, so that the
//! tables do not depend on the number of threads. What is called is what the stage `analyse` calls.

#![expect(clippy::print_stdout, reason = "what an example is for")]

use pipeline::statistics::{
    Bin, Decision, Direction, PoissonTrend, StepCount, Window, decide, excess_ratio, poisson_trend,
};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Binomial, Distribution, Geometric, Poisson};
use rayon::prelude::*;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The standard run of Pythia.
const SEQUENCES: f64 = 146_432_000.0;
/// Steps of a simulated window: 143 bins of three.
const STEPS: u32 = 429;

fn main() {
    let argument = std::env::args().nth(1);
    let n_runs = argument
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000);
    let simulation = Simulation {
        n_runs,
        quantiles: (0..=1_430).map(t_quantile).collect(),
    };
    simulation.slopes();
    simulation.no_trend();
    simulation.bunches();
    simulation.equivalence();
    simulation.power();
    simulation.detectable();
    simulation.excess();
}

struct Simulation {
    n_runs: u32,
    /// The 97.5 % quantile of t(K − 2), by K.
    quantiles: Vec<f64>,
}

/// Probes by step, and how hits fall on them.
#[derive(Clone)]
struct Truth {
    /// Without hits.
    steps: Vec<StepCount>,
    /// Middles of the steps, −½ … ½.
    times: Vec<f64>,
    /// Hits on average.
    expected: Vec<f64>,
    bunches: Bunches,
}

#[derive(Clone, Copy)]
enum Bunches {
    /// Every probe by itself.
    None,
    /// Bunches of `size` on average, geometric, thrown on the next `over` steps.
    Of { size: f64, over: usize },
}

/// Change of the rate over the window.
#[derive(Clone, Copy)]
enum Shape {
    /// ln(rate) by this much, linearly.
    Slope(f64),
    /// The second half's rate is this many times the first's.
    Step(f64),
}

const FLAT: Shape = Shape::Slope(0.0);

impl Truth {
    /// `hits` in all on average, on probes of as many steps in a row as `probes` has.
    fn new(probes: &[u32], every: u32, hits: f64, shape: Shape) -> Self {
        let places = (0..).step_by(every as usize).zip(probes);
        let steps: Vec<StepCount> = places
            .map(|(step, &n)| StepCount { step, n, hits: 0 })
            .collect();
        let times: Vec<f64> = Window::new(&steps)
            .by_step()
            .iter()
            .map(|bin| bin.t)
            .collect();
        let relative = |time: f64| match shape {
            Shape::Slope(slope) => (slope * time).exp(),
            Shape::Step(ratio) => {
                if time < 0.0 {
                    1.0
                } else {
                    ratio
                }
            }
        };
        let shares: Vec<f64> = times
            .iter()
            .zip(probes)
            .map(|(time, n)| f64::from(*n) * relative(*time))
            .collect();
        let sum: f64 = shares.iter().sum();
        let expected = shares.iter().map(|share| share / sum * hits).collect();
        Self {
            steps,
            times,
            expected,
            bunches: Bunches::None,
        }
    }

    fn in_bunches(self, size: f64, over: usize) -> Self {
        Self {
            bunches: Bunches::Of { size, over },
            ..self
        }
    }

    /// The second half's rate over the first's.
    fn ratio(&self) -> f64 {
        let half = |late: bool| {
            let (mut hits, mut n) = (0.0, 0.0);
            for ((time, count), expected) in self.times.iter().zip(&self.steps).zip(&self.expected)
            {
                if (*time >= 0.0) == late {
                    hits += expected;
                    n += f64::from(count.n);
                }
            }
            hits / n
        };
        half(true) / half(false)
    }

    fn sampler(&self) -> Sampler {
        let (mut binomials, mut poissons) = (Vec::new(), Vec::new());
        for (count, expected) in self.steps.iter().zip(&self.expected) {
            match self.bunches {
                Bunches::None => {
                    binomials.extend(Binomial::new(count.n.into(), expected / f64::from(count.n)));
                }
                Bunches::Of { size, .. } => poissons.extend(Poisson::new(expected / size)),
            }
        }
        Sampler {
            truth: self.clone(),
            binomials,
            poissons,
        }
    }
}

struct Sampler {
    truth: Truth,
    binomials: Vec<Binomial>,
    poissons: Vec<Poisson<f64>>,
}

impl Sampler {
    fn draw(&self, random: &mut Xoshiro256PlusPlus) -> Vec<StepCount> {
        let mut steps = self.truth.steps.clone();
        match self.truth.bunches {
            Bunches::None => {
                for (count, hits) in steps.iter_mut().zip(&self.binomials) {
                    count.hits = u32::try_from(hits.sample(random)).unwrap_or(u32::MAX);
                }
            }
            Bunches::Of { size, over } => {
                let Ok(more) = Geometric::new(1.0 / size) else {
                    return steps;
                };
                for (place, bunches) in self.poissons.iter().enumerate() {
                    let mut left = bunches.sample(random);
                    while left > 0.0 {
                        left -= 1.0;
                        for _ in 0..=more.sample(random) {
                            let step = (place + random.random_range(0..over)) % steps.len();
                            steps[step].hits = (steps[step].hits + 1).min(steps[step].n);
                        }
                    }
                }
            }
        }
        steps
    }
}

/// Everything that is looked at in a window.
struct Found {
    slope: f64,
    se: f64,
    n_bins: f64,
    /// Half of the 95 % intervals.
    half_width_quasi: f64,
    half_width_clustered: f64,
    decision: Decision,
}

impl Simulation {
    fn find(&self, steps: &[StepCount]) -> Option<Found> {
        let window = Window::new(steps);
        let bins = poisson_trend(&window.bins())?;
        let by_step = poisson_trend(&window.by_step())?;
        let quantile = |fit: &PoissonTrend| self.quantiles[fit.n_bins];
        Some(Found {
            slope: bins.slope,
            se: bins.se,
            n_bins: f64::from(u32::try_from(bins.n_bins).ok()?),
            half_width_quasi: quantile(&bins) * bins.se_quasi?,
            half_width_clustered: quantile(&by_step) * by_step.se_jackknife?,
            decision: decide(&bins, Some(&by_step))?,
        })
    }

    /// Means over runs of what a run gives, and how many gave nothing.
    fn mean<const N: usize>(
        &self,
        run: impl Fn(&mut Xoshiro256PlusPlus) -> Option<[f64; N]> + Sync,
    ) -> ([f64; N], u32) {
        // Summed in the order of runs.
        let found: Vec<Option<[f64; N]>> = (0..self.n_runs)
            .into_par_iter()
            .map(|number| run(&mut Xoshiro256PlusPlus::seed_from_u64(number.into())))
            .collect();
        let whole: Vec<[f64; N]> = found.into_iter().flatten().collect();
        let n_whole = u32::try_from(whole.len()).unwrap_or(self.n_runs);
        let sum = |place: usize| whole.iter().map(|run| run[place]).sum::<f64>();
        let mean = std::array::from_fn(|place| sum(place) / f64::from(n_whole));
        (mean, self.n_runs - n_whole)
    }

    fn slopes(&self) {
        println!("\n## Intervals of the slope, by number of bins\n");
        println!(
            "Coverage of slope ± t(K − 2) · `slope_se_quasi`, 94.5 to 95.5 % wanted; ln(rate) grows by 0.5.\n"
        );
        println!(
            "| bins | hits | probes of a bin | quasi-Poisson, % | Poisson, % | without a slope |"
        );
        println!("| ---: | ---: | --- | ---: | ---: | ---: |");
        for k in [10, 20, 143] {
            let quantile = self.quantiles[k as usize];
            for hits in [10.0, 20.0, 50.0, 100.0, 1_600.0, 20_000.0, 2_382_326.0] {
                for even in [true, false] {
                    let truth = Truth::new(&probes(k, SEQUENCES, even), 1, hits, Shape::Slope(0.5));
                    let sampler = truth.sampler();
                    let ([quasi, plain], n_none) = self.mean(|random| {
                        let bins: Vec<Bin> = Window::new(&sampler.draw(random)).by_step();
                        let fit = poisson_trend(&bins)?;
                        let error = (fit.slope - 0.5).abs();
                        Some([
                            yes(error <= quantile * fit.se_quasi?),
                            yes(error <= Z * fit.se),
                        ])
                    });
                    println!(
                        "| {k} | {} | {} | {} | {:.2} | {n_none} |",
                        count(hits),
                        denominators(even),
                        bounded(quasi, 94.5, 95.5),
                        100.0 * plain
                    );
                }
            }
        }
    }

    fn no_trend(&self) {
        println!("\n## No trend\n");
        println!(
            "| hits | steps, probes | bins | quasi, % | clustered, % | `rate_ratio`, % (≥ 94.5) | `direction` not `none`, % (≤ 5.5) |"
        );
        println!("| ---: | --- | ---: | ---: | ---: | ---: | ---: |");
        let even = probes(STEPS, SEQUENCES, true);
        let uneven = probes(STEPS, SEQUENCES, false);
        let mut cells = Vec::new();
        for hits in [20.0, 100.0, 1_600.0, 20_000.0, 2_382_326.0] {
            cells.push(("429, equal", hits, even.clone(), 1));
            cells.push(("429, unequal", hits, uneven.clone(), 1));
        }
        cells.push((
            "429 of 32, rate 14 %",
            1_921.92,
            vec![32; STEPS as usize],
            1,
        ));
        cells.push(("429 of 32, rate 50 %", 6_864.0, vec![32; STEPS as usize], 1));
        cells.push(("every 100th of 2,400", 1_600.0, vec![102_400; 24], 100));
        cells.push(("every 100th of 6,000", 1_600.0, vec![102_400; 60], 100));
        for (name, hits, probes, every) in cells {
            let truth = Truth::new(&probes, every, hits, FLAT);
            let ([bins, quasi, clustered, exact, directed], _) = self.decisions(&truth, 0.0);
            println!(
                "| {} | {name} | {bins:.0} | {:.2} | {:.2} | {} | {} |",
                count(hits),
                100.0 * quasi,
                100.0 * clustered,
                bounded(exact, 94.5, 100.0),
                bounded(directed, 0.0, 5.5)
            );
        }
    }

    fn decisions(&self, truth: &Truth, slope: f64) -> ([f64; 5], u32) {
        let (sampler, ratio) = (truth.sampler(), truth.ratio());
        self.mean(|random| {
            let steps = sampler.draw(random);
            let found = self.find(&steps)?;
            let halves = Window::new(&steps).halves()?;
            let error = (found.slope - slope).abs();
            Some([
                found.n_bins,
                yes(error <= found.half_width_quasi),
                yes(error <= found.half_width_clustered),
                yes(halves.lo <= ratio && ratio <= halves.hi),
                yes(found.decision.direction != Direction::None),
            ])
        })
    }

    fn bunches(&self) {
        println!("\n## Hits in bunches, no trend\n");
        println!(
            "| hits | bunches | steps | bins | Poisson, % (fails) | quasi, % (≥ 94.5) | clustered, % (≥ 94.5) | `direction` not `none`, % (≤ 5.5) |"
        );
        println!("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: |");
        let all = probes(1430, SEQUENCES, true);
        let mut cells = Vec::new();
        for hits in [100.0, 1_600.0, 20_000.0] {
            cells.push(("4 in a step", hits, all.clone(), "1,430", 1));
        }
        for (name, over) in [
            ("4 over 3 steps, a third of a bin", 3),
            ("4 over 10 steps, a bin", 10),
        ] {
            cells.push((name, 1_600.0, all.clone(), "1,430", over));
        }
        cells.push(("4 in a step", 20_000.0, vec![102_400; 143], "143", 1));
        cells.push(("4 in a step", 20_000.0, vec![102_400; 24], "24", 1));
        for (name, hits, probes, steps, over) in cells {
            let truth = Truth::new(&probes, 1, hits, FLAT).in_bunches(4.0, over);
            let sampler = truth.sampler();
            let ([bins, plain, quasi, clustered, directed], _) = self.mean(|random| {
                let found = self.find(&sampler.draw(random))?;
                let error = found.slope.abs();
                Some([
                    found.n_bins,
                    yes(error <= Z * found.se),
                    yes(error <= found.half_width_quasi),
                    yes(error <= found.half_width_clustered),
                    yes(found.decision.direction != Direction::None),
                ])
            });
            println!(
                "| {} | {name} | {steps} | {bins:.0} | {:.2} | {} | {} | {} |",
                count(hits),
                100.0 * plain,
                bounded(quasi, 94.5, 100.0),
                bounded(clustered, 94.5, 100.0),
                bounded(directed, 0.0, 5.5)
            );
        }
    }

    fn equivalence(&self) {
        println!("\n## The same within a margin\n");
        println!(
            "| halves' ratio | margin | hits | hits come | `tost_p` < 0.05, % | `equivalence`, % | wanted |"
        );
        println!("| ---: | ---: | ---: | --- | ---: | ---: | --- |");
        let even = probes(STEPS, SEQUENCES, true);
        for margin in [1.05, 1.10] {
            for ratio in [margin, 1.0] {
                for hits in [1_600.0, 20_000.0, 200_000.0, 2_382_326.0] {
                    for size in [1.0, 4.0] {
                        if size > 1.0 && hits > 1e6 {
                            continue;
                        }
                        let mut truth = Truth::new(&even, 1, hits, Shape::Step(ratio));
                        if size > 1.0 {
                            truth = truth.in_bunches(size, 1);
                        }
                        let sampler = truth.sampler();
                        let ([plain, wide], _) = self.mean(|random| {
                            let steps = sampler.draw(random);
                            let window = Window::new(&steps);
                            let found = self.find(&steps)?;
                            let halves = window.halves()?;
                            let passes = |spread| {
                                yes(halves
                                    .equivalence_p_in_bunches(margin, spread)
                                    .is_some_and(|p| p < 0.05))
                            };
                            Some([passes(1.0), passes(found.decision.spread)])
                        });
                        let come = if size > 1.0 { "4 in a step" } else { "singly" };
                        let (shown, wanted) = if ratio > 1.0 {
                            (bounded(wide, 0.0, 5.5), "≤ 5.5")
                        } else {
                            (format!("{:.2}", 100.0 * wide), "much")
                        };
                        println!(
                            "| {ratio:.2} | {margin:.2} | {} | {come} | {:.2} | {shown} | {wanted} |",
                            count(hits),
                            100.0 * plain
                        );
                    }
                }
            }
        }
    }

    fn power(&self) {
        println!("\n## What a halves' ratio of 1.06 needs\n");
        println!("| hits | rate changes | `later_more`, % | interval of `rate_ratio` above 1, % |");
        println!("| ---: | --- | ---: | ---: |");
        let even = probes(STEPS, SEQUENCES, true);
        let linear = Shape::Slope(2.0 * 1.06_f64.ln());
        let mut cells = Vec::new();
        for hits in [6_000.0, 7_000.0, 7_500.0, 8_000.0, 9_000.0] {
            cells.push((hits, "linearly", linear, even.clone()));
        }
        for hits in [9_000.0, 10_000.0, 12_000.0, 13_000.0] {
            cells.push((hits, "at once", Shape::Step(1.06), even.clone()));
        }
        // 12B's rate among 1.5 million probes.
        let few = probes(STEPS, 1.5e6, true);
        cells.push((0.01627 * 1.5e6, "linearly", linear, few.clone()));
        cells.push((0.01627 * 1.5e6, "at once", Shape::Step(1.06), few));
        for (hits, name, shape, probes) in cells {
            let sampler = Truth::new(&probes, 1, hits, shape).sampler();
            let ([more, above], _) = self.mean(|random| {
                let steps = sampler.draw(random);
                let found = self.find(&steps)?;
                let halves = Window::new(&steps).halves()?;
                Some([
                    yes(found.decision.direction == Direction::LaterMore),
                    yes(halves.lo > 1.0),
                ])
            });
            println!(
                "| {} | {name} | {:.2} | {:.2} |",
                count(hits),
                100.0 * more,
                100.0 * above
            );
        }
    }

    fn detectable(&self) {
        println!("\n## The smallest detectable slope\n");
        println!(
            "`mde` on average where there is no trend, and how often `direction` finds a trend of that slope, 80 ± 2 % wanted.\n"
        );
        println!("| hits | steps, probes | `mde` | found, % |");
        println!("| ---: | --- | ---: | ---: |");
        let mut cells = Vec::new();
        for hits in [50.0, 100.0, 300.0, 1_600.0, 20_000.0, 2_382_326.0] {
            cells.push(("429, equal", hits, probes(STEPS, SEQUENCES, true), 1));
        }
        cells.push(("429, unequal", 1_600.0, probes(STEPS, SEQUENCES, false), 1));
        cells.push(("every 100th of 2,400", 1_600.0, vec![102_400; 24], 100));
        for (name, hits, probes, every) in cells {
            let flat = Truth::new(&probes, every, hits, FLAT).sampler();
            let ([mde], _) = self
                .mean(|random| Some([self.find(&flat.draw(random))?.decision.smallest_detectable]));
            let steep = Truth::new(&probes, every, hits, Shape::Slope(mde)).sampler();
            let ([found], _) = self.mean(|random| {
                Some([yes(
                    self.find(&steep.draw(random))?.decision.direction == Direction::LaterMore
                )])
            });
            println!(
                "| {} | {name} | {mde:.4} | {} |",
                count(hits),
                bounded(found, 78.0, 82.0)
            );
        }
    }

    fn excess(&self) {
        println!("\n## Fieller's interval of `excess_ratio`\n");
        println!("Rates in % of `n` probes each.\n");
        println!(
            "| n | baseline | earlier | later | covers, % (≥ 94.5) | bounded, % | covers where bounded, % |"
        );
        println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        for (n, baseline, earlier, later) in [
            (51_200_u32, 0.459, 0.518, 0.530),
            (512_000, 0.459, 0.518, 0.530),
            (9_600, 3.0, 9.0, 10.0),
            (1_000, 0.5, 5.0, 6.0),
            (1_000, 5.0, 50.0, 55.0),
            (73_216_000, 1.4, 1.55, 1.64),
        ] {
            let rates = [earlier, later, baseline].map(|percent: f64| percent / 100.0);
            let truth = (rates[1] - rates[2]) / (rates[0] - rates[2]);
            let hits = rates.map(|rate| Binomial::new(u64::from(n), rate));
            let ([covers, bounded_share, both], _) = self.mean(|random| {
                let [Ok(e), Ok(l), Ok(b)] = hits else {
                    return None;
                };
                let [e, l, b] = [e, l, b].map(|hits| (hits.sample(random), u64::from(n)));
                let found = excess_ratio(e, l, b)?;
                let inside = found
                    .interval
                    .is_none_or(|(lo, hi)| lo <= truth && truth <= hi);
                let bounded = found.interval.is_some();
                Some([yes(inside), yes(bounded), yes(inside && bounded)])
            });
            println!(
                "| {} | {baseline} | {earlier} | {later} | {} | {:.2} | {:.2} |",
                count(f64::from(n)),
                bounded(covers, 94.5, 100.0),
                100.0 * bounded_share,
                100.0 * both / bounded_share
            );
        }
    }
}

const Z: f64 = 1.959_963_984_540_054;

/// The 97.5 % quantile of t(K − 2).
fn t_quantile(k: u32) -> f64 {
    StudentsT::new(0.0, 1.0, f64::from(k) - 2.0).map_or(f64::NAN, |t| t.inverse_cdf(0.975))
}

fn yes(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// `n` probes on `k` steps: as many on each, or between 1 and 9 parts, and the last of a third.
fn probes(k: u32, n: f64, even: bool) -> Vec<u32> {
    let parts: Vec<f64> = (0..k)
        .map(|step| match (even, step + 1 == k) {
            (true, _) => 3.0,
            (false, true) => 1.0,
            (false, false) => f64::from(step * 12 / k * 5 % 9 + 1),
        })
        .collect();
    let sum: f64 = parts.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "less than the standard run"
    )]
    let number = |part: &f64| (part / sum * n).round() as u32;
    parts.iter().map(number).collect()
}

fn denominators(even: bool) -> &'static str {
    if even { "equal" } else { "unequal" }
}

/// A number with commas.
fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A share in %, in bold where it is out of bounds.
fn bounded(share: f64, lo: f64, hi: f64) -> String {
    let percent = 100.0 * share;
    if (lo..=hi).contains(&percent) {
        format!("{percent:.2}")
    } else {
        format!("**{percent:.2}**")
    }
}
