//! One verdict and what its numbers must say of one another, whichever program found it.

/// How far a log probability may be above 0, and a surprisal below, per token: sums of rounded
/// numbers.
const ROUNDING: f32 = 1e-5;
/// How far `logp_suffix` may be from −l × `surprisal`, as a share: programs of 16 bits round both.
const AGREEMENT: f32 = 0.02;

/// The numbers of one probe; nothing where a file does not say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) n_prefix_matched: Option<u16>,
    pub(crate) memorized: Option<bool>,
    pub(crate) margin: Option<f32>,
    pub(crate) near_tie: Option<bool>,
    pub(crate) n_matched: Option<u16>,
    pub(crate) surprisal: Option<f32>,
    pub(crate) logp_suffix: Option<f32>,
    pub(crate) n_top1: Option<u16>,
}

/// What is wrong with a verdict, and the cure.
type Contradiction = (String, &'static str);

impl Verdict {
    /// Finds out whether the numbers fit continuations of `l` tokens and one another.
    ///
    /// # Errors
    ///
    /// The first contradiction.
    pub(crate) fn check(&self, l: u16) -> Result<(), Contradiction> {
        self.check_counts(l)?;
        self.check_memorized(l)?;
        self.check_matched(l)?;
        self.check_measures(l)
    }

    fn check_counts(&self, l: u16) -> Result<(), Contradiction> {
        const CURE: &str =
            "judge the probes that `pipeline plan FILE --export-tokens` writes for this run file";
        let counts = [
            ("n_prefix_matched", self.n_prefix_matched),
            ("n_matched", self.n_matched),
            ("n_top1", self.n_top1),
        ];
        for (name, count) in counts {
            if let Some(count) = count.filter(|count| *count > l) {
                let problem = format!("`{name}` is {count} where continuations have {l} tokens");
                return Err((problem, CURE));
            }
        }
        Ok(())
    }

    fn check_matched(&self, l: u16) -> Result<(), Contradiction> {
        let (Some(prefix), Some(all)) = (self.n_prefix_matched, self.n_matched) else {
            return Ok(());
        };
        if all < prefix || (all == l && prefix < l) {
            let problem = format!(
                "`n_matched` is {all} and `n_prefix_matched` {prefix} of {l} tokens: the first counts all right tokens, the second those before the first miss"
            );
            return Err((problem, "write both from the same continuation"));
        }
        Ok(())
    }

    fn check_memorized(&self, l: u16) -> Result<(), Contradiction> {
        if let (Some(memorized), Some(matched)) = (self.memorized, self.n_prefix_matched)
            && memorized != (matched == l)
        {
            let problem = format!(
                "`memorized` is {memorized}, but `n_prefix_matched` is {matched} of {l} tokens"
            );
            let cure = "`memorized` means that all continuation tokens are right: correct the column, or leave it out";
            return Err((problem, cure));
        }
        let memorized = self
            .memorized
            .or(self.n_prefix_matched.map(|matched| matched == l));
        if let (Some(memorized), Some(margin)) = (memorized, self.margin)
            && (if memorized {
                margin < 0.0
            } else {
                margin > 0.0
            })
        {
            let found = if memorized {
                "no token is missed"
            } else {
                "a token is missed"
            };
            let cure = "`margin` is negative exactly where a token is missed: correct the column, or leave it out";
            return Err((format!("`margin` is {margin}, but {found}"), cure));
        }
        Ok(())
    }

    fn check_measures(&self, l: u16) -> Result<(), Contradiction> {
        const NULL: &str = "write null where there is none";
        let measures = [
            ("margin", self.margin),
            ("surprisal", self.surprisal),
            ("logp_suffix", self.logp_suffix),
        ];
        for (name, value) in measures {
            if let Some(value) = value.filter(|value| !value.is_finite()) {
                return Err((format!("`{name}` is {value}"), NULL));
            }
        }
        if let Some(surprisal) = self.surprisal.filter(|surprisal| *surprisal < -ROUNDING) {
            let problem = format!("`surprisal` is {surprisal}, a mean of −ln p below 0");
            return Err((
                problem,
                "write the mean of −ln p over the continuation tokens, in nats",
            ));
        }
        let l = f32::from(l);
        if let Some(logp) = self.logp_suffix.filter(|logp| *logp > ROUNDING * l) {
            let problem =
                format!("`logp_suffix` is {logp}, the logarithm of a probability above 1");
            return Err((problem, "write ln p of the whole continuation"));
        }
        if let (Some(surprisal), Some(logp)) = (self.surprisal, self.logp_suffix) {
            let sum = -l * surprisal;
            if (sum - logp).abs() > AGREEMENT * sum.abs().max(logp.abs()) + ROUNDING * l {
                let problem = format!(
                    "`surprisal` is {surprisal} and `logp_suffix` {logp}, which is not −l × `surprisal` = {sum}"
                );
                return Err((problem, "write both from the same logits, in nats"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All 4 tokens are right.
    const WHOLE: Verdict = Verdict {
        n_prefix_matched: Some(4),
        memorized: Some(true),
        margin: Some(0.0),
        near_tie: Some(true),
        n_matched: Some(4),
        surprisal: Some(0.5),
        logp_suffix: Some(-2.0),
        n_top1: Some(4),
    };

    #[test]
    fn numbers_that_agree_are_taken() {
        let missed = Verdict {
            n_prefix_matched: Some(1),
            memorized: Some(false),
            n_matched: Some(3),
            ..WHOLE
        };
        // As programs of 16 bits round.
        let rounded = Verdict {
            surprisal: Some(0.5),
            logp_suffix: Some(-2.03),
            ..WHOLE
        };
        let certain = Verdict {
            surprisal: Some(-1e-7),
            logp_suffix: Some(1e-7),
            ..WHOLE
        };
        let only_surprisal = Verdict {
            surprisal: Some(3.0),
            ..Verdict::default()
        };
        for verdict in [WHOLE, missed, rounded, certain, only_surprisal] {
            assert_eq!(verdict.check(4), Ok(()), "{verdict:?}");
        }
    }

    #[test]
    fn numbers_that_contradict_one_another_are_not() {
        let with = |change: fn(&mut Verdict)| {
            let mut verdict = WHOLE;
            change(&mut verdict);
            verdict.check(4).unwrap_err().0
        };
        assert!(with(|v| v.n_top1 = Some(5)).contains("`n_top1` is 5"));
        assert!(with(|v| v.memorized = Some(false)).contains("`memorized` is false"));
        assert!(with(|v| v.n_matched = Some(3)).contains("`n_matched` is 3"));
        assert!(with(|v| v.margin = Some(-0.1)).contains("`margin` is -0.1"));
        assert!(with(|v| v.margin = Some(f32::NAN)).contains("`margin` is NaN"));
        assert!(with(|v| v.surprisal = Some(0.6)).contains("is not −l × `surprisal`"));
        let all_but_prefix = |v: &mut Verdict| {
            v.n_prefix_matched = Some(3);
            v.memorized = Some(false);
        };
        assert!(with(all_but_prefix).contains("`n_matched` is 4"));
    }
}
