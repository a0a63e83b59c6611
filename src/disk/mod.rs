//! Files on disk: mapped for reading, written whole or not at all.

mod atomic;
mod mapped;
mod partial;
mod size_limit;

pub use atomic::{AtomicFile, destination, is_directory, keep_input, make_directory, write_atomically};
pub use mapped::MappedFile;
pub use partial::{abandon_files, remove_partial};
pub use size_limit::fail_past_size_limit;
