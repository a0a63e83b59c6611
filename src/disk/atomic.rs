//! Files that appear whole or not at all.

use super::partial::{self, Partial};
use crate::error::{Error, Result};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Bytes that gather before they are written.
const BUFFER: usize = 1 << 16;

/// Written beside its destination under a temporary name; [`AtomicFile::commit`] makes it durable and renames it. Dropped
/// without a commit it leaves nothing behind, and a kill at any moment leaves the old file or the new one.
pub struct AtomicFile {
    path: PathBuf,
    writer: BufWriter<NamedTempFile>,
    _partial: Partial,
}

impl AtomicFile {
    /// Starts a file that will become `path`, or what `path` links to; its directory must exist.
    ///
    /// # Errors
    /// As [`destination`]; what the system reports.
    pub fn create(path: &Path) -> Result<Self> {
        let target = destination(path)?;
        let name = target.file_name().ok_or_else(|| Error::file(path, "not the name of a file"))?;
        let prefix = format!(".{}.", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(partial::SUFFIX);
        #[cfg(unix)]
        {
            // As a file made by `File::create`: readable by all that the process's mask allows.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = builder.tempfile_in(directory_of(&target)).map_err(|e| Error::io(path, "create", e))?;
        let partial = Partial::new(file.path());
        Ok(Self { path: target, writer: BufWriter::with_capacity(BUFFER, file), _partial: partial })
    }

    /// Writes all of `bytes`; the error names the destination.
    ///
    /// # Errors
    /// What the system reports.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).map_err(|e| Error::io(&self.path, "write", e))
    }

    /// Writes through to the disk (file, then directory entry) and takes the destination's place.
    ///
    /// # Errors
    /// What the system reports; the destination then keeps what it had.
    pub fn commit(self) -> Result<()> {
        let failed = |source| Error::io(&self.path, "write", source);
        let file = self.writer.into_inner().map_err(|e| failed(e.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(&self.path).map_err(|e| failed(e.error))?;
        sync_directory(directory_of(&self.path)).map_err(failed)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.writer.seek(to)
    }
}

/// Writes `path` through an [`AtomicFile`]. When `content` fails, `path` keeps what it had.
///
/// # Errors
/// What the system or `content` reports.
pub fn write_atomically(path: &Path, content: impl FnOnce(&mut AtomicFile) -> Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    content(&mut file)?;
    file.commit()
}

/// Where a file written to `path` ends up, through symbolic links. A rename would replace a device or a pipe by a file, so those
/// are refused.
///
/// # Errors
/// A path that is a directory or not a regular file, or whose directory does not exist.
pub fn destination(path: &Path) -> Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Error::file(path, "is a directory; give the name of a file")),
        Ok(found) if !found.is_file() => {
            Err(Error::file(path, "is a device or a pipe, which cannot be written as a whole; give the name of a file"))
        }
        Ok(_) => std::fs::canonicalize(path).map_err(|e| Error::io(path, "open", e)),
        Err(_) if path.is_symlink() => {
            Err(Error::file(path, "is a link that leads nowhere; remove it, or make the file that it names"))
        }
        Err(_) if !directory_of(path).is_dir() => {
            let directory = directory_of(path).display();
            Err(Error::file(path, format!("cannot create: there is no directory {directory}; make it first")))
        }
        Err(_) => Ok(path.to_path_buf()),
    }
}

/// Makes a directory, and those above it, unless it is there.
///
/// # Errors
/// A path that is something else; what the system reports.
pub fn make_directory(path: &Path) -> Result<()> {
    is_directory(path)?;
    std::fs::create_dir_all(path).map_err(|e| Error::io(path, "create", e))
}

/// Whether there is a directory at `path`; false when there is nothing.
///
/// # Errors
/// There is something else.
pub fn is_directory(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(true),
        Ok(_) => Err(Error::file(path, "is a file; give the name of a directory")),
        Err(_) => Ok(false),
    }
}

/// Refuses to write to `output`, or into it, what is made from `input`, when both are the same file or directory.
///
/// # Errors
/// They are the same.
pub fn keep_input(input: &Path, output: &Path) -> Result<()> {
    match (std::fs::canonicalize(input), std::fs::canonicalize(output)) {
        (Ok(a), Ok(b)) if a == b => Err(Error::Usage(format!(
            "{}: is what the command reads, and would be overwritten; write to another place",
            output.display()
        ))),
        _ => Ok(()),
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A rename survives a power cut only once its directory is on the disk.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { std::fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(directory: &Path) -> usize {
        std::fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_old_file_stays_until_the_commit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.bin");
        std::fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.put(b"new").unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(entries(directory.path()), 1, "an abandoned file leaves nothing");
        let mut file = AtomicFile::create(&path).unwrap();
        file.put(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn content_that_fails_keeps_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        write_atomically(&path, |w| w.put(b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            w.put(b"new")?;
            Err(Error::Weights("stop".into()))
        });
        assert_eq!(failed.unwrap_err().to_string(), "weights: stop");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn impossible_places_are_errors() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = AtomicFile::create(&directory.path().join("no/a.bin")).err().unwrap().to_string();
        assert!(nowhere.contains("no/a.bin: cannot create") && nowhere.ends_with("no; make it first"), "{nowhere}");
        let taken = AtomicFile::create(directory.path()).err().unwrap().to_string();
        assert!(taken.contains("is a directory"), "{taken}");
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_sockets_stay_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("far")).unwrap();
        std::fs::write(at("far/file"), "old").unwrap();
        std::os::unix::fs::symlink("far/file", at("link")).unwrap();
        write_atomically(&at("link"), |w| w.put(b"new")).unwrap();
        assert!(at("link").is_symlink());
        assert_eq!(std::fs::read(at("far/file")).unwrap(), b"new");
        assert_eq!(entries(&at("far")), 1);
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        let refused = AtomicFile::create(&at("dangling")).err().unwrap().to_string();
        assert!(refused.contains("leads nowhere") && at("dangling").is_symlink(), "{refused}");
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let refused = AtomicFile::create(&at("socket")).err().unwrap().to_string();
        assert!(refused.contains("device or a pipe"), "{refused}");
    }

    #[test]
    fn directories_are_made_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(!is_directory(&at("a/b")).unwrap());
        make_directory(&at("a/b")).unwrap();
        make_directory(&at("a/b")).unwrap();
        assert!(is_directory(&at("a/b")).unwrap());
        std::fs::write(at("file"), "").unwrap();
        assert!(make_directory(&at("file")).unwrap_err().to_string().contains("is a file"));
    }

    #[test]
    fn an_input_is_no_output() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a"), "").unwrap();
        let refused = keep_input(&at("a"), &directory.path().join(".").join("a")).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(keep_input(directory.path(), directory.path()).is_err());
        keep_input(&at("a"), &at("b")).unwrap();
        keep_input(&at("no"), &at("no")).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_is_that_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let mode = |name: &str| std::fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
        std::fs::File::create(directory.path().join("plain")).unwrap();
        write_atomically(&directory.path().join("atomic"), |w| w.put(b"x")).unwrap();
        assert_eq!(mode("atomic"), mode("plain"));
    }
}
