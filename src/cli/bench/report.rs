//! A measured line, for people or as JSON.

use super::super::output::line;
use super::BenchArgs;
use super::speed::Limit;
use serde_json::json;

/// One measured line.
pub struct Measured<'a> {
    pub what: &'a str,
    pub model: &'a str,
    pub dtype: &'a str,
    pub rows: usize,
    pub best: f64,
    pub median: f64,
    pub unit: &'a str,
    pub percent_of_limit: f64,
    /// Bytes and operations a second, of a model's runs.
    pub rates: Option<(f64, f64)>,
    pub limit: Option<Limit>,
}

/// Prints a line, or one JSON object.
pub fn print(args: &BenchArgs, threads: usize, m: &Measured) {
    let round = |x: f64| (x * 1000.0).round() / 1000.0;
    if args.json {
        let mut object = json!({
            "what": m.what, "model": m.model, "dtype": m.dtype, "threads": threads, "rows": m.rows,
            "best": round(m.best), "median": round(m.median), "unit": m.unit, "percent_of_limit": round(m.percent_of_limit),
        });
        if let Some((bytes, flops)) = m.rates {
            object["gb_per_second"] = json!(round(bytes / 1e9));
            object["gflops"] = json!(round(flops / 1e9));
        }
        if let Some(limit) = m.limit {
            object["limit_giga_per_second"] = json!(round(limit.median / 1e9));
            object["percent_of_best_pass"] = json!(round(limit.percent_of_best_pass));
        }
        line(&object.to_string());
    } else {
        let rates = m.rates.map_or_else(String::new, |(bytes, flops)| {
            format!("  {:>6.2} GB/s {:>7.1} GFLOP/s", bytes / 1e9, flops / 1e9)
        });
        let limit = m.limit.map_or_else(String::new, |limit| {
            let beside = limit.median / 1e9;
            let beside = match m.what {
                "decode" => format!("reads at {beside:.1} GB/s"),
                _ => format!("{beside:.1} GFLOP/s"),
            };
            format!(" ({beside} beside it; best run {:.1} % of the fastest pass)", limit.percent_of_best_pass)
        });
        line(&format!(
            "{:<22} {:<24} {:<6} best {:>10.2} {:<9} median {:>10.2}{rates}  {:>5.1} % of the limit{limit}",
            m.what, m.model, m.dtype, m.best, m.unit, m.median, m.percent_of_limit
        ));
    }
}
