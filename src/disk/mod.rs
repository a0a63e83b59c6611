//! Files on disk: mapped for reading, written whole or not at all.

mod atomic;
mod mapped;

pub use atomic::{AtomicFile, destination, keep_input, make_directory, remove_partial, write_atomically};
pub use mapped::MappedFile;
