//! MiniMalloc's CSV: one buffer a line, `id,lower,upper,size[,alignment][,offset]`.
//!
//! The header names the columns, in any order; ids are arbitrary text without a comma. On input an `offset` that is not
//! empty pre-places the buffer. Blank lines are skipped; anything else that is not a buffer is an error.

use std::fmt::Write;
use std::path::Path;

use crate::error::{Error, Result};

use super::Buffer;

/// Buffers with the names they have in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Text of the `id` column.
    pub ids: Vec<String>,
    /// The buffers, in the order of the file.
    pub buffers: Vec<Buffer>,
}

/// Column names, in the order in which [`write`] puts them.
const COLUMNS: [&str; 6] = ["id", "lower", "upper", "size", "alignment", "offset"];
/// How many of them a file must have.
const REQUIRED: usize = 4;

/// Parses `text`; `path` is for messages only.
///
/// # Errors
/// [`Error::File`] naming line and column for an unknown, missing or repeated column, a line with another number of fields, and a number that is
/// not a decimal u64; for an empty id or one that appears twice, an empty lifespan, and an alignment that is no power of two.
pub fn read(path: &Path, text: &str) -> Result<Table> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim().is_empty());
    let Some((header_line, header)) = lines.next() else {
        return Err(Error::file(path, "empty; expected a header `id,lower,upper,size`"));
    };
    let columns = parse_header(header).map_err(|message| at_line(path, header_line, message))?;
    let mut table = Table::default();
    let mut seen = std::collections::HashMap::new();
    for (number, line) in lines {
        let (id, buffer) = parse_line(line, &columns).map_err(|message| at_line(path, number, message))?;
        if let Some(other) = seen.insert(id.clone(), number) {
            return Err(at_line(path, number, format!("id '{id}' is already used in line {other}")));
        }
        table.ids.push(id);
        table.buffers.push(buffer);
    }
    Ok(table)
}

/// Writes `table` with the given offsets, the columns `id,lower,upper,size[,alignment],offset`: `alignment` only if a buffer has one.
pub fn write(table: &Table, offsets: &[u64]) -> String {
    let aligned = table.buffers.iter().any(|b| b.align != 1);
    let mut text =
        String::from(if aligned { "id,lower,upper,size,alignment,offset\n" } else { "id,lower,upper,size,offset\n" });
    for ((id, b), offset) in table.ids.iter().zip(&table.buffers).zip(offsets) {
        let alignment = if aligned { format!("{},", b.align) } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{id},{},{},{},{alignment}{offset}", b.lower, b.upper, b.size);
    }
    text
}

fn at_line(path: &Path, line: usize, message: String) -> Error {
    Error::file(path, format!("line {line}: {message}"))
}

/// For each field of a line, which of [`COLUMNS`] it is.
fn parse_header(header: &str) -> Result<Vec<usize>, String> {
    let mut columns = Vec::new();
    for name in header.split(',').map(str::trim) {
        let Some(column) = COLUMNS.iter().position(|&known| known == name) else {
            return Err(format!("unknown column '{name}'; known are {}", COLUMNS.join(", ")));
        };
        if columns.contains(&column) {
            return Err(format!("column '{name}' appears twice"));
        }
        columns.push(column);
    }
    match (0..REQUIRED).find(|column| !columns.contains(column)) {
        Some(missing) => Err(format!("column '{}' is missing", COLUMNS[missing])),
        None => Ok(columns),
    }
}

fn parse_line(line: &str, columns: &[usize]) -> Result<(String, Buffer), String> {
    let count = line.split(',').count();
    if count != columns.len() {
        return Err(format!("{count} fields where the header has {}", columns.len()));
    }
    let mut id = String::new();
    let mut numbers = [None; COLUMNS.len()];
    for (field, &column) in line.split(',').map(str::trim).zip(columns) {
        if column == 0 {
            id = field.to_string();
        } else if !(field.is_empty() && column >= REQUIRED) {
            numbers[column] = Some(parse_number(field, COLUMNS[column])?);
        }
    }
    if id.is_empty() {
        return Err("the id is empty".to_string());
    }
    let [_, lower, upper, size, align, fixed] = numbers;
    let required = |number: Option<u64>| number.ok_or_else(|| "a required field is empty".to_string());
    let buffer = Buffer {
        lower: required(lower)?,
        upper: required(upper)?,
        size: required(size)?,
        align: align.unwrap_or(1),
        fixed,
    };
    if buffer.upper <= buffer.lower {
        return Err(format!(
            "lifespan [{}, {}) of '{id}' is empty; upper must exceed lower",
            buffer.lower, buffer.upper
        ));
    }
    if !buffer.align.is_power_of_two() {
        return Err(format!("alignment {} of '{id}' is not a power of two", buffer.align));
    }
    Ok((id, buffer))
}

fn parse_number(field: &str, column: &str) -> Result<u64, String> {
    let digits = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    match field.parse() {
        Ok(number) if digits => Ok(number),
        _ => Err(format!("{column} '{field}' is not a whole number from 0 to {}", u64::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Table, String> {
        read(Path::new("in.csv"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn columns_in_any_order_and_ids_as_written() {
        let table =
            parse("size,upper,id,lower,offset,alignment\r\n12,9,h.0.attn,3,,4\n\n8, 5 ,x y,0,64,\n").expect("valid");
        assert_eq!(table.ids, ["h.0.attn", "x y"]);
        assert_eq!(table.buffers, [Buffer::new(3, 9, 12).aligned(4), Buffer::new(0, 5, 8).at(64)]);
    }

    #[test]
    fn what_is_written_reads_back_as_placed() {
        let table = parse("id,lower,upper,size,alignment\na,0,2,8,8\nb,1,3,5,\n").expect("valid");
        let text = write(&table, &[8, 0]);
        assert_eq!(text, "id,lower,upper,size,alignment,offset\na,0,2,8,8,8\nb,1,3,5,1,0\n");
        let back = parse(&text).expect("valid");
        assert_eq!(back.buffers[0], table.buffers[0].at(8));
        assert_eq!(parse("id,lower,upper,size\n").expect("no buffers").buffers.len(), 0);
    }

    #[test]
    fn errors_name_line_and_cause() {
        let cases = [
            ("", "empty"),
            ("id,lower,upper\n", "line 1: column 'size' is missing"),
            ("id,lower,upper,size,size\n", "line 1: column 'size' appears twice"),
            ("id,lower,upper,bytes\n", "line 1: unknown column 'bytes'"),
            ("id,lower,upper,size\na,0,1,2,3\n", "line 2: 5 fields where the header has 4"),
            ("id,lower,upper,size\na,0,1,-2\n", "line 2: size '-2'"),
            ("id,lower,upper,size\na,0,1,+2\n", "line 2: size '+2'"),
            ("id,lower,upper,size\na,0,1,\n", "line 2: size ''"),
            ("id,lower,upper,size\na,0,1,18446744073709551616\n", "line 2: size '18446744073709551616'"),
            ("id,lower,upper,size\n\na,0,1,2\na,0,1,2\n", "line 4: id 'a' is already used in line 3"),
            ("id,lower,upper,size\n,0,1,2\n", "line 2: the id is empty"),
            ("id,lower,upper,size\na,5,5,2\n", "line 2: lifespan [5, 5)"),
            ("id,lower,upper,size,alignment\na,0,5,2,6\n", "line 2: alignment 6"),
        ];
        for (text, message) in cases {
            let error = parse(text).expect_err(message);
            assert!(error.starts_with("in.csv: ") && error.contains(message), "{error}");
        }
    }
}
