//! Plain tables: columns as wide as their content.

/// Where a column's content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Characters of a text. Names may hold any Unicode; columns count characters, not display cells.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// The text cut in the middle to `limit` characters: both ends of a dotted name say something.
pub fn shorten(text: &str, limit: usize) -> String {
    let length = width(text);
    if length <= limit || limit < 3 {
        return text.chars().take(limit).collect();
    }
    let head = (limit - 1) / 2;
    let tail = limit - 1 - head;
    let first: String = text.chars().take(head).collect();
    let last: String = text.chars().skip(length - tail).collect();
    format!("{first}…{last}")
}

/// A line broken at blanks so that each part has at most `limit` characters where its words allow; the parts after the first are indented by
/// four more than the line itself.
pub fn wrapped(line: &str, limit: Option<usize>) -> Vec<String> {
    let Some(limit) = limit.filter(|&limit| width(line) > limit) else { return vec![line.to_string()] };
    let indent = line.len() - line.trim_start().len();
    let (mut parts, mut part) = (Vec::new(), " ".repeat(indent));
    let mut empty = true;
    for word in line.split_whitespace() {
        if !empty && width(&part) + 1 + width(word) > limit {
            parts.push(std::mem::replace(&mut part, " ".repeat(indent + 4)));
            empty = true;
        }
        part += if empty { "" } else { " " };
        part += word;
        empty = false;
    }
    parts.push(part);
    parts
}

/// Lines of a table, header first, two blanks between columns.
pub fn lines(header: &[(&str, Align)], rows: &[Vec<String>]) -> Vec<String> {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(i, (name, _))| rows.iter().map(|r| width(&r[i])).max().unwrap_or(0).max(width(name)))
        .collect();
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[i] - width(cell));
            let before = if i > 0 { "  " } else { "" };
            text += &match header[i].1 {
                Align::Left => format!("{before}{cell}{gap}"),
                Align::Right => format!("{before}{gap}{cell}"),
            };
        }
        text.trim_end().to_string()
    };
    let mut lines = vec![line(header.iter().map(|(name, _)| *name).collect())];
    lines.extend(rows.iter().map(|r| line(r.iter().map(String::as_str).collect())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_long_names_keep_both_ends() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "7".into()]];
        assert_eq!(lines(&[("name", Align::Left), ("n", Align::Right)], &rows), ["name   n", "a     10", "long   7"]);
        assert_eq!(shorten("h.0.attn.c_attn.weight", 11), "h.0.a…eight");
        assert_eq!(shorten("short", 11), "short");
        assert_eq!(shorten("short", 2), "sh");
        assert_eq!(wrapped("  one two three", Some(9)), ["  one two", "      three"]);
        assert_eq!(wrapped("  one two three", None), ["  one two three"]);
    }
}
