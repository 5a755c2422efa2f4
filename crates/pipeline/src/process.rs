//! This process and others, as the kernel knows them.

use std::fs;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A name that no other process has, on this machine or another.
pub(crate) static ID: LazyLock<String> = LazyLock::new(|| {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_nanos();
    format!("{}-{}-{now:x}", host(), std::process::id())
});

static LEAVES: AtomicBool = AtomicBool::new(false);

/// Says that hidden files of this process stay in the output folder, which it could not remove.
pub(crate) fn leave_files() {
    LEAVES.store(true, Ordering::Relaxed);
}

pub(crate) fn leaves_files() -> bool {
    LEAVES.load(Ordering::Relaxed)
}

/// The machine's name, as far as it fits a file's name.
pub(crate) fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok());
    let name = name.unwrap_or_default();
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.trim().chars().filter(fits).take(64).collect();
    if name.is_empty() {
        "host".to_owned()
    } else {
        name
    }
}

/// Where the kernel can be asked: the machine's boot and this process's space of process ids
/// (proc(5), namespaces(7)).
pub(crate) fn machine() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), space.display()))
}

/// When the process of this id was started, in the kernel's ticks; nothing where there is none
/// (proc(5), `stat`, field 22).
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, is in brackets and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    // A zombie works on nothing.
    (!matches!(state, "Z" | "X")).then(|| fields.nth(18)?.parse().ok())?
}
