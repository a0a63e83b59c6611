//! The training log: one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// One line of the log. Values that were not measured at this step are left out.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Record {
    /// Optimiser steps done when this was written.
    pub step: u64,
    /// Mean training loss of the step, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Mean validation loss, nats per token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_loss: Option<f64>,
    /// Learning rate of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Global norm of the gradients before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Tokens per second of the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Seconds of training so far, earlier runs included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Text generated at this step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<String>,
}

/// Appends records, a line each, in one write.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Starts an empty log.
    pub fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).map_err(|e| Error::io(path, "create", e))?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Continues a log from a checkpoint made after `step` steps: records of later steps, and what a kill left unfinished at
    /// the end, are cut off. A missing log starts empty.
    pub fn resume(path: &Path, step: u64) -> Result<Self> {
        let failed = |source| Error::io(path, "open", source);
        let mut file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
        let kept: usize = whole_lines(path)?
            .iter()
            .take_while(|(_, record)| record.as_ref().is_some_and(|record| record.step <= step))
            .map(|(length, _)| length)
            .sum();
        file.set_len(kept as u64).map_err(failed)?;
        file.seek(SeekFrom::Start(kept as u64)).map_err(failed)?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Appends a record.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let mut line = serde_json::to_vec(record).expect("a record has only JSON types");
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::io(&self.path, "write", e))
    }

    /// All records of a log, up to the first line that is not whole.
    pub fn read(path: &Path) -> Result<Vec<Record>> {
        Ok(whole_lines(path)?.into_iter().map_while(|(_, record)| record).collect())
    }
}

/// Bytes (newline included) and record of each line that has a newline.
fn whole_lines(path: &Path) -> Result<Vec<(usize, Option<Record>)>> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", e))?;
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    Ok(lines.map(|line| (line.len(), serde_json::from_slice(line).ok())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64) -> Record {
        Record { step, loss: Some(5.0 / (step + 1) as f64), ..Default::default() }
    }

    fn steps(path: &Path) -> Vec<u64> {
        Log::read(path).unwrap().iter().map(|record| record.step).collect()
    }

    #[test]
    fn records_round_trip() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        let mut log = Log::create(&path).unwrap();
        (1..4).for_each(|step| log.append(&record(step)).unwrap());
        assert_eq!(Log::read(&path).unwrap(), [record(1), record(2), record(3)]);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().next(), Some(r#"{"step":1,"loss":2.5}"#));
    }

    #[test]
    fn resuming_cuts_later_and_unfinished_records() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        let mut log = Log::create(&path).unwrap();
        (1..6).for_each(|step| log.append(&record(step)).unwrap());
        drop(log);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"step\":6,\"lo").unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4, 5]);
        let mut log = Log::resume(&path, 3).unwrap();
        log.append(&record(4)).unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4]);
        let mut log = Log::resume(&path, 100).unwrap();
        log.append(&record(5)).unwrap();
        assert_eq!(steps(&path), [1, 2, 3, 4, 5]);
        assert!(Log::resume(&directory.path().join("new.jsonl"), 3).is_ok());
    }
}
