//! The directory of a run, which one process at a time holds.

use super::{BEST, CHECKPOINT, LOG};
use crate::disk::{is_directory, make_directory, remove_partial};
use crate::error::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Where a run keeps its files. A directory that is there already is held from the start, so that no other run changes the
/// checkpoint that is continued; a new one is made only once the run can begin.
pub struct RunDirectory {
    path: PathBuf,
    lock: Option<File>,
}

impl RunDirectory {
    /// Holds `path` if it is there.
    ///
    /// # Errors
    /// Something other than a directory; a directory in which another process trains.
    pub fn open(path: &Path) -> Result<Self> {
        let mut directory = RunDirectory { path: path.to_path_buf(), lock: None };
        if is_directory(path)? {
            directory.hold()?;
        }
        Ok(directory)
    }

    /// The checkpoint that a run is continued from.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT)
    }

    /// Refuses a directory that holds a run.
    ///
    /// # Errors
    /// It does.
    pub fn refuse_run(&self) -> Result<()> {
        let message = "already holds a run; continue it with --resume, or choose another --out";
        if self.checkpoint().exists() { Err(Error::file(&self.path, message)) } else { Ok(()) }
    }

    /// Makes and holds the directory if it was not there.
    ///
    /// # Errors
    /// What the system refuses; another run that was faster.
    pub fn make(&mut self) -> Result<()> {
        if self.lock.is_none() {
            make_directory(&self.path)?;
            self.hold()?;
            self.refuse_run()?;
        }
        Ok(())
    }

    /// Locks the directory itself, so that a kill leaves no lock behind. File systems without locks are held by nobody, and so are
    /// directories of systems that cannot open one as a file.
    fn hold(&mut self) -> Result<()> {
        if cfg!(unix) {
            let handle = File::open(&self.path).map_err(|e| Error::io(&self.path, "open", e))?;
            if let Err(std::fs::TryLockError::WouldBlock) = handle.try_lock() {
                return Err(Error::file(
                    &self.path,
                    "another process trains here; wait for it, or choose another --out",
                ));
            }
            self.lock = Some(handle);
        }
        if self.path.join(LOG).exists() {
            remove_partial(&self.path);
            remove_partial(&self.path.join(BEST));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("run");
        let (mut first, mut second) = (RunDirectory::open(&path).unwrap(), RunDirectory::open(&path).unwrap());
        assert!(!path.exists(), "made only when the run can begin");
        first.make().unwrap();
        first.make().unwrap();
        for refused in [second.make().err(), RunDirectory::open(&path).err()] {
            assert!(refused.unwrap().to_string().contains("another process trains here"));
        }
        std::fs::write(first.checkpoint(), "").unwrap();
        drop(first);
        assert!(second.make().unwrap_err().to_string().contains("already holds a run"));
        drop(second);
        assert!(RunDirectory::open(&path).unwrap().refuse_run().is_err());
    }

    #[test]
    fn what_a_killed_run_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join(".checkpoint.safetensors.abc.partial");
        std::fs::write(&left, "half").unwrap();
        drop(RunDirectory::open(directory.path()).unwrap());
        assert!(left.exists(), "not a run's directory");
        std::fs::write(directory.path().join(LOG), "").unwrap();
        RunDirectory::open(directory.path()).unwrap();
        assert!(!left.exists());
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = RunDirectory::open(file.path()).err().unwrap().to_string();
        assert!(refused.contains("is a file; give the name of a directory"), "{refused}");
    }
}
