//! Where and how precisely a model runs; the only place that knows of features.

use burn::tensor::{DType, Device};
use std::fmt;
use std::str::FromStr;

/// A device by its name in run files and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// `cpu`: burn's `flex` backend.
    Cpu,
    /// `cuda:N`: the N-th NVIDIA GPU that the driver shows, from 0.
    Cuda(u16),
}

/// The arithmetic of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Precision {
    /// IEEE binary32.
    F32,
    /// IEEE binary16; the output projection stays in binary32.
    F16,
    /// bfloat16; the output projection stays in binary32.
    Bf16,
}

/// Why a model cannot run on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A name that is none of ours.
    #[error("`{found}` is no device: `cpu`, or `cuda:0` and so on")]
    UnknownDevice {
        /// The name given.
        found: String,
    },
    /// A precision that is none of ours.
    #[error("`{found}` is no precision: `f32`, `f16` or `bf16`")]
    UnknownPrecision {
        /// The name given.
        found: String,
    },
    /// The program was built for other devices.
    #[error("this program was built without CUDA")]
    NotBuilt,
    /// The machine has no such device.
    #[error("there is no CUDA device {index}: the driver shows {found}")]
    Absent {
        /// The index asked for.
        index: u16,
        /// How many there are.
        found: usize,
    },
    /// The device does not compute so.
    #[error("{device} does not compute in {precision}")]
    Precision {
        /// The device.
        device: DeviceChoice,
        /// The precision asked for.
        precision: Precision,
    },
}

impl DeviceChoice {
    /// Finds out whether a model can run there, so that a run can be refused before it begins.
    ///
    /// # Errors
    ///
    /// When the program was built without this kind of device, the machine has none, or it does not know the
    /// precision. Another device is never taken instead.
    pub fn check(self, precision: Precision) -> Result<(), DeviceError> {
        self.open(precision).map(|_| ())
    }

    pub(crate) fn open(self, precision: Precision) -> Result<Device, DeviceError> {
        let device = match self {
            // In f16 and bf16 it converts to f32 and back around every operation: slow, but the same rounding.
            Self::Cpu => Device::flex(),
            Self::Cuda(index) => open_cuda(index)?,
        };
        if device.supports_dtype(precision.dtype()) {
            return Ok(device);
        }
        Err(DeviceError::Precision {
            device: self,
            precision,
        })
    }
}

#[cfg(feature = "cuda")]
fn open_cuda(index: u16) -> Result<Device, DeviceError> {
    let found = Device::enumerate(burn::tensor::DeviceType::Cuda)
        .into_vec()
        .len();
    if usize::from(index) < found {
        return Ok(Device::cuda(usize::from(index)));
    }
    Err(DeviceError::Absent { index, found })
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_index: u16) -> Result<Device, DeviceError> {
    Err(DeviceError::NotBuilt)
}

/// Has the C library's allocator keep the memory that tensors give back, instead of returning it to the system, which
/// clears every page anew for the next tensor. For programs to call at their start; does nothing but with glibc.
///
/// On 2 CPU cores and Pythia-70M's shape this takes 11 to 17 % off the time of each measure (`benches/peers.py`), and a tenth off
/// the memory, since all threads share one arena.
#[cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(
        unsafe_code,
        reason = "the allocator is set by a call to the C library"
    )
)]
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (parameter, value) in [
        // Logits are larger than what other arenas can hold, and would be mapped anew each time.
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_MAX, 0),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
        (libc::M_TOP_PAD, 64 << 20),
    ] {
        // SAFETY: mallopt takes any two integers, and refuses those that it does not know.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// The features of burn that this program was built with and that can change a number.
pub fn burn_features() -> Vec<&'static str> {
    let mut features = vec!["flex", "simd", "rayon"];
    if cfg!(feature = "cuda") {
        features.push("cuda");
    }
    features
}

impl Precision {
    pub(crate) fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }
}

impl DeviceError {
    /// The cure, where it is known.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::UnknownDevice { .. } | Self::UnknownPrecision { .. } => return None,
            Self::NotBuilt => "build it with `--features cuda`, or name `cpu` as device",
            Self::Absent { .. } => {
                "`nvidia-smi -L` lists the GPUs and fails where the driver is missing; name one of them, or `cpu`"
            }
            Self::Precision { .. } => "name `f32` as precision",
        };
        Some(hint.to_owned())
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        let index = text
            .strip_prefix("cuda:")
            .and_then(|index| index.parse().ok());
        index
            .map(Self::Cuda)
            .ok_or_else(|| DeviceError::UnknownDevice {
                found: text.to_owned(),
            })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Precision {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        [Self::F32, Self::F16, Self::Bf16]
            .into_iter()
            .find(|precision| precision.to_string() == text)
            .ok_or_else(|| DeviceError::UnknownPrecision {
                found: text.to_owned(),
            })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["cpu", "cuda:0", "cuda:7"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        for name in ["gpu", "cuda", "cuda:", "cuda:-1", "CPU"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
        assert!("f64".parse::<Precision>().is_err());
    }

    #[test]
    fn a_device_that_cannot_be_had_is_refused() {
        assert_eq!(DeviceChoice::Cpu.check(Precision::F32), Ok(()));
        // Neither a program without the feature nor a machine without so many GPUs may go on.
        let error = DeviceChoice::Cuda(999).check(Precision::F32).unwrap_err();
        assert!(error.hint().unwrap().contains("`cpu`"), "{error}");
        assert_eq!(DeviceChoice::Cpu.check(Precision::F16), Ok(()));
    }
}
