//! `plan-dump place`, the planner as a tool of its own: what it prints, when it fails, and what it says of files that it cannot read.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use staticgrad::plan::placement::{csv, verify};

fn place(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plan-dump"));
    command.arg("place").args(arguments).output().expect("plan-dump runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

/// A file with this text in a folder of its own.
fn file(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("in.csv");
    std::fs::write(&path, text).expect("writes");
    let path = path.to_str().expect("UTF-8").to_string();
    (folder, path)
}

/// The value that a line of the report gives for a name.
fn line(report: &str, name: &str) -> String {
    let found = report.lines().find_map(|l| l.strip_prefix(name).filter(|rest| rest.starts_with(' ')));
    found.unwrap_or_else(|| panic!("no {name} in\n{report}")).trim().to_string()
}

/// What a run placed, proved legal again.
fn placed(out: &Path) -> csv::Table {
    let table = csv::read(out, &std::fs::read_to_string(out).expect("written")).expect("reads back");
    let offsets: Vec<u64> = table.buffers.iter().map(|b| b.fixed.expect("every buffer has an offset")).collect();
    let arena = table.buffers.iter().zip(&offsets).map(|(b, o)| o + b.size).max().unwrap_or(0);
    assert_eq!(verify(&table.buffers, &offsets, arena), Ok(()));
    table
}

/// Two that fit side by side, and one over both.
const EASY: &str = "id,lower,upper,size\na,0,4,10\nb,4,8,10\nc,2,6,5\n";

#[test]
fn the_report_says_arena_bound_status_and_time() {
    let (folder, path) = file(EASY);
    let out = folder.path().join("out.csv");
    let output = place(&[&path, "-o", out.to_str().expect("UTF-8")]);
    assert_eq!(output.status.code(), Some(0));
    let report = stdout(&output);
    assert_eq!((line(&report, "arena").as_str(), line(&report, "bound").as_str()), ("15", "15"));
    assert_eq!(line(&report, "status"), "optimal (= bound)");
    assert!(line(&report, "milliseconds").parse::<f64>().is_ok_and(|ms| ms >= 0.0));
    assert_eq!(placed(&out).ids, ["a", "b", "c"]);
}

#[test]
fn the_input_is_not_written_over() {
    let (_folder, path) = file(EASY);
    let refused = place(&[&path, "-o", &path]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("would be overwritten"));
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), EASY);
}

#[test]
fn an_arena_above_the_bound_is_proved() {
    let (_folder, path) = file("id,lower,upper,size,alignment\na,6,7,5,8\nb,2,7,6,\nc,5,7,3,8\n");
    let report = stdout(&place(&[&path]));
    assert_eq!((line(&report, "arena").as_str(), line(&report, "bound").as_str()), ("17", "14"));
    assert_eq!(line(&report, "status"), "proved");
}

#[test]
fn a_capacity_that_is_not_met_is_exit_code_1() {
    let (_folder, path) = file(EASY);
    for (capacity, code, verdict) in [("15", 0, "met"), ("1MiB", 0, "met"), ("14", 1, "cannot be met")] {
        for minimise in [&[][..], &["--minimize"]] {
            let output = place(&[&[path.as_str(), "--capacity", capacity], minimise].concat());
            assert_eq!(output.status.code(), Some(code), "{capacity}");
            assert!(line(&stdout(&output), "capacity").ends_with(verdict), "{}", stdout(&output));
        }
    }
}

#[test]
fn alignments_and_offsets_of_the_file_hold() {
    let text =
        "id,lower,upper,size,alignment,offset\nhere,0,9,16,8,64\na,0,5,20,16,\nb,3,9,20,16,\nc,5,7,4,,\nzero,0,9,0,,\n";
    let (folder, path) = file(text);
    let out = folder.path().join("out.csv");
    let out_name = out.to_str().expect("UTF-8");
    assert!(place(&[&path, "-o", out_name]).status.success());
    let table = placed(&out);
    assert_eq!(table.buffers[0].fixed, Some(64));
    assert!(table.buffers.iter().all(|b| b.fixed.is_some_and(|o| o % b.align == 0)));
    assert_eq!(table.buffers[1].align, 16);
    // What has been placed stays, unless its offsets are to be ignored: then the one in the way moves.
    let again = folder.path().join("again.csv");
    let again_name = again.to_str().expect("UTF-8");
    assert!(place(&[out_name, "-o", again_name]).status.success());
    assert_eq!(placed(&again), table);
    assert!(place(&[out_name, "--ignore-offsets", "-o", again_name]).status.success());
    let arena = |t: &csv::Table| t.buffers.iter().map(|b| b.fixed.unwrap_or(0) + b.size).max();
    assert!(arena(&placed(&again)) < arena(&table), "the fixed one was higher than need be");
}

