//! Metadata values of GGUF.

use super::reader::Reader;
use crate::error::Result;
use byteorder::{ByteOrder, LittleEndian};

/// One value. Integers of all widths are [`Value::Int`] (or [`Value::Big`] beyond i64).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Int(i64),
    /// An unsigned number that i64 cannot hold.
    Big(u64),
    /// Single precision, as nearly all are stored.
    F32(f32),
    F64(f64),
    Bool(bool),
    Text(String),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
    /// An array that no key read here has: of booleans, of doubles, of huge numbers, or nested.
    OtherArray,
}

/// Type numbers of values.
pub mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// Arrays nested deeper than this are damage.
const MAX_DEPTH: usize = 8;

/// Bytes of a scalar of `kind`, or the least that a string or an array takes.
fn least_bytes(kind: u32) -> Option<usize> {
    Some(match kind {
        kind::U8 | kind::I8 | kind::BOOL => 1,
        kind::U16 | kind::I16 => 2,
        kind::U32 | kind::I32 | kind::F32 => 4,
        kind::U64 | kind::I64 | kind::F64 | kind::STRING => 8,
        kind::ARRAY => 12,
        _ => return None,
    })
}

impl Value {
    /// Reads the value of `key`: u32 type, then the value.
    pub(super) fn read(reader: &mut Reader<'_>, key: &str) -> Result<Value> {
        let at = reader.at();
        let kind = reader.u32(key)?;
        Value::of_kind(reader, key, kind, at, 0)
    }

    fn of_kind(reader: &mut Reader<'_>, key: &str, kind: u32, at: usize, depth: usize) -> Result<Value> {
        let Some(width) = least_bytes(kind) else {
            return reader
                .fail(at, format!("'{key}' has value type {kind}, which GGUF does not define; the file is damaged"));
        };
        match kind {
            kind::STRING => Ok(Value::Text(reader.string(key)?.to_string())),
            kind::ARRAY => Value::array(reader, key, depth),
            _ => Ok(scalar(kind, reader.take(width, key)?)),
        }
    }

    fn array(reader: &mut Reader<'_>, key: &str, depth: usize) -> Result<Value> {
        let at = reader.at();
        let kind = reader.u32(key)?;
        let Some(width) = least_bytes(kind) else {
            return reader.fail(
                at,
                format!("'{key}' is an array of type {kind}, which GGUF does not define; the file is damaged"),
            );
        };
        if depth == MAX_DEPTH {
            return reader.fail(at, format!("'{key}' nests arrays deeper than {MAX_DEPTH}; the file is damaged"));
        }
        let n = reader.count(width, &format!("the length of array '{key}'"))?;
        match kind {
            kind::STRING => {
                (0..n).map(|_| Ok(reader.string(key)?.to_string())).collect::<Result<_>>().map(Value::Texts)
            }
            kind::ARRAY => {
                for _ in 0..n {
                    Value::array(reader, key, depth + 1)?;
                }
                Ok(Value::OtherArray)
            }
            kind::BOOL | kind::F64 | kind::U64 => reader.take(n * width, key).map(|_| Value::OtherArray),
            kind::F32 => {
                Ok(Value::Floats(reader.take(4 * n, key)?.chunks_exact(4).map(LittleEndian::read_f32).collect()))
            }
            _ => {
                let int = |bytes: &[u8]| match scalar(kind, bytes) {
                    Value::Int(v) => v,
                    other => unreachable!("{other:?} is not a small integer"),
                };
                Ok(Value::Ints(reader.take(n * width, key)?.chunks_exact(width).map(int).collect()))
            }
        }
    }
}

/// The scalar of `kind` in exactly its bytes.
fn scalar(kind: u32, bytes: &[u8]) -> Value {
    match kind {
        kind::U8 => Value::Int(bytes[0].into()),
        kind::I8 => Value::Int((bytes[0] as i8).into()),
        kind::U16 => Value::Int(LittleEndian::read_u16(bytes).into()),
        kind::I16 => Value::Int(LittleEndian::read_i16(bytes).into()),
        kind::U32 => Value::Int(LittleEndian::read_u32(bytes).into()),
        kind::I32 => Value::Int(LittleEndian::read_i32(bytes).into()),
        kind::I64 => Value::Int(LittleEndian::read_i64(bytes)),
        kind::U64 => {
            let v = LittleEndian::read_u64(bytes);
            i64::try_from(v).map_or(Value::Big(v), Value::Int)
        }
        kind::F32 => Value::F32(LittleEndian::read_f32(bytes)),
        kind::F64 => Value::F64(LittleEndian::read_f64(bytes)),
        kind::BOOL => Value::Bool(bytes[0] != 0),
        _ => unreachable!("kind {kind} is not a scalar"),
    }
}
