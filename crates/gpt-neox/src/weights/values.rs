//! What no whole checkpoint holds: numbers that are not finite, and long runs of zeros.

use super::LoadError;
use std::path::Path;

/// Zeros in a row that a matrix may always have.
const FEW_ZEROS: usize = 4096;
/// Of a matrix, the share that may be one run of zeros: rows of tokens that no text has take less.
const SHARE: usize = 8;

/// Refuses weights that cannot be those of a trained model, nor of one before its first step.
pub(super) fn check(
    path: &Path,
    tensor: &str,
    shape: &[usize],
    weights: &[f32],
) -> Result<(), LoadError> {
    if let Some(place) = weights.iter().position(|weight| !weight.is_finite()) {
        return Err(LoadError::NotFinite {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            place,
            found: weights[place],
        });
    }
    // A bias may be zero throughout. A weight may not: files are made at their full length before
    // they are filled, and what is missing of one reads as zeros.
    if !tensor.ends_with(".weight") {
        return Ok(());
    }
    let longest = if shape.len() == 2 {
        (weights.len() / SHARE).max(FEW_ZEROS).min(weights.len())
    } else {
        weights.len()
    };
    match run_of_zeros(weights, longest) {
        None => Ok(()),
        Some((place, found)) => Err(LoadError::Zeros {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            place,
            found,
            n_weights: weights.len(),
        }),
    }
}

/// Where a run of at least `length` zeros begins, and how long it is.
fn run_of_zeros(weights: &[f32], length: usize) -> Option<(usize, usize)> {
    let length = length.max(1);
    let is_zero = |weight: &&f32| **weight == 0.0;
    // Such a run has a number at one of these places.
    for place in (0..weights.len()).step_by(length) {
        let before = weights[..place].iter().rev().take_while(is_zero).count();
        let after = weights[place..].iter().take_while(is_zero).count();
        if after > 0 && before + after >= length {
            return Some((place - before, before + after));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(tensor: &str, shape: &[usize], zeros: std::ops::Range<usize>) -> bool {
        let mut weights = vec![0.5; shape.iter().product()];
        weights[zeros].fill(0.0);
        match check(Path::new("w"), tensor, shape, &weights) {
            Ok(()) => false,
            Err(LoadError::Zeros { .. }) => true,
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn long_runs_of_zeros_are_refused() {
        // 65,536 numbers, of which an eighth is 8,192.
        let matrix = [512, 128];
        for zeros in [0..8192, 1..8193, 57_344..65_536, 30_000..38_192, 0..65_536] {
            assert!(refused("a.weight", &matrix, zeros.clone()), "{zeros:?}");
        }
        for zeros in [0..8191, 57_345..65_536, 8191..16_382] {
            assert!(!refused("a.weight", &matrix, zeros.clone()), "{zeros:?}");
        }
        // A small matrix may have many zeros, yet not only zeros.
        assert!(!refused("a.weight", &[32, 32], 0..1023));
        assert!(refused("a.weight", &[32, 32], 0..1024));
        assert!(refused("norm.weight", &[32], 0..32));
        assert!(!refused("norm.weight", &[32], 0..31));
        assert!(!refused("norm.bias", &[32], 0..32));
    }

    #[test]
    fn one_number_that_is_not_finite_is_named() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = [1.0; 100];
            weights[42] = odd;
            let error = check(Path::new("w"), "a.bias", &[100], &weights).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains("weight 42 of the tensor `a.bias`")
            );
        }
    }
}
