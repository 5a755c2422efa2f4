//! Files that are whole, and wait hidden until they take their places together.

use crate::mark::Mark;
use crate::process;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// How the name of a file or folder begins that is not in its place yet. The writer's id follows, so that
/// nobody else removes it while the writer may live.
pub(crate) const PARTIAL: &str = ".partial-";

/// A file on the disk, under a hidden name beside its place.
pub(crate) struct Staged {
    partial: NamedTempFile<File>,
    place: PathBuf,
    mark: Mark,
}

/// The files of a dataset on the disk, in a hidden folder beside the dataset's.
pub(crate) struct StagedDataset {
    folder: TempDir,
    place: PathBuf,
    mark: Mark,
    /// Below the folder.
    files: Vec<PathBuf>,
}

/// What a command has made and not yet shown.
///
/// A file whose place is empty takes it at once. One that replaces another waits until the command has
/// made everything: a command that fails leaves the tables as it found them.
#[derive(Default)]
pub(crate) struct Pending {
    files: Vec<Staged>,
    dataset: Option<StagedDataset>,
    /// Files of ours that go when the new ones are there, and the last folder that may go with each.
    stale: Vec<(PathBuf, Mark, PathBuf)>,
}

/// Lets `write` fill a file under a hidden name beside `place`.
///
/// # Errors
///
/// Those of `write`, when another's file lies at `place`, and when its folder cannot be written; no file is
/// left then.
pub(crate) fn stage<T>(
    place: &Path,
    mark: Mark,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<T>,
) -> Result<(T, Staged)> {
    let filled = || -> Result<(T, Staged)> {
        mark.check(place)?;
        let mut partial = partial(place)?;
        let mut file = BufWriter::new(partial.as_file_mut());
        let value = write(&mut file)?;
        file.flush()?;
        drop(file);
        partial.as_file().sync_all()?;
        Ok((value, Staged::new(partial, place.to_owned(), mark)))
    };
    filled().with_context(|| format!("writing `{}`", place.display()))
}

/// The same for a file that takes its place at once.
///
/// # Errors
///
/// Those of [`stage`].
pub(crate) fn write_atomically<T>(
    place: &Path,
    mark: Mark,
    write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<T>,
) -> Result<T> {
    let (value, staged) = stage(place, mark, write)?;
    staged.land()?;
    Ok(value)
}

/// A file beside `path`: hidden, so that no reader of the folder takes it for a table; readable like any
/// other file.
pub(super) fn partial(path: &Path) -> Result<NamedTempFile<File>> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(tempfile::Builder::new()
        .prefix(&prefix())
        .make_in(folder, |path| File::create_new(path))?)
}

/// How the names of this process's hidden files begin.
pub(crate) fn prefix() -> String {
    format!("{PARTIAL}{}-", *process::ID)
}

impl Staged {
    pub(super) fn new(partial: NamedTempFile<File>, place: PathBuf, mark: Mark) -> Self {
        Self {
            partial,
            place,
            mark,
        }
    }

    /// Where the file is until it takes its place.
    pub(crate) fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Takes its place, in one step.
    ///
    /// # Errors
    ///
    /// When another's file lies there, or the folder cannot be written.
    pub(crate) fn land(self) -> Result<()> {
        let Self {
            partial,
            place,
            mark,
        } = self;
        let land = || -> Result<()> {
            mark.check(&place)?;
            if mark == Mark::Nothing {
                partial
                    .persist_noclobber(&place)
                    .map_err(|error| error.error)?;
            } else {
                partial.persist(&place).map_err(|error| error.error)?;
            }
            Ok(())
        };
        land().with_context(|| format!("writing `{}`", place.display()))
    }
}

impl StagedDataset {
    /// Begins a dataset that will lie in the folder `place`.
    ///
    /// # Errors
    ///
    /// When its folder cannot be written.
    pub(crate) fn begin(place: &Path, mark: Mark) -> Result<Self> {
        let parent = place.parent().unwrap_or(Path::new("."));
        let folder = tempfile::Builder::new()
            .prefix(&prefix())
            .tempdir_in(parent);
        Ok(Self {
            folder: folder.with_context(|| format!("writing `{}`", place.display()))?,
            place: place.to_owned(),
            mark,
            files: Vec::new(),
        })
    }

