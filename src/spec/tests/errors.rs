//! The exact text of errors: `tests/golden/spec-errors/NAME.sg` compiles to the errors in `NAME.txt`. A first line
//! `# args: --size NAME --set NAME=VALUE …` sets what the command line would. `STATICGRAD_BLESS=1` rewrites the texts.

use super::errors;
use std::path::Path;

#[test]
fn texts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spec-errors");
    let bless = std::env::var_os("STATICGRAD_BLESS").is_some();
    let mut seen = 0;
    for entry in std::fs::read_dir(&folder).expect("the golden folder is in the repository") {
        let path = entry.expect("a readable folder").path();
        if path.extension().is_none_or(|e| e != "sg") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a readable spec");
        let args = text.lines().next().and_then(|l| l.strip_prefix("# args:")).unwrap_or("");
        let (mut size, mut overrides) = (None, Vec::new());
        let mut words = args.split_whitespace();
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            match option {
                "--size" => size = Some(value),
                _ => overrides.push(value.split_once('=').expect("NAME=VALUE")),
            }
        }
        let (rendered, count) = errors(&text, &overrides, size);
        let rendered: Vec<&str> = rendered.lines().map(without_ops).collect();
        let rendered = rendered.join("\n");
        let found = format!("{rendered}\n\nerrors: {count}\n");
        let golden = path.with_extension("txt");
        if bless {
            std::fs::write(&golden, &found).expect("a writable folder");
        }
        let wanted = std::fs::read_to_string(&golden).unwrap_or_default();
        assert!(found == wanted, "{} now gives\n{found}\ninstead of\n{wanted}", path.display());
        seen += 1;
    }
    assert!(seen >= 12, "only {seen} kinds of mistakes");
}

/// A line without the list of ops, which grows with the registry.
fn without_ops(line: &str) -> &str {
    let list = "the ops are";
    line.find(list).map_or(line, |at| &line[..at + list.len()])
}

#[test]
fn every_error_shows_place_line_and_caret() {
    let text = "model m\ndims { V = 10  C = 8 }\ngraph(tokens) -> logits {\n    logits = gelu(toke)\n}\n";
    let (rendered, count) = errors(text, &[], None);
    assert_eq!(count, 1);
    for part in ["test.sg:4:19", "    logits = gelu(toke)", "^^^^", "did you mean 'tokens'?"] {
        assert!(rendered.contains(part), "no {part} in\n{rendered}");
    }
}

#[test]
fn many_errors_are_counted() {
    let lines: String = (0..50).map(|i| format!("    a{i} = what{i}(tokens)\n")).collect();
    let (rendered, count) = errors(&format!("model m\ngraph(tokens) -> logits {{\n{lines}}}\n"), &[], None);
    assert_eq!(count, 51);
    assert!(rendered.ends_with("and 31 more errors"), "{rendered}");
}
