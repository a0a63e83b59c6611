//! The plan section of a plan file. What is read is verified before it is returned.

use super::container::{self, Section, SectionKind, SectionSource};
use super::{Plan, PlanBuffer, Totals, verify};
use crate::disk::MappedFile;
use crate::error::{Error, Result};
use crate::graph::{Graph, TensorId};
use crate::ops::Capacity;
use crate::passes::Mode;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

/// What the JSON of the plan section holds.
#[derive(Serialize, Deserialize)]
struct PlanRecord<'a> {
    mode: Mode,
    slots: usize,
    context: usize,
    step_rows: usize,
    wanted_rows: usize,
    totals: Totals,
    graph: Cow<'a, Graph>,
    aliases: Cow<'a, [Option<TensorId>]>,
    buffers: Cow<'a, [PlanBuffer]>,
    tensor_buffer: Cow<'a, [Option<u32>]>,
    node_scratch: Cow<'a, [Option<u32>]>,
}

/// The plan as bytes of the plan section: the same plan gives the same bytes.
pub fn to_bytes(plan: &Plan) -> Vec<u8> {
    let Capacity { slots, context, step_rows, wanted_rows } = plan.capacity;
    let record = PlanRecord {
        mode: plan.mode,
        slots,
        context,
        step_rows,
        wanted_rows,
        totals: plan.totals,
        graph: Cow::Borrowed(&plan.graph),
        aliases: Cow::Borrowed(&plan.aliases),
        buffers: Cow::Borrowed(&plan.buffers),
        tensor_buffer: Cow::Borrowed(&plan.tensor_buffer),
        node_scratch: Cow::Borrowed(&plan.node_scratch),
    };
    serde_json::to_vec(&record).expect("a plan has no values that JSON cannot hold")
}

/// Parses and verifies the bytes of a plan section.
///
/// # Errors
/// Malformed JSON, or whatever [`verify::verify`] refuses.
pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Plan> {
    let record: PlanRecord = serde_json::from_slice(bytes)
        .map_err(|e| Error::file(path, format!("has a malformed plan: {e}; compile it again")))?;
    let capacity = Capacity {
        slots: record.slots,
        context: record.context,
        step_rows: record.step_rows,
        wanted_rows: record.wanted_rows,
    };
    if [capacity.slots, capacity.context, capacity.step_rows, capacity.wanted_rows]
        .iter()
        .any(|&n| n == 0 || n > 1 << 32)
    {
        return Err(Error::file(path, "has a plan with impossible sizes; compile it again"));
    }
    let plan = Plan {
        mode: record.mode,
        graph: record.graph.into_owned(),
        capacity,
        aliases: record.aliases.into_owned(),
        buffers: record.buffers.into_owned(),
        tensor_buffer: record.tensor_buffer.into_owned(),
        node_scratch: record.node_scratch.into_owned(),
        totals: record.totals,
    };
    verify::verify(&plan).map_err(|e| Error::file(path, format!("is refused: {e}; compile it again")))?;
    Ok(plan)
}

/// The plan section to write.
pub fn section(plan: &Plan) -> SectionSource<'static> {
    let bytes = to_bytes(plan);
    let len = bytes.len() as u64;
    let write = move |w: &mut dyn std::io::Write| w.write_all(&bytes).map_err(|e| Error::io("the plan", "write", e));
    (SectionKind::Plan, len, Box::new(write))
}

/// Writes a plan without weights.
///
/// # Errors
/// What the system reports; the file is then untouched.
pub fn save(path: &Path, plan: &Plan) -> Result<()> {
    container::write(path, vec![section(plan)])
}

/// Writes a plan with packed weights: `index` is the directory of `weights` and `text` the tokenizer, any serialisable values.
///
/// # Errors
/// What the system reports; the file is then untouched.
pub fn save_with_weights<T: Serialize, X: Serialize>(
    path: &Path,
    plan: &Plan,
    index: &[T],
    weights: &[u8],
    text: &X,
) -> Result<()> {
    let fail = |e| Error::io(path, "write", e);
    let index = serde_json::to_vec(index).expect("an index has no values that JSON cannot hold");
    let index_section: SectionSource =
        (SectionKind::WeightIndex, index.len() as u64, Box::new(|w| w.write_all(&index).map_err(fail)));
    let weight_section: SectionSource =
        (SectionKind::Weights, weights.len() as u64, Box::new(|w| w.write_all(weights).map_err(fail)));
    let text = serde_json::to_vec(text).expect("a tokenizer has no values that JSON cannot hold");
    let text_section: SectionSource =
        (SectionKind::Text, text.len() as u64, Box::new(|w| w.write_all(&text).map_err(fail)));
    container::write(path, vec![section(plan), index_section, text_section, weight_section])
}

/// A plan file, mapped once for all that is read from it.
pub struct PlanFile {
    file: Arc<MappedFile>,
    sections: Vec<Section>,
}

impl PlanFile {
    /// Maps the file and checks its header.
    ///
    /// # Errors
    /// What the system reports; a file that is not a plan file, or damaged, by byte offset.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let sections = container::read_header(path, file.bytes())?;
        Ok(PlanFile { file: Arc::new(file), sections })
    }

    /// The mapped file.
    pub fn mapped(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// What the file holds.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// Reads and verifies the plan.
    ///
    /// # Errors
    /// Damage of any kind, by byte offset or by the name of what is wrong in the plan.
    pub fn plan(&self) -> Result<Plan> {
        let path = self.file.path();
        let section =
            self.section(SectionKind::Plan).ok_or_else(|| Error::file(path, "holds no plan; compile it again"))?;
        let plan = from_bytes(path, section.bytes(path, self.file.bytes())?);
        self.file.release(section.offset, section.len);
        plan
    }

    /// The value of the text section, if the file has one.
    ///
    /// # Errors
    /// Damage, by byte offset.
    pub fn text<X: for<'de> Deserialize<'de>>(&self) -> Result<Option<X>> {
        self.section(SectionKind::Text).map(|section| self.parse(section, "tokenizer")).transpose()
    }

    /// The section of packed weights and its directory, if the file has them. The directory's checksum is compared.
    ///
    /// # Errors
    /// Damage, by byte offset.
    pub fn weight_index<T: for<'de> Deserialize<'de>>(&self) -> Result<Option<(Section, Vec<T>)>> {
        let sections = (self.section(SectionKind::WeightIndex), self.section(SectionKind::Weights));
        let (Some(index), Some(weights)) = sections else { return Ok(None) };
        Ok(Some((weights, self.parse(index, "weight directory")?)))
    }

    fn section(&self, kind: SectionKind) -> Option<Section> {
        self.sections.iter().copied().find(|s| s.kind == kind)
    }

    fn parse<X: for<'de> Deserialize<'de>>(&self, section: Section, what: &str) -> Result<X> {
        let path = self.file.path();
        let value = serde_json::from_slice(section.bytes(path, self.file.bytes())?).map_err(|e| {
            Error::file_at(path, section.offset as u64, format!("has a malformed {what}: {e}; compile it again"))
        });
        self.file.release(section.offset, section.len);
        value
    }
}

/// Reads and verifies the plan of a plan file.
///
/// # Errors
/// As [`PlanFile::open`] and [`PlanFile::plan`].
pub fn load(path: &Path) -> Result<Plan> {
    PlanFile::open(path)?.plan()
}
