//! The real `plan-dump` binary on plans of small models.

mod sample_plans;

use sample_plans::planned;
use staticgrad::passes::Layout;
use staticgrad::plan::file::PlanFile;
use staticgrad::plan::report::Report;
use staticgrad::plan::{Plan, file};
use staticgrad::weights::Entry;
use std::path::Path;
use std::process::{Command, Output};

fn plan_dump(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_plan-dump")).args(arguments).output().expect("plan-dump runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// A folder with `a.plan` in it.
fn saved(plan: &Plan) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("a.plan");
    file::save(&path, plan).expect("saves");
    (folder, path.to_str().expect("UTF-8").to_string())
}

#[test]
fn text_lists_every_buffer_and_the_totals() {
    let plan = planned(4, Layout::Compact);
    let (_folder, path) = saved(&plan);
    let output = plan_dump(&["show", &path]);
    assert!(output.status.success());
    let text = stdout(&output);
    for b in &plan.buffers {
        assert!(text.contains(&b.name), "{} is missing from\n{text}", b.name);
    }
    for total in [plan.totals.persistent, plan.totals.transient, plan.totals.max_load] {
        assert!(text.contains(&format!("({total} bytes)")), "{total} is missing from\n{text}");
    }
    assert!(text.contains("fragmentation") && text.contains("peak: "));
}

#[test]
fn csv_has_the_columns_of_minimalloc_and_places_again() {
    let plan = planned(4, Layout::Compact);
    let (folder, path) = saved(&plan);
    let text = stdout(&plan_dump(&["show", &path, "--format", "csv"]));
    assert_eq!(text.lines().next(), Some("id,lower,upper,size,offset"));
    assert_eq!(text.lines().count(), 1 + plan.buffers.len());
    let free: String = text.lines().map(|line| line.rsplit_once(',').expect("columns").0.to_string() + "\n").collect();
    let csv = folder.path().join("free.csv");
    std::fs::write(&csv, free).expect("writes");
    let placed = stdout(&plan_dump(&["place", csv.to_str().expect("UTF-8")]));
    let bound = plan.totals.persistent + plan.totals.max_load;
    assert!(placed.contains(&format!("bound         {bound}\n")), "{placed}");
}

#[test]
fn json_follows_its_schema() {
    let plan = planned(4, Layout::Compact);
    let (_folder, path) = saved(&plan);
    let text = stdout(&plan_dump(&["show", &path, "--format", "json"]));
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["schema"], "staticgrad.plan");
    assert_eq!(report["version"], 1);
    assert_eq!(report["buffers"].as_array().map(Vec::len), Some(plan.buffers.len()));
    assert_eq!(report["totals"]["max_load"], plan.totals.max_load);
    assert_eq!(report["peak"]["bytes"], plan.totals.max_load);
    let load: Vec<u64> = report["load"].as_array().expect("a list").iter().filter_map(|n| n.as_u64()).collect();
    assert_eq!(load.len(), plan.graph.nodes.len());
    assert_eq!(load.iter().max(), Some(&plan.totals.max_load));
}

#[test]
fn damaged_files_are_refused_in_one_line() {
    let (_folder, path) = saved(&planned(4, Layout::Compact));
    let check = plan_dump(&["check", &path]);
    assert_eq!(check.status.code(), Some(0));
    assert!(stdout(&check).contains("sound"));
    let mut bytes = std::fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes).expect("writes");
    for arguments in [&["check", &path][..], &["show", &path], &["show", &path, "--format", "json"]] {
        let output = plan_dump(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let message = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(message.lines().count() == 1 && message.contains("checksum"), "{message}");
    }
    let missing = Path::new(&path).with_extension("no");
    assert_eq!(plan_dump(&["check", missing.to_str().expect("UTF-8")]).status.code(), Some(1));
}

