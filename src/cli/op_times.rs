//! Time and work of kinds of ops, as `--profile` prints them.

use crate::graph::Node;

/// Time and work of all nodes of one op.
pub struct OpTimes {
    pub op: String,
    pub seconds: f64,
    pub flops: f64,
    pub bytes: f64,
    /// Seconds at the limit of the machine: at the measured peak, or at the measured bandwidth when that is more.
    pub least: f64,
}

/// Adds a node's time and work, as in `(flops, bytes, least)`, to those of its op.
pub fn add(kinds: &mut Vec<OpTimes>, node: &Node, seconds: f64, (flops, bytes, least): (f64, f64, f64)) {
    match kinds.iter_mut().find(|k| k.op == node.op) {
        Some(k) => {
            (k.seconds, k.flops) = (k.seconds + seconds, k.flops + flops);
            (k.bytes, k.least) = (k.bytes + bytes, k.least + least);
        }
        None => kinds.push(OpTimes { op: node.op.clone(), seconds, flops, bytes, least }),
    }
}

/// The table, slowest first. `% of limit` is `least` over the time it took; what stays in the caches can exceed 100.
pub fn table(kinds: &mut [OpTimes]) -> String {
    kinds.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let total: f64 = kinds.iter().map(|k| k.seconds).sum();
    let mut text = format!(
        "{:<26} {:>10} {:>7} {:>10} {:>10} {:>9} {:>11}\n",
        "op", "ms", "%", "MB", "GFLOP/s", "GB/s", "% of limit"
    );
    for k in kinds.iter().filter(|k| k.seconds > 0.0) {
        text += &format!(
            "{:<26} {:>10.3} {:>7.1} {:>10.2} {:>10.1} {:>9.2} {:>11.1}\n",
            k.op,
            1e3 * k.seconds,
            100.0 * k.seconds / total,
            k.bytes / 1e6,
            k.flops / k.seconds / 1e9,
            k.bytes / k.seconds / 1e9,
            100.0 * k.least / k.seconds
        );
    }
    text
}
