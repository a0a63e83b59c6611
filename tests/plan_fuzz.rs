//! Plans read from disk are untrusted: whatever is done to the bytes, loading answers with an error or with a plan that is sound.

mod sample_plans;

use proptest::prelude::*;
use sample_plans::{planned, training};
use serde_json::Value;
use staticgrad::passes::Layout;
use staticgrad::plan::container::{self, SectionKind, SectionSource};
use staticgrad::plan::report::Report;
use staticgrad::plan::{Plan, file};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Bytes of a sound plan file, and its plan section as JSON.
fn sample() -> &'static (Vec<u8>, Value, Plan) {
    static SAMPLE: OnceLock<(Vec<u8>, Value, Plan)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("a.plan");
        let plan = planned(4, Layout::Compact);
        file::save(&path, &plan).expect("saves");
        let json = serde_json::from_slice(&file::to_bytes(&plan)).expect("JSON");
        (std::fs::read(&path).expect("reads"), json, plan)
    })
}

/// A plan as JSON, and the paths of all values in it.
type Mutable = (Value, Vec<String>);

fn with_paths(json: Value) -> Mutable {
    let mut all = Vec::new();
    paths(&json, &mut Vec::new(), &mut all);
    (json, all)
}

fn inference_plan() -> &'static Mutable {
    static PLAN: OnceLock<Mutable> = OnceLock::new();
    PLAN.get_or_init(|| with_paths(sample().1.clone()))
}

fn training_plan() -> &'static Mutable {
    static PLAN: OnceLock<Mutable> = OnceLock::new();
    PLAN.get_or_init(|| {
        let bytes =
            file::to_bytes(&training(&[("L", "1"), ("C", "16"), ("H", "2"), ("V", "32"), ("T", "8")], 1, 8, true));
        with_paths(serde_json::from_slice(&bytes).expect("JSON"))
    })
}

fn load(bytes: &[u8]) -> Result<Plan, String> {
    let mut file = tempfile::NamedTempFile::new().expect("temporary file");
    std::io::Write::write_all(&mut file, bytes).expect("writes");
    file::load(file.path()).map_err(|e| e.to_string())
}

/// A plan file with sound checksums around a changed plan.
fn sealed(json: &Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("a.plan");
    let bytes = serde_json::to_vec(json).expect("JSON");
    let len = bytes.len() as u64;
    let source: SectionSource = (
        SectionKind::Plan,
        len,
        Box::new(move |w| w.write_all(&bytes).map_err(|e| staticgrad::error::Error::io("a.plan", "write", e))),
    );
    container::write(&path, vec![source]).expect("writes");
    (folder, path)
}

/// What must hold of every plan that is accepted: no two live buffers share a byte, each lies inside, tensors fit, and it can be shown.
fn assert_sound(plan: &Plan) {
    let end = plan.totals.persistent + plan.totals.transient;
    for (i, a) in plan.buffers.iter().enumerate() {
        assert!(a.lower < a.upper && a.offset % 64 == 0 && a.offset + a.size <= end, "{a:?}");
        for b in &plan.buffers[..i] {
            let time = a.lower.max(b.lower) < a.upper.min(b.upper);
            let space = a.offset.max(b.offset) < (a.offset + a.size).min(b.offset + b.size);
            assert!(!(time && space), "{a:?} and {b:?}");
        }
    }
    let report = Report::of(plan);
    assert_eq!(report.buffers.len(), plan.buffers.len());
}

/// Paths of all values inside a JSON value.
fn paths(value: &Value, at: &mut Vec<String>, out: &mut Vec<String>) {
    out.push(at.iter().map(|p| format!("/{}", p.replace('~', "~0").replace('/', "~1"))).collect());
    let mut visit = |key: String, child: &Value| {
        at.push(key);
        paths(child, at, out);
        at.pop();
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| visit(i.to_string(), v)),
        Value::Object(fields) => fields.iter().for_each(|(k, v)| visit(k.clone(), v)),
        _ => {}
    }
}

/// Numbers that break arithmetic.
const EXTREMES: [u64; 14] =
    [0, 1, 2, 63, 64, 65, 255, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 46) - 1, 1 << 47, i64::MAX as u64, u64::MAX];

/// Changes the value at a path: to an extreme, by a little, to another type, to a copy of another value, or by dropping, doubling or
/// swapping entries of a list.
fn mutate(json: &mut Value, path: &str, how: usize, extreme: usize, donor: &str) {
    let donated = json.pointer(donor).cloned().unwrap_or(Value::Null);
    let Some(value) = json.pointer_mut(path) else { return };
    let number = value.as_i64();
    *value = match (how % 9, number) {
        (0 | 1, _) => Value::from(EXTREMES[extreme % EXTREMES.len()]),
        (2, Some(n)) => Value::from(n.wrapping_add(1)),
        (3, Some(n)) => Value::from(n.wrapping_sub(1)),
        (4, Some(n)) => Value::from(n.wrapping_mul(2)),
        (4, None) => Value::Null,
        (5, _) => donated,
        (6, _) => Value::from(-1),
        (_, _) => {
            if let Value::Array(items) = value
                && !items.is_empty()
            {
                let (i, j) = (extreme % items.len(), (extreme * 7 + 3) % items.len());
                match how % 9 {
                    7 => drop(items.remove(i)),
                    _ if extreme.is_multiple_of(2) => items.swap(i, j),
                    _ => items.push(items[i].clone()),
                }
                return;
            }
            Value::from(format!("x{extreme}"))
        }
    };
}

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(500))]

    /// Checksums cover all but the padding before a section.
    #[test]
    fn flipped_bytes_are_noticed(at in any::<prop::sample::Index>(), bits in 1u8..) {
        let (bytes, _, plan) = sample();
        let mut bad = bytes.clone();
        bad[at.index(bytes.len())] ^= bits;
        match load(&bad) {
            Ok(loaded) => prop_assert_eq!(&loaded, plan),
            Err(message) => prop_assert_eq!(message.lines().count(), 1),
        }
    }

    #[test]
    fn truncated_and_extended_files_are_noticed(at in any::<prop::sample::Index>(), tail in prop::collection::vec(any::<u8>(), 0..40)) {
        let (bytes, _, plan) = sample();
        let cut = at.index(bytes.len());
        prop_assert!(load(&bytes[..cut]).is_err());
        let mut patched = bytes[..cut].to_vec();
        patched.extend(&tail);
        if let Ok(loaded) = load(&patched) {
            prop_assert_eq!(&loaded, plan);
        }
    }

    /// A liar who recomputes the checksums.
    #[test]
    fn changed_plans_are_refused_or_sound(
        training in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..9, 0usize..64, any::<prop::sample::Index>()), 1..4),
    ) {
        let (json, all) = if training { training_plan() } else { inference_plan() };
        let mut json = json.clone();
        for (at, how, extreme, donor) in changes {
            mutate(&mut json, &all[at.index(all.len())], how, extreme, &all[donor.index(all.len())]);
        }
        match file::from_bytes(Path::new("a.plan"), &serde_json::to_vec(&json).expect("JSON")) {
            Ok(plan) => assert_sound(&plan),
            Err(e) => prop_assert_eq!(e.to_string().lines().count(), 1, "{}", e),
        }
    }
}

/// The seal works: an unchanged plan under new checksums loads, so that refusals elsewhere are the verifier's.
#[test]
fn a_resealed_plan_loads() {
    let (_, json, plan) = sample();
    let (_folder, path) = sealed(json);
    assert_eq!(&file::load(&path).expect("sound"), plan);
}
