//! Temporary files that are being written, so that an interrupt can remove them, and those that a kill left behind.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How names of files that are not complete end.
pub(super) const SUFFIX: &str = ".partial";

/// Paths of temporary files.
struct Paths(Mutex<Vec<PathBuf>>);

/// Those of this process.
static LIVE: Paths = Paths(Mutex::new(Vec::new()));

impl Paths {
    fn lock(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&'static self, path: &Path) -> Partial {
        self.lock().push(path.to_path_buf());
        Partial { paths: self, path: path.to_path_buf() }
    }

    fn remove_all(&self) {
        // A file that is complete has another name, so nothing is removed that is wanted.
        self.lock().drain(..).for_each(|path| drop(std::fs::remove_file(path)));
    }
}

/// A temporary file, known until this is dropped.
pub(super) struct Partial {
    paths: &'static Paths,
    path: PathBuf,
}

impl Partial {
    /// Makes a file known.
    pub fn new(path: &Path) -> Self {
        LIVE.add(path)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.paths.lock().retain(|path| *path != self.path);
    }
}

/// Removes the temporary files that this process is writing; for a process that is about to end.
pub fn abandon_files() {
    LIVE.remove_all();
}

/// Removes from `directory` what writers that were killed left behind; none may be at work there. What cannot be removed stays.
pub fn remove_partial(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with('.') && name.ends_with(SUFFIX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::AtomicFile;
    use super::*;

    #[test]
    fn only_files_that_are_known_are_removed() {
        static PATHS: Paths = Paths(Mutex::new(Vec::new()));
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["a", "b"] {
            std::fs::write(at(name), "").unwrap();
        }
        let done = PATHS.add(&at("a"));
        let _writing = PATHS.add(&at("b"));
        drop(done);
        PATHS.remove_all();
        assert!(at("a").exists() && !at("b").exists());
    }

    #[test]
    fn what_a_kill_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let left = AtomicFile::create(&directory.path().join("a.bin")).unwrap();
        std::mem::forget(left);
        for name in ["a.partial", ".hidden"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let entries = || std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(entries(), 3);
        remove_partial(directory.path());
        assert_eq!(entries(), 2, "only what a writer leaves");
    }
}
