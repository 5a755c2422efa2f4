//! Where and how precisely a model runs; the only place that knows of features.

use crate::amx::Amx;
use crate::product::Product;
use burn::tensor::{DType, Device, Tensor};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;

/// The cure where burn's compiler for CUDA lacks the functions that NVIDIA gives with its toolkit.
const LIBDEVICE: &str = "install NVIDIA's CUDA toolkit, or of it only `pip install nvidia-cuda-nvcc-cu12`, and name the folder that has `nvvm/libdevice` in CUDA_PATH";

/// A device by its name in run files and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// `cpu`: burn's `flex` backend.
    Cpu,
    /// `cuda:N` or `vulkan:N`: the N-th device that the driver shows, from 0.
    Gpu(Driver, u16),
}

/// What a GPU is reached by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Driver {
    /// NVIDIA's, for its own GPUs.
    Cuda,
    /// GPUs of any maker, and software that stands in for one; kernels are WGSL. Without bf16, which WGSL does not have.
    Vulkan,
}

/// What a GPU is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gpu {
    /// Bytes that it holds; where the driver does not say, a gibibyte is assumed.
    pub(crate) memory: u64,
    /// Bytes of its largest tensor.
    pub(crate) largest: u64,
    pub(crate) product: Product,
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
    #[error("`{found}` is no device: `cpu`, or `cuda:0`, `vulkan:0` and so on")]
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
    #[error("this program was built without the feature `{driver}`")]
    NotBuilt {
        /// The driver asked for.
        driver: Driver,
    },
    /// The machine has no such device.
    #[error("there is no device `{driver}:{index}`: the driver shows {found}")]
    Absent {
        /// The driver asked for.
        driver: Driver,
        /// The index asked for.
        index: u16,
        /// How many there are.
        found: usize,
    },
    /// The device is there and fails.
    #[error("{device} fails to compute: {message}")]
    Unusable {
        /// The device.
        device: DeviceChoice,
        /// What it says.
        message: String,
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
    /// When the program was built without this kind of device, the machine has none, it does not know the
    /// precision, or it cannot compute. Another device is never taken instead.
    pub fn check(self, precision: Precision) -> Result<(), DeviceError> {
        let (device, gpu) = self.open(precision)?;
        if gpu.is_none() {
            return Ok(());
        }
        let exp_1 = || Tensor::<1>::from_floats([1.0], &device).exp();
        let message = match without_panic(|| exp_1().try_into_scalar::<f32>()) {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic,
        };
        Err(DeviceError::Unusable {
            device: self,
            message,
        })
    }

    pub(crate) fn open(self, precision: Precision) -> Result<(Device, Option<Gpu>), DeviceError> {
        let (device, gpu) = match self {
            // In f16 and bf16 it converts to f32 and back around every operation: slow, but the same rounding.
            Self::Cpu => (Device::flex(), None),
            Self::Gpu(driver, index) => {
                let (device, gpu) = open_gpu(driver, index)?;
                (device, Some(gpu))
            }
        };
        if device.supports_dtype(precision.dtype()) {
            return Ok((device, gpu));
        }
        Err(DeviceError::Precision {
            device: self,
            precision,
        })
    }
}

impl Driver {
    const ALL: [Self; 2] = [Self::Cuda, Self::Vulkan];

    fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
        }
    }

    /// The feature of burn behind it.
    fn burn_feature(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Vulkan => "webgpu",
        }
    }

    fn is_built(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
        }
    }
}

/// The devices that this program was built for and that the machine has, the CPU first.
pub fn present() -> Vec<DeviceChoice> {
    let gpus = Driver::ALL.into_iter().flat_map(|driver| {
        let indices = 0..u16::try_from(n_gpus(driver)).unwrap_or(u16::MAX);
        indices.map(move |index| DeviceChoice::Gpu(driver, index))
    });
    [DeviceChoice::Cpu].into_iter().chain(gpus).collect()
}

