//! The picture as one self-contained HTML page: no network, usable with ten thousand buffers (canvas).

use serde::Serialize;
use staticgrad::plan::report::Report;

use crate::output::escape;

/// The page around the parts; each `{{name}}` is replaced once, in this order: title, style, report, script.
const PAGE: &str = include_str!("viewer/page.html");
const STYLE: &str = include_str!("viewer/style.css");
const SCRIPT: [&str; 3] =
    [include_str!("viewer/model.js"), include_str!("viewer/chart.js"), include_str!("viewer/main.js")];

/// The report with what the page shows beside it.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    report: &'a Report,
    threads: usize,
    budget: Option<u64>,
}

/// The whole page. `budget` is for the transient region and the scratch of `threads` workers.
pub fn page(report: &Report, budget: Option<u64>, threads: usize) -> String {
    let data = Data { report, threads, budget };
    // Names come from files that nobody vouches for: no `<` means that no name can end the script element.
    let json =
        serde_json::to_string(&data).expect("a report has no values that JSON cannot hold").replace('<', "\\u003c");
    let title = escape(&format!("{}: memory plan", report.graph));
    let mut out = String::with_capacity(PAGE.len() + STYLE.len() + json.len() + 40_000);
    let mut rest = PAGE;
    for (name, content) in
        [("title", title.as_str()), ("style", STYLE), ("report", &json), ("script", &SCRIPT.concat())]
    {
        let (before, after) = rest.split_once(&format!("{{{{{name}}}}}")).expect("the page has every part");
        out += before;
        out += content;
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_refers_to_nothing_outside() {
        let parts = [PAGE, STYLE].into_iter().chain(SCRIPT);
        for text in parts {
            for outside in
                ["http:", "https:", "@import", "url(", "fetch(", "XMLHttpRequest", "innerHTML", "<link", "src="]
            {
                assert!(!text.contains(outside), "{outside}");
            }
        }
    }
}
