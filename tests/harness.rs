//! What the harnesses share: how a process ended, what a folder holds, numbers drawn from a seed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The signals that a harness may send and a process may die of.
pub(crate) const SIGKILL: i32 = 9;
pub(crate) const SIGTERM: i32 = 15;

/// How a process ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            signal: output.status.signal(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Whether it did all of its work.
    pub(crate) fn is_success(&self) -> bool {
        self.code == Some(0)
    }

    /// What is wrong with how it ended: a signal, a panic, an unknown code, an error without a
    /// word or with too many.
    pub(crate) fn fault(&self) -> Option<String> {
        let Some(code) = self.code else {
            return Some(format!("ended by signal {:?}", self.signal));
        };
        for text in ["panicked", "this program has a mistake", "internal error"] {
            if self.stderr.contains(text) {
                return Some(format!("`{text}` on stderr"));
            }
        }
        if ![0, 1, 2, 130].contains(&code) {
            return Some(format!("exit code {code}"));
        }
        let errors = self.errors();
        match (code, errors.as_slice()) {
            (0, []) => None,
            (0, _) => Some("exit code 0 beside an error".to_owned()),
            (_, [error]) if error.len() > "error: ".len() => None,
            (_, errors) => Some(format!("exit code {code} with {} errors", errors.len())),
        }
    }

    /// The lines that begin an error.
    fn errors(&self) -> Vec<&str> {
        let lines = self.stderr.lines();
        lines.filter(|line| line.starts_with("error: ")).collect()
    }

    /// The end of stderr, for a message.
    pub(crate) fn tail(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let first = lines.len().saturating_sub(6);
        format!(
            "code {:?}, signal {:?}\n{}",
            self.code,
            self.signal,
            lines[first..].join("\n")
        )
    }
}

/// What stands at a path. A link is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Folder,
    Link(PathBuf),
    File(Vec<u8>),
    Other,
}

/// Everything below a folder, by its path there.
pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// Reads everything below `folder`. A file that vanishes meanwhile is left out.
pub(crate) fn tree(folder: &Path) -> Tree {
    let mut found = Tree::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(&inside).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            let node = if kind.is_dir() {
                folders.push(path.clone());
                Node::Folder
            } else if kind.is_symlink() {
                Node::Link(fs::read_link(&path).unwrap_or_default())
            } else if kind.is_file() {
                match fs::read(&path) {
                    Ok(bytes) => Node::File(bytes),
                    Err(_) => continue,
                }
            } else {
                Node::Other
            };
            found.insert(path.strip_prefix(folder).unwrap().to_owned(), node);
        }
    }
    found
}

/// How `after` differs from `before`, a line a path, for the paths that `counts`.
pub(crate) fn changes(before: &Tree, after: &Tree, counts: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, node) in before {
        match after.get(path) {
            _ if !counts(path) => {}
            None => found.push(format!("{} is gone", path.display())),
            Some(now) if now != node => found.push(format!("{} has changed", path.display())),
            Some(_) => {}
        }
    }
    for path in after.keys() {
        if counts(path) && !before.contains_key(path) {
            found.push(format!("{} is new", path.display()));
        }
    }
    found
}

/// Whether some part of the path begins with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with('.'))
}

/// Copies a folder with everything in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Waits for the end of a process. One that has not ended by then is killed, and that is said.
pub(crate) fn end_within(child: &mut Child, limit: Duration) -> bool {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        sleep(Duration::from_micros(500));
    }
    true
}

/// Sends a signal such as `-STOP`. A process that has ended meanwhile gets none.
pub(crate) fn send(pid: u32, name: &str) -> bool {
    let pid = pid.to_string();
    let mut kill = Command::new("kill");
    let sent = kill.args([name, &pid]).output().unwrap();
    sent.status.success()
}

/// A number that an environment variable sets.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => default,
    }
}

/// Numbers drawn from a seed (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether something of this probability, in percent, happens.
    pub(crate) fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        let n = u64::try_from(from.len()).unwrap();
        &from[usize::try_from(self.below(n)).unwrap()]
    }
}
