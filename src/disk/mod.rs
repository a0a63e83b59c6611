//! Files on disk: mapped for reading, written whole or not at all.

mod atomic;
mod mapped;

pub use atomic::{AtomicFile, write_atomically};
pub use mapped::MappedFile;