fn open_gpu(driver: Driver, index: u16) -> Result<(Device, Gpu), DeviceError> {
    if !driver.is_built() {
        return Err(DeviceError::NotBuilt { driver });
    }
    gpu(driver, index).ok_or_else(|| DeviceError::Absent {
        driver,
        index,
        found: n_gpus(driver),
    })
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn gpus(driver: Driver) -> Vec<burn::cubecl::Device> {
    use burn::cubecl::device::{CudaDevice, WgpuBackend, WgpuDevice, WgpuDeviceKind};
    let firsts = match driver {
        Driver::Cuda => vec![burn::cubecl::Device::Cuda(CudaDevice::new(0))],
        Driver::Vulkan => {
            let kinds = [
                WgpuDeviceKind::DiscreteGpu(0),
                WgpuDeviceKind::IntegratedGpu(0),
                WgpuDeviceKind::VirtualGpu(0),
                WgpuDeviceKind::Other(0),
                WgpuDeviceKind::Cpu,
            ];
            kinds
                .map(|kind| {
                    burn::cubecl::Device::Wgpu(WgpuDevice::new(kind).on(WgpuBackend::Vulkan))
                })
                .to_vec()
        }
    };
    let all = firsts
        .into_iter()
        .flat_map(|first| burn::cubecl::Device::enumerate(first.to_id()));
    all.map(burn::cubecl::Device::from_id).collect()
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn n_gpus(driver: Driver) -> usize {
    if driver.is_built() {
        gpus(driver).len()
    } else {
        0
    }
}

#[cfg(any(feature = "cuda", feature = "vulkan"))]
fn gpu(driver: Driver, index: u16) -> Option<(Device, Gpu)> {
    use burn::cubecl::ir::{ElemType, FloatKind};
    const UNKNOWN: u64 = 1 << 30;
    let gpu = gpus(driver).into_iter().nth(usize::from(index))?;
    let client = gpu.client();
    let properties = client.properties();
    let tf32 = ElemType::Float(FloatKind::TF32);
    let known = Gpu {
        memory: properties.memory.max_memory().unwrap_or(UNKNOWN),
        largest: properties.memory.max_page_size,
        // burn uses it wherever it is there.
        product: if properties.supports_type(tf32) {
            Product::Rounded
        } else {
            Product::Plain
        },
    };
    Some((Device::new(gpu), known))
}

#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn n_gpus(_driver: Driver) -> usize {
    0
}

#[cfg(not(any(feature = "cuda", feature = "vulkan")))]
fn gpu(_driver: Driver, _index: u16) -> Option<(Device, Gpu)> {
    None
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

/// What `work` gives, or the words of its panic: burn has no way to return some errors of a GPU, out of memory among these.
pub(crate) fn without_panic<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("it panicked").to_owned()
    })
}

/// Whether the CPU's products in f32 are put together from those of AMX, which may change a number's last digits.
pub fn has_amx() -> bool {
    Amx::get().is_some()
}

/// The features of burn that this program was built with and that can change a number.
pub fn burn_features() -> Vec<&'static str> {
    let mut features = vec!["flex", "simd", "rayon", "x86-v4"];
    let drivers = Driver::ALL.into_iter().filter(|driver| driver.is_built());
    features.extend(drivers.map(Driver::burn_feature));
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
            Self::NotBuilt { driver } => {
                format!("build it with `--features {driver}`, or name `cpu` as device")
            }
            Self::Absent { driver, .. } => {
                let lister = match driver {
                    Driver::Cuda => "nvidia-smi -L",
                    Driver::Vulkan => "vulkaninfo --summary",
                };
                format!(
                    "`{lister}` lists the devices and fails where the driver is missing; name one of them, or `cpu`"
                )
            }
            Self::Unusable { message, .. } if message.contains("libdevice") => LIBDEVICE.to_owned(),
            Self::Unusable { .. } | Self::UnknownDevice { .. } | Self::UnknownPrecision { .. } => {
                return None;
            }
            Self::Precision { .. } => "name `f32` as precision".to_owned(),
        };
        Some(hint)
    }
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        let found = text.split_once(':').and_then(|(name, index)| {
            let driver = Driver::ALL
                .into_iter()
                .find(|driver| driver.name() == name)?;
            Some(Self::Gpu(driver, index.parse().ok()?))
        });
        found.ok_or_else(|| DeviceError::UnknownDevice {
            found: text.to_owned(),
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(driver, index) => write!(f, "{driver}:{index}"),
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
        for name in ["cpu", "cuda:0", "cuda:7", "vulkan:1"] {
            assert_eq!(name.parse::<DeviceChoice>().unwrap().to_string(), name);
        }
        for name in ["gpu", "cuda", "cuda:", "cuda:-1", "metal:0", "CPU"] {
            assert!(name.parse::<DeviceChoice>().is_err(), "{name}");
        }
        assert!("f64".parse::<Precision>().is_err());
    }

    #[test]
    fn a_device_that_cannot_be_had_is_refused() {
        assert_eq!(DeviceChoice::Cpu.check(Precision::F32), Ok(()));
        // Neither a program without the feature nor a machine without so many GPUs may go on.
        for driver in Driver::ALL {
            let choice = DeviceChoice::Gpu(driver, 999);
            let error = choice.check(Precision::F32).unwrap_err();
            assert!(error.hint().unwrap().contains("`cpu`"), "{error}");
        }
        assert_eq!(DeviceChoice::Cpu.check(Precision::F16), Ok(()));
    }
}
