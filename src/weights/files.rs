//! Small files beside the weights.

use crate::error::{Error, Result};
use std::path::Path;

/// A configuration larger than this is something else.
const MAX_TEXT: u64 = 64 << 20;

/// Reads a JSON file of moderate size.
pub(super) fn read_json(path: &Path) -> Result<serde_json::Value> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, "open", e))?;
    if !metadata.is_file() || metadata.len() > MAX_TEXT {
        return Err(Error::file(path, format!("not a JSON file of at most {MAX_TEXT} bytes")));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::file(path, format!("not valid JSON: {e}")))
}
