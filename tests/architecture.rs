//! The house's arrows: which module may use which. A line `use crate::…` (or a path `crate::…`) that the table does not allow fails.

use std::path::{Path, PathBuf};

/// Module, and what it may use beside itself, `error` and `tensor`.
const MAY_USE: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("tensor", &[]),
    ("disk", &[]),
    ("kernels", &[]),
    ("graph", &[]),
    ("ops", &["kernels", "graph"]),
    ("spec", &["graph", "ops"]),
    ("passes", &["graph", "ops"]),
    ("plan", &["disk", "graph", "ops", "passes"]),
    ("weights", &["disk", "graph", "kernels"]),
    ("exec", &["graph", "plan", "passes", "ops", "kernels"]),
    ("text", &["weights", "kernels"]),
    ("train", &["exec", "plan", "passes", "spec", "graph", "weights", "text", "kernels", "ops", "disk"]),
    (
        "cli",
        &[
            "error", "tensor", "disk", "kernels", "ops", "graph", "spec", "passes", "plan", "weights", "exec", "text",
            "train",
        ],
    ),
    ("main", &["cli"]),
    ("lib", &[]),
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("the source folder can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// First path segments after each `crate::` outside of comments; `{a, b::c}` gives both.
fn used(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or("");
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let list = rest.strip_prefix('{').map_or(rest, |r| r.split('}').next().unwrap_or(r));
        let several = rest.starts_with('{');
        for item in list.split(',').take(if several { usize::MAX } else { 1 }) {
            let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() && name.chars().next().is_some_and(char::is_lowercase) {
                names.push(name);
            }
        }
    }
    names
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut arrows = 0;
    for file in files {
        let relative = file.strip_prefix(&root).expect("inside src");
        let first = relative.iter().next().expect("a path").to_string_lossy();
        let module = first.trim_end_matches(".rs").to_string();
        let Some((_, allowed)) = MAY_USE.iter().find(|(m, _)| *m == module) else {
            wrong.push(format!("{}: module '{module}' is not in the table", relative.display()));
            continue;
        };
        let text = std::fs::read_to_string(&file).expect("UTF-8 source");
        for (number, line) in text.lines().enumerate() {
            for name in used(line) {
                arrows += 1;
                let common = ["error", "tensor"].contains(&name.as_str()) || name == module;
                if !common && !allowed.contains(&name.as_str()) {
                    wrong.push(format!("{}:{}: {module} uses {name}", relative.display(), number + 1));
                }
            }
        }
    }
    assert!(arrows > 100, "only {arrows} arrows were found; the scan is broken");
    assert!(wrong.is_empty(), "arrows that the table does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_sees_every_way_to_write_an_arrow() {
    assert_eq!(used("use crate::graph::{Graph, NodeId};"), ["graph"]);
    assert_eq!(used("use crate::{graph::Graph, plan, ops::Op};"), ["graph", "plan", "ops"]);
    assert_eq!(used("    let x = crate::exec::run(crate::plan::p());"), ["exec", "plan"]);
    assert!(used("// use crate::exec").is_empty());
}
