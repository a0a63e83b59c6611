//! Files that appear whole or not at all.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes `path` through a temporary file in the same directory: content, flush to disk, rename, flush of the directory. When
/// anything fails, `path` keeps what it had.
pub fn write_atomically(path: &Path, content: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let directory = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(Error::file(path, "is a directory; give the name of a file"));
    }
    let failed = |e| Error::io(path, "write", e);
    let mut builder = tempfile::Builder::new();
    builder.prefix(".").suffix(".partial");
    #[cfg(unix)]
    {
        // As a file made by `File::create`: readable by all that the process's mask allows.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let temporary = builder.tempfile_in(directory).map_err(failed)?;
    let (file, temporary) = temporary.into_parts();
    let mut writer = BufWriter::with_capacity(1 << 20, file);
    content(&mut writer)?;
    let file = writer.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|e| failed(e.error))?;
    File::open(directory).and_then(|d| d.sync_all()).map_err(failed)
}

/// Writes all of `bytes`.
pub(super) fn put(writer: &mut BufWriter<File>, path: &Path, bytes: &[u8]) -> Result<()> {
    writer.write_all(bytes).map_err(|e| Error::io(path, "write", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_the_old_file_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        write_atomically(&path, |w| put(w, &path, b"old")).unwrap();
        let failed = write_atomically(&path, |w| {
            put(w, &path, b"new")?;
            Err(Error::Weights("stop".into()))
        });
        assert_eq!(failed.unwrap_err().to_string(), "weights: stop");
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        let nowhere = directory.path().join("none/x");
        assert!(write_atomically(&nowhere, |_| Ok(())).unwrap_err().to_string().contains("none/x: cannot write"));
        assert!(write_atomically(directory.path(), |_| Ok(())).unwrap_err().to_string().contains("is a directory"));
    }
}
