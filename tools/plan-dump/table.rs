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
    fn columns_line_up() {
        let rows = [vec!["a".into(), "10".into()], vec!["long".into(), "7".into()]];
        assert_eq!(lines(&[("name", Align::Left), ("n", Align::Right)], &rows), ["name   n", "a     10", "long   7"]);
    }
}
