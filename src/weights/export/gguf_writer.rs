//! GGUF metadata and tensor table, written to memory.

use super::super::gguf::TYPES;
use super::super::gguf::header::{DEFAULT_ALIGNMENT, VERSION};
use super::super::gguf::value::kind;
use crate::tensor::DType;
use byteorder::{LittleEndian, WriteBytesExt};

/// Collects metadata and tensors; [`GgufWriter::header`] gives the bytes in front of the data.
#[derive(Default)]
pub(super) struct GgufWriter {
    values: Vec<u8>,
    value_count: u64,
    table: Vec<u8>,
    tensor_count: u64,
    data_bytes: usize,
}

/// Writes to a `Vec` cannot fail.
const TO_MEMORY: &str = "memory takes every byte";

impl GgufWriter {
    fn key(&mut self, key: &str, kind: u32) {
        string(&mut self.values, key);
        self.values.write_u32::<LittleEndian>(kind).expect(TO_MEMORY);
        self.value_count += 1;
    }

    fn array(&mut self, key: &str, kind: u32, len: usize) {
        self.key(key, kind::ARRAY);
        self.values.write_u32::<LittleEndian>(kind).expect(TO_MEMORY);
        self.values.write_u64::<LittleEndian>(len as u64).expect(TO_MEMORY);
    }

    /// An unsigned 32-bit number.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, kind::U32);
        self.values.write_u32::<LittleEndian>(value).expect(TO_MEMORY);
    }

    /// A single-precision number.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, kind::F32);
        self.values.write_f32::<LittleEndian>(value).expect(TO_MEMORY);
    }

    /// A truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, kind::BOOL);
        self.values.push(value.into());
    }

    /// A string.
    pub fn text(&mut self, key: &str, value: &str) {
        self.key(key, kind::STRING);
        string(&mut self.values, value);
    }

    /// An array of strings.
    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, kind::STRING, values.len());
        for v in values {
            string(&mut self.values, v);
        }
    }

    /// An array of 32-bit integers.
    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, kind::I32, values.len());
        for v in values {
            self.values.write_i32::<LittleEndian>(*v).expect(TO_MEMORY);
        }
    }

    /// An array of single-precision numbers.
    pub fn f32s(&mut self, key: &str, values: &[f32]) {
        self.array(key, kind::F32, values.len());
        for v in values {
            self.values.write_f32::<LittleEndian>(*v).expect(TO_MEMORY);
        }
    }

    /// The next tensor of the data section; `dims` row-major, which the file has the other way round.
    pub fn tensor(&mut self, name: &str, dims: &[usize], dtype: DType, bytes: usize) {
        let (number, _) = TYPES.iter().find(|(_, d)| *d == dtype).expect("only GGUF's types are exported to it");
        string(&mut self.table, name);
        self.table.write_u32::<LittleEndian>(dims.len() as u32).expect(TO_MEMORY);
        for d in dims.iter().rev() {
            self.table.write_u64::<LittleEndian>(*d as u64).expect(TO_MEMORY);
        }
        self.table.write_u32::<LittleEndian>(*number).expect(TO_MEMORY);
        self.table.write_u64::<LittleEndian>(self.data_bytes as u64).expect(TO_MEMORY);
        self.data_bytes += bytes + padding(bytes);
        self.tensor_count += 1;
    }

    /// Everything in front of the data, padded to where it starts.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.write_u32::<LittleEndian>(VERSION).expect(TO_MEMORY);
        out.write_u64::<LittleEndian>(self.tensor_count).expect(TO_MEMORY);
        out.write_u64::<LittleEndian>(self.value_count).expect(TO_MEMORY);
        out.extend(&self.values);
        out.extend(&self.table);
        out.resize(out.len() + padding(out.len()), 0);
        out
    }
}

/// Bytes of padding after `len` bytes.
pub(super) fn padding(len: usize) -> usize {
    len.next_multiple_of(DEFAULT_ALIGNMENT) - len
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.write_u64::<LittleEndian>(text.len() as u64).expect(TO_MEMORY);
    out.extend(text.as_bytes());
}