/// A start of the program reads header and plan; `check` compares every section, and every packed weight, of which it names the one that
/// is damaged.
#[test]
fn check_finds_a_changed_bit_in_every_weight_and_section() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("model.plan");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/gpt2-tiny");
    let made = Command::new(env!("CARGO_BIN_EXE_staticgrad"))
        .args(["compile".as_ref(), model.as_os_str(), "--weights".as_ref(), model.as_os_str(), "-o".as_ref()])
        .arg(&path)
        .output()
        .expect("staticgrad runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let name = path.to_str().expect("UTF-8");
    let sound = plan_dump(&["check", name]);
    assert!(sound.status.success() && stdout(&sound).contains("; 28 weights, "), "{}", stdout(&sound));
    let (section, entries) =
        PlanFile::open(&path).and_then(|f| f.weight_index::<Entry>()).expect("reads").expect("holds weights");
    let bytes = std::fs::read(&path).expect("reads");
    let refused = |at: usize| {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&path, &damaged).expect("writes");
        let output = plan_dump(&["check", name]);
        assert_eq!(output.status.code(), Some(1), "byte {at}");
        assert!(output.stdout.is_empty(), "{}", stdout(&output));
        let message = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(message.lines().count() == 1, "{message}");
        message
    };
    for (i, entry) in entries.iter().enumerate() {
        let message = refused(section.offset + entry.offset + [0, entry.len / 2, entry.len - 1][i % 3]);
        assert!(message.contains(&entry.name) && message.contains("checksum"), "{message}");
    }
    // Header, and first and last byte of every section.
    std::fs::write(&path, &bytes).expect("writes");
    let sections = PlanFile::open(&path).expect("opens").sections().to_vec();
    assert_eq!(sections.len(), 4);
    (0..24).for_each(|at| drop(refused(at)));
    for s in sections {
        for message in [s.offset, s.offset + s.len - 1].map(refused) {
            assert!(message.contains("checksum"), "{:?}: {message}", s.kind);
        }
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [&["show"][..], &["check"], &["show", "x", "--format", "gif"], &["frobnicate"], &[]] {
        assert_eq!(plan_dump(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(plan_dump(&["show", "--help"]).status.code(), Some(0));
}

#[test]
fn why_names_the_last_reader_and_the_peak_without_it() {
    let plan = planned(4, Layout::Compact);
    let (_folder, path) = saved(&plan);
    let report = Report::of(&plan);
    let largest = &report.peak.buffers[0];
    assert!(largest.without < report.peak.bytes, "a single step has the peak of this model");
    let text = stdout(&plan_dump(&["show", &path, "--why", &largest.id]));
    assert!(text.contains(&largest.id) && text.contains("without it, the peak would be"), "{text}");
    let taken_over = report.buffers.iter().find(|b| b.tensors.len() > 1).expect("something happens in place");
    let text = stdout(&plan_dump(&["show", &path, "--why", &taken_over.tensors[1].name]));
    assert!(text.contains(&format!("in place of {}", taken_over.tensors[0].name)), "{text}");
    let unknown = plan_dump(&["show", &path, "--why", "h.0.mlp.c_prok"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean 'h.0."));
}

#[test]
fn colour_only_where_it_is_wanted() {
    let (_folder, path) = saved(&planned(4, Layout::Compact));
    assert!(!stdout(&plan_dump(&["show", &path])).contains('\u{1b}'), "a pipe is no terminal");
    assert!(stdout(&plan_dump(&["show", &path, "--color", "always"])).contains("\u{1b}[36m"));
}

#[test]
fn diff_fails_when_the_peak_grew() {
    let (folder, a) = saved(&planned(4, Layout::Compact));
    let b = folder.path().join("b.plan");
    file::save(&b, &planned(8, Layout::Compact)).expect("saves");
    let b = b.to_str().expect("UTF-8");
    let grown = plan_dump(&["diff", &a, b]);
    assert_eq!(grown.status.code(), Some(1));
    let text = stdout(&grown);
    assert!(text.contains("resized: ") && text.contains("the peak grew"), "{text}");
    let shrunk = plan_dump(&["diff", b, &a, "--format", "json"]);
    assert_eq!(shrunk.status.code(), Some(0));
    let diff: serde_json::Value = serde_json::from_str(&stdout(&shrunk)).expect("JSON");
    assert!(diff["flops"][0].as_f64() > diff["flops"][1].as_f64());
    let same = plan_dump(&["diff", &a, &a]);
    assert_eq!(same.status.code(), Some(0));
    assert!(stdout(&same).contains("the same buffers at the same places"));
}

#[test]
fn dot_has_every_node_once() {
    let plan = planned(4, Layout::Compact);
    let (_folder, path) = saved(&plan);
    let text = stdout(&plan_dump(&["show", &path, "--format", "dot"]));
    for n in 0..plan.graph.nodes.len() {
        assert_eq!(text.matches(&format!("    n{n} [label=")).count(), 1, "node {n}");
    }
    assert!(text.starts_with("digraph \"gpt2\" {") && text.ends_with("}\n"));
}

#[test]
fn pictures_stand_alone_and_show_every_transient_buffer() {
    let plan = planned(4, Layout::Compact);
    let (_folder, path) = saved(&plan);
    let svg = stdout(&plan_dump(&["show", &path, "--format", "svg", "--budget", "1MiB"]));
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    let transient = plan.buffers.iter().filter(|b| !b.kind.is_persistent()).count();
    assert_eq!(svg.matches(" edge\" x=").count(), transient);
    let page = Path::new(&path).with_extension("html");
    let page = page.to_str().expect("UTF-8");
    let output = plan_dump(&["show", &path, "--format", "html", "-o", page]);
    assert!(output.status.success() && output.stdout.is_empty());
    let html = std::fs::read_to_string(page).expect("reads");
    assert!(html.starts_with("<!doctype html>") && !html.contains("{{") && !html.contains("://"));
    for b in &plan.buffers {
        assert!(html.contains(&format!("\"name\":\"{}\"", b.name)), "{}", b.name);
    }
}

/// Names in a plan file are anybody's text; they must not become markup, terminal commands or other columns.
#[test]
fn hostile_names_stay_text() {
    const EVIL: &str = "a,\"b\"\u{1b}[31m</script><script>alert(1)</script>\n'&\\";
    let mut plan = planned(4, Layout::Compact);
    let b = plan.buffers.iter().position(|b| !b.kind.is_persistent()).expect("a transient buffer");
    let tensor = plan.graph.find(&plan.buffers[b].name).expect("the buffer is named after a tensor");
    plan.graph.tensors[tensor.index()].name = EVIL.into();
    plan.buffers[b].name = EVIL.into();
    plan.graph.nodes[1].name = EVIL.into();
    let scratch = plan.node_scratch[1];
    scratch.iter().for_each(|&s| plan.buffers[s as usize].name = EVIL.into());
    let (_folder, path) = saved(&plan);
    for format in ["text", "csv", "dot", "svg", "html", "json"] {
        let text = stdout(&plan_dump(&["show", &path, "--format", format]));
        assert!(!text.is_empty() && !text.contains('\u{1b}'), "{format}");
        assert!(matches!(format, "text" | "json" | "dot" | "csv") || !text.contains("<script>alert"), "{format}");
        if format == "csv" {
            assert_eq!(text.lines().count(), 1 + plan.buffers.len());
            assert!(text.lines().all(|line| line.split(',').count() == 5), "{text}");
        }
    }
    let why = stdout(&plan_dump(&["show", &path, "--why", EVIL]));
    assert!(why.contains("alert(1)") && !why.contains('\u{1b}'));
}

#[test]
fn training_plans_show_their_parts() {
    let plan = sample_plans::training(sample_plans::TINY, 2, 16, false);
    let (_folder, path) = saved(&plan);
    let text = stdout(&plan_dump(&["show", &path, "--format", "json"]));
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sections: Vec<&str> =
        report["bands"].as_array().expect("a list").iter().filter_map(|b| b["section"].as_str()).collect();
    assert_eq!(sections, ["forward", "backward", "update"]);
    for kind in ["parameter", "state", "saved", "activation_gradient", "parameter_gradient"] {
        let has = report["buffers"].as_array().expect("a list").iter().any(|b| b["kind"] == kind);
        assert!(has, "no {kind}");
    }
    assert!(stdout(&plan_dump(&["show", &path])).contains("backward"));
}
