//! The devices that tests run on: those of this build that the machine has.

use gpt_neox::{DeviceChoice, device};
use std::io::Write;
use std::sync::OnceLock;

/// The CPU, and what drivers show; says on stderr which kinds of devices are not there.
pub(crate) fn devices() -> &'static [DeviceChoice] {
    static DEVICES: OnceLock<Vec<DeviceChoice>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let devices = device::present();
        let names: Vec<String> = devices.iter().map(DeviceChoice::to_string).collect();
        // Past the harness, which keeps what passing tests print to itself.
        let mut stderr = std::io::stderr();
        writeln!(stderr, "devices: {}", names.join(", ")).unwrap();
        for (feature, is_built) in [
            ("cuda", cfg!(feature = "cuda")),
            ("vulkan", cfg!(feature = "vulkan")),
        ] {
            if is_built && !names.iter().any(|name| name.starts_with(feature)) {
                writeln!(
                    stderr,
                    "no {feature} device is present: nothing is run there"
                )
                .unwrap();
            }
        }
        devices
    })
}
