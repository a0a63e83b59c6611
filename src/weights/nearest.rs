//! The name most like a misspelt one, for error messages.

/// The candidate with the smallest edit distance to `name`, the first of equals.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates.map(|c| (edit_distance(name, c), c)).min_by_key(|(d, _)| *d).map(|(_, c)| c)
}

/// Levenshtein distance in bytes.
fn edit_distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_intended_name() {
        let names = ["h.0.attn.c_attn.weight", "h.0.attn.c_proj.weight", "wte.weight"];
        assert_eq!(nearest("h.0.attn.c_atn.weight", names.into_iter()), Some(names[0]));
        assert_eq!(nearest("wte", names.into_iter()), Some("wte.weight"));
        assert_eq!(nearest("x", [].into_iter()), None);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
