//! A share of a run's units, for one of several machines.

use std::env;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// One of `of` shares, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    number: u64,
    of: u64,
}

impl Shard {
    /// Its share of `n` units that lie in a row: shares differ by one unit at most, and together they are all.
    pub(crate) fn share(self, n: u64) -> Range<u64> {
        let first = |number: u64| {
            let first = u128::from(n) * u128::from(number) / u128::from(self.of);
            // At most n, as number ≤ of.
            u64::try_from(first).unwrap_or(n)
        };
        first(self.number)..first(self.number + 1)
    }

    /// That of a task of a Slurm job array, as Slurm tells it.
    fn of_slurm_task() -> Result<Self, String> {
        let variable = |name: &str| -> Result<u64, String> {
            let value = env::var(name)
                .map_err(|_| format!("{name} is not set: this is no task of a job array"))?;
            value
                .parse()
                .map_err(|_| format!("{name} is `{value}`, which is no number"))
        };
        let first = variable("SLURM_ARRAY_TASK_MIN")?;
        let last = variable("SLURM_ARRAY_TASK_MAX")?;
        let id = variable("SLURM_ARRAY_TASK_ID")?;
        let of = variable("SLURM_ARRAY_TASK_COUNT")?;
        if last
            .checked_sub(first)
            .and_then(|width| width.checked_add(1))
            != Some(of)
            || !(first..=last).contains(&id)
        {
            return Err(format!(
                "the job array has {of} tasks from {first} to {last}: with gaps there is no telling the shares, name them as `i/n`"
            ));
        }
        Ok(Self {
            number: id - first,
            of,
        })
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "slurm" {
            return Self::of_slurm_task();
        }
        let parts = text.split_once('/');
        let parts = parts.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if number < of => Ok(Self { number, of }),
            _ => Err("a share as `i/n` with 0 ≤ i < n, such as `0/4`, or `slurm`".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_all_units_once() {
        for (n, of) in [(0, 1), (1, 1), (7, 3), (3, 7), (100, 7), (u64::MAX, 3)] {
            let shares = (0..of).map(|number| Shard { number, of }.share(n));
            let end = shares.fold(0, |end, share| {
                assert_eq!(share.start, end);
                share.end
            });
            assert_eq!(end, n);
        }
    }

    #[test]
    fn a_shard_is_read_as_it_is_written() {
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
        for text in ["3/3", "1", "a/b", "-1/2", "0/0", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