    /// Where the file `inside` of the dataset is to be written.
    pub(crate) fn path_of(&self, inside: &Path) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Where the dataset is until it takes its place.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes in a file that lies where [`Self::path_of`] says.
    pub(crate) fn add(&mut self, inside: PathBuf) {
        self.files.push(inside);
    }
}

/// One step of a command's end: what happens at one place.
enum Step {
    /// A file takes the place.
    Persist(NamedTempFile<File>),
    /// The same, from the folder of a dataset.
    Rename(PathBuf),
    /// What lies there goes, with the empty folders around it up to this one.
    Remove(PathBuf),
}

/// All steps of a command's end: either all of them are done, or none.
#[derive(Default)]
struct Landing {
    steps: Vec<(PathBuf, Step)>,
    /// Of the steps that were taken.
    places: Vec<PathBuf>,
    /// By step: a second name of what lay there before; nothing where nothing did.
    before: Vec<Option<PathBuf>>,
}

impl Landing {
    fn add(&mut self, place: PathBuf, mark: Mark, step: Step) -> Result<()> {
        match step {
            Step::Remove(_) if mark.is_on(&place)? != Some(true) => return Ok(()),
            Step::Remove(_) => {}
            Step::Persist(_) | Step::Rename(_) => mark.check(&place)?,
        }
        self.steps.push((place, step));
        Ok(())
    }

    /// Asks `still` before each step whether it may.
    fn land(mut self, still: &dyn Fn() -> Result<()>) -> Result<()> {
        // What lay there gets its second name before the first file moves: where there is no room for that, nothing
        // has happened.
        let landed = self.keep().and_then(|()| self.take(still));
        match landed {
            Ok(()) => {
                self.forget();
                Ok(())
            }
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }

    fn keep(&mut self) -> Result<()> {
        for (number, (place, _)) in self.steps.iter().enumerate() {
            let hidden = format!("{}before-{number}", prefix());
            let hidden = place.with_file_name(hidden);
            let kept = match fs::hard_link(place, &hidden) {
                Ok(()) => Some(hidden),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                // Not every file system has links.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Unsupported | ErrorKind::PermissionDenied
                    ) =>
                {
                    fs::copy(place, &hidden)
                        .with_context(|| format!("writing `{}`", hidden.display()))?;
                    Some(hidden)
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("writing `{}`", hidden.display()));
                }
            };
            self.before.push(kept);
        }
        Ok(())
    }

    fn take(&mut self, still: &dyn Fn() -> Result<()>) -> Result<()> {
        for (place, step) in self.steps.drain(..) {
            still()?;
            let taken = match step {
                Step::Persist(file) => file.persist(&place).map(drop).map_err(|error| error.error),
                Step::Rename(from) => fs::create_dir_all(place.parent().unwrap_or(&place))
                    .and_then(|()| fs::rename(from, &place)),
                Step::Remove(last) => remove_with_empty_folders(&place, &last),
            };
            self.places.push(place);
            taken.with_context(|| {
                format!("writing `{}`", self.places[self.places.len() - 1].display())
            })?;
        }
        Ok(())
    }

    /// Everything is in its place: what lay there before goes.
    fn forget(self) {
        for hidden in self.before.into_iter().flatten() {
            let _ = fs::remove_file(&hidden);
            // Nothing else may be left of a dataset's folder.
            let _ = hidden.parent().map(fs::remove_dir);
        }
    }

    /// Puts everything back.
    fn undo(self) {
        let mut before = self.before;
        before.resize(self.places.len().max(before.len()), None);
        let places = self
            .places
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat(None));
        for (place, hidden) in places.zip(before) {
            let (undone, path) = match (place, hidden) {
                (Some(place), Some(hidden)) => (put_back(&hidden, &place), place),
                (Some(place), None) => (fs::remove_file(&place), place),
                // Not its turn yet: what lay there lies there.
                (None, Some(hidden)) => (fs::remove_file(&hidden), hidden),
                (None, None) => continue,
            };
            if let Err(error) = undone
                && error.kind() != ErrorKind::NotFound
            {
                let path = path.display();
                tracing::warn!("`{path}` cannot be put back as it was before: {error}");
                process::leave_files();
            }
        }
    }
}

