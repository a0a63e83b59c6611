//! What a measured training step is printed as: a few lines, or one JSON object.

use super::super::super::output::line;
use super::{BenchArgs, Measured, is_product};
use crate::plan::Plan;
use serde_json::json;

impl Measured {
    fn best(&self) -> f64 {
        self.steps[0]
    }

    fn flops(&self) -> f64 {
        self.kinds.iter().map(|k| k.flops).sum()
    }

    /// Seconds and operations of the kinds that `is` names.
    fn sum(&self, is: impl Fn(&str) -> bool) -> (f64, f64) {
        let kinds = self.kinds.iter().filter(|k| is(&k.op));
        kinds.fold((0.0, 0.0), |(seconds, flops), k| (seconds + k.seconds, flops + k.flops))
    }
}

/// Prints the steps of `results`, on `threads` threads and, if measured, on one.
pub(super) fn print(args: &BenchArgs, plan: &Plan, model: &str, threads: usize, results: &[Measured]) {
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    let m = &results[0];
    let (best, median) = (m.best(), m.steps[m.steps.len() / 2]);
    let [forward, backward, optimiser] = m.sections;
    let (product_seconds, product_flops) = m.sum(is_product);
    let products = product_flops / product_seconds;
    let percent_of = |limit: f64| 100.0 * products / limit;
    let (percent_of_peak, percent_of_best_pass) =
        (percent_of(m.limits.products.mean), percent_of(m.limits.products.best));
    let percent_of_stream = 100.0 * m.stream_share;
    let percent_of_limit = 100.0 * m.flops() / best / m.limits.products.best;
    // How many times faster the threads are than one, and how many times their arithmetic is.
    let scaling = results.get(1).map(|one| (one.best() / best, m.limits.products.best / one.limits.products.best));
    let (rows, dtype) = (plan.capacity.step_rows as f64, args.train.precision.as_str());
    if args.json {
        let mut object = json!({
            "what": "train", "model": model, "dtype": dtype, "threads": threads, "rows": plan.capacity.step_rows,
            "batch": plan.capacity.slots, "context": plan.capacity.context,
            "best": round(1e3 * best), "median": round(1e3 * median), "unit": "ms/step", "percent_of_limit": round(percent_of_limit),
            "tokens_per_second": round(rows / best), "gflops": round(m.flops() / best / 1e9),
            "forward_ms": round(1e3 * forward), "backward_ms": round(1e3 * backward), "optimiser_ms": round(1e3 * optimiser),
            "products_ms": round(1e3 * product_seconds), "products_gflops": round(products / 1e9),
            "products_percent_of_peak": round(percent_of_peak),
            "products_percent_of_best_pass": round(percent_of_best_pass), "optimiser_percent_of_stream": round(percent_of_stream),
            "peak_gflops": round(m.limits.products.mean / 1e9), "stream_gb_per_second": round(m.limits.update / 1e9),
        });
        if let Some((step, peak)) = scaling {
            object["scaling"] = json!(round(step));
            object["peak_scaling"] = json!(round(peak));
            object["scaling_of_peak_scaling"] = json!(round(step / peak));
        }
        return line(&object.to_string());
    }
    line(&format!(
        "{:<22} {model:<24} {dtype:<6} best {:>10.2} ms/step   median {:>10.2}  {percent_of_limit:>5.1} % of the limit",
        format!("train {}x{}", plan.capacity.slots, plan.capacity.context),
        1e3 * best,
        1e3 * median,
    ));
    line(&format!(
        "  {:.1} tokens/s, {:.1} GFLOP/s; forward {:.1} ms, backward {:.1} ms, optimiser {:.1} ms",
        rows / best,
        m.flops() / best / 1e9,
        1e3 * forward,
        1e3 * backward,
        1e3 * optimiser
    ));
    line(&format!(
        "  products {:.1} ms at {:.1} GFLOP/s, {percent_of_peak:.1} % of the {:.1} beside it ({percent_of_best_pass:.1} % of the fastest pass); optimiser at {percent_of_stream:.1} % of the stream of {:.1} GB/s beside it",
        1e3 * product_seconds,
        products / 1e9,
        m.limits.products.mean / 1e9,
        m.limits.update / 1e9
    ));
    if let Some((step, peak)) = scaling {
        line(&format!(
            "  {threads} threads take a step {step:.3} times as fast as one, and their arithmetic is {peak:.3} times as fast: {:.3}",
            step / peak
        ));
    }
}
