//! No text makes the compiler panic, hang or fill the memory.

use super::super::builtin;
use super::{attempt, errors};
use proptest::prelude::*;

/// One change of a text, at a place given in thousandths of its length.
#[derive(Clone, Debug)]
enum Edit {
    Delete(usize, usize),
    Insert(usize, String),
    Repeat(usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        ",",
        "=",
        "..",
        "->",
        "?",
        ":",
        "!",
        "-",
        "*",
        "/ 0",
        "%",
        "&&",
        "&",
        "\"",
        "'",
        "#",
        "\n",
        "é",
        "for i in 0..L {",
        "if tied {",
        "else",
        "return x",
        "block b(x: [C], p) -> [C] {",
        "graph(tokens) -> logits {",
        "dims {",
        "x",
        "h[i]",
        "1e999",
        "9999999999999999999",
        "0",
        "9223372036854775807",
        "C",
        "tokens",
        "mlp(x, h[0])",
        "linear(x, p, out = C)",
        "normal(1)",
        "sqrt(",
        "\u{0}",
        "\u{fe0f}",
        "\r\n",
        "\t",
    ]);
    prop_oneof![
        (0..1000usize, 1..40usize).prop_map(|(at, n)| Edit::Delete(at, n)),
        (0..1000usize, pieces).prop_map(|(at, s)| Edit::Insert(at, format!(" {s} "))),
        (0..1000usize, 1..80usize).prop_map(|(at, n)| Edit::Repeat(at, n)),
    ]
}

fn apply(text: &str, edits: &[Edit]) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    for edit in edits {
        let place = |at: &usize| at * chars.len() / 1000;
        match edit {
            Edit::Delete(at, n) => drop({
                let from = place(at);
                chars.drain(from..(from + n).min(chars.len()))
            }),
            Edit::Insert(at, s) => {
                let from = place(at);
                chars.splice(from..from, s.chars());
            }
            Edit::Repeat(at, n) => {
                let from = place(at);
                let again = chars[from..(from + n).min(chars.len())].to_vec();
                chars.splice(from..from, again);
            }
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_specs_never_panic(gpt2: bool, edits in prop::collection::vec(edit(), 1..5)) {
        let spec = builtin(if gpt2 { "gpt2" } else { "llama" }).expect("built in");
        let text = apply(&spec.text, &edits);
        // The graph or errors with a place; both are fine.
        let _ = attempt(&text, &[("L", "2")], None);
    }

    #[test]
    fn noise_never_panics(text in ".{0,200}", value in ".{0,20}") {
        let _ = attempt(&text, &[("C", &value)], Some("small"));
    }
}

#[test]
fn nesting_is_limited() {
    let n = 100_000;
    let inside = |expr: String| format!("model m\ndims {{ V = 1 }}\ngraph(tokens) -> logits {{\n logits = {expr}\n}}");
    let texts = [
        inside("(".repeat(n)),
        inside("-".repeat(n)),
        inside("!".repeat(n)),
        inside("[".repeat(n)),
        inside("gelu(".repeat(n)),
        inside("a ? ".repeat(n)),
        inside("a ? b : ".repeat(n)),
        inside(format!("tokens{}", " + tokens".repeat(n))),
        inside(format!("h{}", ".x".repeat(n))),
        inside(format!("h{}", "[0]".repeat(n))),
        inside("x\n if V == 1 {".repeat(n / 10)),
        inside(format!("x\n if V == 2 {{ }} {}", "else if V == 2 { } ".repeat(n / 10))),
        format!("model m\ndims {{ {} }}", (0..n / 10).map(|i| format!("A{i} = A{} ", i + 1)).collect::<String>()),
        (0..n / 10).map(|i| format!("block b{i}(x) {{ return b{}(x) }}\n", i + 1)).collect::<String>()
            + "graph(tokens) -> logits { logits = b0(tokens) }",
    ];
    for text in texts {
        let (rendered, count) = errors(&text, &[], None);
        assert!(count > 0 && !rendered.is_empty());
    }
}

#[test]
fn work_is_limited() {
    let spec = |body: &str| format!("model m\ndims {{ V = 2  N = 1000000 }}\ngraph(tokens) -> logits {{\n{body}\n}}");
    let loops = spec("for i in 0..N { for j in 0..N { for k in 0..N { } } }");
    assert!(errors(&loops, &[], None).0.contains("steps"));
    let paths = spec("p = h\nfor i in 0..N { p = p.abcdefgh }");
    assert!(errors(&paths, &[], None).0.contains("characters"));
    let doubling = spec("a = tokens\nfor i in 0..N { a = embedding(tokens, wte, rows = V, width = V) }\nlogits = a");
    assert!(errors(&doubling, &[], None).0.contains("nodes"));
    let names: String = (0..12_000).map(|i| format!("block name{i}(x) {{ return x }}\n")).collect();
    let calls: String = (0..12_000).map(|i| format!("a{i} = nome{i}(tokens)\n")).collect();
    assert!(errors(&(names + &spec(&calls)), &[], None).1 > 20);
    assert!(errors(&spec("for i in 0..N { a = gelu(tokns) }"), &[], None).0.contains("tokns"));
    let long = "# ".repeat(1 << 20);
    assert!(attempt(&long, &[], None).expect_err("too long").to_string().contains("limit"));
}