/// Lets a file have the name again that it had before.
fn put_back(hidden: &Path, place: &Path) -> io::Result<()> {
    fs::create_dir_all(place.parent().unwrap_or(place))?;
    fs::rename(hidden, place)?;
    // Where both are names of one file still, that has done nothing (rename(2)).
    match fs::remove_file(hidden) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Every parquet file in the hive folders of a dataset, below its folder.
pub(crate) fn parts(dataset: &Path) -> Vec<PathBuf> {
    let named = |folder: &Path, key: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(key))
            .map(PathBuf::from)
            .collect()
    };
    let mut found = Vec::new();
    for model in named(dataset, "model=") {
        for checkpoint in named(&dataset.join(&model), "checkpoint=") {
            let inside = model.join(checkpoint);
            let files = named(&dataset.join(&inside), "part-").into_iter();
            let files =
                files.filter(|name| name.extension().is_some_and(|ending| ending == "parquet"));
            found.extend(files.map(|name| inside.join(name)));
        }
    }
    found.sort();
    found
}

/// Removes a file, and the folders around it as far as nothing else is in them, up to and with `last`.
pub(crate) fn remove_with_empty_folders(path: &Path, last: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let above = path.ancestors().skip(1);
    for folder in above.take_while(|folder| folder.starts_with(last)) {
        // Where something is left in it, it stays.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

impl Pending {
    /// Takes in a file that is whole.
    ///
    /// # Errors
    ///
    /// When its place is empty, and it cannot take it.
    pub(crate) fn add(&mut self, file: Staged) -> Result<()> {
        if fs::symlink_metadata(&file.place).is_err() {
            return file.land();
        }
        self.files.push(file);
        Ok(())
    }

    /// Takes in a file that waits, though nothing lies at its place: other files go when it takes it.
    pub(crate) fn add_waiting(&mut self, file: Staged) {
        self.files.push(file);
    }

    /// Takes in a dataset that is whole.
    pub(crate) fn add_dataset(&mut self, dataset: StagedDataset) {
        self.dataset = Some(dataset);
    }

    /// Notes a file that goes, where it is ours, when the new ones are in their places; empty folders around it
    /// go, too, up to and with `last`.
    pub(crate) fn replace(&mut self, path: PathBuf, mark: Mark, last: PathBuf) {
        self.stale.push((path, mark, last));
    }

    /// Where a file is read that may be waiting for its place.
    pub(crate) fn path_of(&self, place: &Path) -> PathBuf {
        let waiting = self.files.iter().find(|file| file.place == place);
        let dataset = self
            .dataset
            .as_ref()
            .filter(|dataset| dataset.place == place);
        let hidden = waiting
            .map(Staged::path)
            .or(dataset.map(StagedDataset::path));
        hidden.unwrap_or(place).to_owned()
    }

    /// Lets the file for `place` take it before the others.
    ///
    /// # Errors
    ///
    /// When it cannot.
    pub(crate) fn land_one(&mut self, place: &Path) -> Result<()> {
        match self.files.iter().position(|file| file.place == place) {
            Some(number) => self.files.remove(number).land(),
            None => Ok(()),
        }
    }

    /// Lets everything take its place; asks `still` before each step whether it may. Where one file cannot, all
    /// places are as they were.
    ///
    /// # Errors
    ///
    /// Those of `still`, and when a file cannot take its place.
    pub(crate) fn land(self, still: &dyn Fn() -> Result<()>) -> Result<()> {
        let mut landing = Landing::default();
        if let Some(dataset) = &self.dataset {
            let StagedDataset {
                folder,
                place,
                mark,
                files,
            } = dataset;
            for inside in files {
                let from = folder.path().join(inside);
                landing.add(place.join(inside), *mark, Step::Rename(from))?;
            }
            // Those of an earlier dataset that this one does not have.
            let kept: BTreeSet<&PathBuf> = files.iter().collect();
            let there = parts(place).into_iter();
            for inside in there.filter(|inside| !kept.contains(inside)) {
                landing.add(place.join(inside), *mark, Step::Remove(place.clone()))?;
            }
        }
        for file in self.files {
            landing.add(file.place, file.mark, Step::Persist(file.partial))?;
        }
        for (path, mark, last) in self.stale {
            landing.add(path, mark, Step::Remove(last))?;
        }
        landing.land(still)
    }
}
