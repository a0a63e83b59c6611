//! The loss curve as an SVG file.

use std::path::Path;

use plotters::prelude::*;

use super::log::Record;
use crate::disk::write_atomically;
use crate::error::{Error, Result};

/// Readable on white and on black alike; the picture has no background of its own.
const INK: RGBColor = RGBColor(0x7A, 0x7A, 0x7A);
const TRAINING: RGBColor = RGBColor(0x3B, 0x82, 0xF6);
const VALIDATION: RGBColor = RGBColor(0xF9, 0x73, 0x16);

/// Draws training and validation loss over the steps of a log. Errors if it holds no finite loss.
pub fn write_loss_curve(path: &Path, title: &str, records: &[Record]) -> Result<()> {
    let svg = loss_curve(title, records).map_err(|reason| Error::file(path, format!("no loss curve: {reason}")))?;
    write_atomically(path, |file| file.put(svg.as_bytes()))
}

/// At most about `points` training losses: longer logs are averaged, neighbour by neighbour. Validation losses all stay.
pub fn thinned(records: &[Record], points: usize) -> Vec<Record> {
    let losses: Vec<(u64, f64)> = records.iter().filter_map(|r| Some((r.step, r.loss?))).collect();
    let mut out: Vec<Record> = losses
        .chunks(losses.len().div_ceil(points.max(1)).max(1))
        .map(|group| {
            let loss = group.iter().map(|(_, loss)| loss).sum::<f64>() / group.len() as f64;
            Record { step: group[group.len() / 2].0, loss: Some(loss), ..Default::default() }
        })
        .collect();
    out.extend(records.iter().filter(|r| r.val_loss.is_some()).cloned().map(|r| Record { loss: None, ..r }));
    out
}

fn loss_curve(title: &str, records: &[Record]) -> Result<String, String> {
    let series = |loss: fn(&Record) -> Option<f64>| -> Vec<(f64, f64)> {
        let points = records.iter().filter_map(|record| Some((record.step as f64, loss(record)?)));
        points.filter(|(_, loss)| loss.is_finite()).collect()
    };
    let lines = [
        ("training", TRAINING, 1, series(|record| record.loss)),
        ("validation", VALIDATION, 2, series(|record| record.val_loss)),
    ];
    let points = || lines.iter().flat_map(|(_, _, _, points)| points.iter().copied());
    if points().next().is_none() {
        return Err("the log holds no finite loss".into());
    }
    let last_step = points().map(|(step, _)| step).fold(1.0, f64::max);
    let (low, high) = points().fold((f64::MAX, f64::MIN), |(low, high), (_, loss)| (low.min(loss), high.max(loss)));
    let margin = ((high - low) * 0.05).max(1e-3);
    let mut svg = String::new();
    draw(&mut svg, title, last_step, (low - margin)..(high + margin), &lines).map_err(|error| error.to_string())?;
    Ok(svg)
}

type Line<'a> = (&'a str, RGBColor, u32, Vec<(f64, f64)>);

fn draw(
    svg: &mut String,
    title: &str,
    last_step: f64,
    losses: std::ops::Range<f64>,
    lines: &[Line<'_>],
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (800, 450)).into_drawing_area();
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, text(18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last_step, losses)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(INK.mix(0.25))
        .axis_style(INK)
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|loss| format!("{loss:.2}"))
        .label_style(text(13))
        .axis_desc_style(text(14))
        .x_desc("step")
        .y_desc("loss (nats per token)")
        .draw()?;
    for (name, color, width, points) in lines.iter().filter(|(_, _, _, points)| !points.is_empty()) {
        let style = color.stroke_width(*width);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(INK.mix(0.5))
        .label_font(text(13))
        .draw()?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_curves_are_drawn() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("loss.svg");
        let mut records: Vec<Record> =
            (0..50).map(|step| Record { step, loss: Some(5.0 / (step + 1) as f64), ..Default::default() }).collect();
        records[20].loss = Some(f64::NAN);
        records[25].val_loss = Some(1.0);
        records[49].val_loss = Some(0.5);
        write_loss_curve(&path, "tiny", &records).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
        for part in ["#3B82F6", "#F97316", "training", "validation", "nats per token"] {
            assert!(svg.contains(part), "{part} is missing");
        }
    }

    #[test]
    fn a_log_without_losses_is_an_error() {
        let record = Record { step: 1, loss: Some(f64::INFINITY), ..Default::default() };
        assert!(loss_curve("x", &[record]).unwrap_err().contains("no finite loss"));
        assert!(loss_curve("x", &[Record { loss: Some(1.0), ..Default::default() }]).is_ok(), "one point is enough");
    }
}