#[test]
fn standard_input_will_do() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plan-dump"));
    let mut child =
        command.args(["place", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("plan-dump runs");
    child.stdin.take().expect("a pipe").write_all(EASY.as_bytes()).expect("writes");
    let report = stdout(&child.wait_with_output().expect("ends"));
    assert_eq!(line(&report, "arena"), "15");
}

/// A guillotine cutting of a rectangle without a hole, too hard to solve in no time.
fn hard() -> String {
    let mut state = 9u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut pieces = vec![(0u64, 4096u64, 0u64, 4096u64)];
    while pieces.len() < 300 {
        let k = random(pieces.len() as u64) as usize;
        let (l, u, bottom, top) = pieces.swap_remove(k);
        match random(2) {
            0 if u - l > 1 => {
                let cut = l + 1 + random(u - l - 1);
                pieces.extend([(l, cut, bottom, top), (cut, u, bottom, top)]);
            }
            _ if top - bottom > 1 => {
                let cut = bottom + 1 + random(top - bottom - 1);
                pieces.extend([(l, u, bottom, cut), (l, u, cut, top)]);
            }
            _ => pieces.push((l, u, bottom, top)),
        }
    }
    let rows = pieces.iter().enumerate().map(|(i, (l, u, bottom, top))| format!("{i},{l},{u},{}\n", top - bottom));
    "id,lower,upper,size\n".to_string() + &rows.collect::<String>()
}

#[test]
fn without_a_time_limit_results_are_the_same_bytes_and_with_one_they_are_marked() {
    let (folder, path) = file(&hard());
    let outs: Vec<PathBuf> = (0..2).map(|i| folder.path().join(format!("{i}.csv"))).collect();
    let reports: Vec<String> = outs
        .iter()
        .map(|out| stdout(&place(&[&path, "--effort", "3000", "-o", out.to_str().expect("UTF-8")])))
        .collect();
    assert_eq!(std::fs::read(&outs[0]).expect("written"), std::fs::read(&outs[1]).expect("written"));
    for name in ["arena", "status", "found by", "search nodes"] {
        assert_eq!(line(&reports[0], name), line(&reports[1], name));
    }
    let status = line(&stdout(&place(&[&path, "--minimize", "--time-limit", "0"])), "status");
    assert!(status.starts_with("gap ") && status.ends_with("% (cut by time)"), "{status}");
}

#[test]
fn files_that_are_no_problem_are_refused_in_one_helpful_line() {
    let cases = [
        ("", "empty; expected a header"),
        ("1,2,3,4\n", "line 1: unknown column '1'; known are id, lower, upper, size"),
        ("id,lower,upper,size\na,0,4\n", "line 2: 3 fields where the header has 4"),
        ("id,lower,upper,size\na,0,4,1e3\n", "line 2: size '1e3' is not a whole number"),
        ("id,lower,upper,size\na,4,0,8\n", "line 2: lifespan [4, 0) of 'a' is empty"),
        ("id,lower,upper,size\na,0,4,8\na,0,4,8\n", "line 3: id 'a' is already used in line 2"),
        ("id,lower,upper,size,offset\na,0,4,8,0\nb,0,4,8,4\n", "overlap while both are live"),
        ("id,lower,upper,size,alignment,offset\na,0,4,8,8,4\n", "is not a multiple of its alignment"),
        ("id,lower,upper,size\na,0,4,9223372036854775807\nb,0,4,9\n", "2^63 bytes or more"),
    ];
    for (text, message) in cases {
        let (folder, path) = file(text);
        let out = folder.path().join("out.csv");
        let output = place(&[&path, "-o", out.to_str().expect("UTF-8")]);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let error = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(error.contains(message) && error.lines().count() == 1, "{error}");
        assert!(output.stdout.is_empty() && !out.exists(), "nothing is half done");
    }
    let missing = place(&["/no/such/file.csv"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such/file.csv"));
    for usage in [&["x", "--time-limit", "-1"][..], &["x", "--capacity", "many"], &["x", "--effort", "1.5"], &[]] {
        assert_eq!(place(usage).status.code(), Some(2), "{usage:?}");
    }
}
