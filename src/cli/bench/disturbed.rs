//! `bench --what disturbed`: how much slower a model is beside a busy process, and with four times as many threads as cores.

use super::super::model::Model;
use super::competitor::Competitor;
use super::speed::{Work, best_and_median};
use crate::error::Result;
use crate::exec::Session;

/// Time over the undisturbed time, of the run that suffered least and of the median one.
pub struct Slowdown {
    /// What was timed.
    pub work: Work,
    /// What disturbed it.
    pub by: &'static str,
    /// Threads of the model.
    pub threads: usize,
    /// Ratio of the times.
    pub best: f64,
    /// See `best`.
    pub median: f64,
}

/// Measures `work` in turn undisturbed, beside one busy process, and with four threads a core.
///
/// # Errors
/// Weights that do not load; rows that do not fit; a competitor that does not start.
pub fn measure(model: &Model, work: Work, threads: usize, repeat: usize) -> Result<[Slowdown; 2]> {
    let work = work.fitting(model)?;
    let (plan, store) = work.load(model)?;
    let param = |name: &str| store.get(name);
    let many = 4 * std::thread::available_parallelism().map_or(1, |n| n.get());
    // Workers of a session that is not running are parked and disturb nobody.
    let mut session = Session::new(&plan, threads, &param)?;
    let mut crowded = Session::new(&plan, many, &param)?;
    let text = work.text(session.vocabulary());
    work.run(&mut session, &text)?;
    work.run(&mut crowded, &text)?;
    let (mut beside, mut among) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        let alone = work.run(&mut session, &text)?;
        let competitor = Competitor::start()?;
        beside.push(-alone / work.run(&mut session, &text)?);
        drop(competitor);
        among.push(-alone / work.run(&mut crowded, &text)?);
    }
    let slowdown = |by, threads, ratios: Vec<f64>| {
        let (best, median) = best_and_median(ratios);
        Slowdown { work, by, threads, best: -best, median: -median }
    };
    Ok([slowdown("beside a busy process", threads, beside), slowdown("with four threads a core", many, among)])
}
