//! Figures of results, at the size at which a paper prints them.
//!
//! | figure | what |
//! |---|---|
//! | `entropy` | the share of targets below an entropy, over packets and over receivers |
//! | `latency` | the share of messages that arrived within a time |
//! | `convergence` | the mean entropy after so many replications or batches, with its 95 % interval |
//!
//! They are drawn as SVG; PNG (600 dots per inch) and PDF are made from it, with a font that the program brings along, so
//! that they look the same everywhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, WHITE,
};
use resvg::{tiny_skia, usvg};
use thiserror::Error;

use crate::output::{self, Column, OutputError, Table};
use crate::stats::Estimate;

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Scalable, for the web.
    Svg,
    /// Pixels.
    Png,
    /// Scalable, for papers.
    Pdf,
}

/// Why there is no figure.
#[derive(Debug, Error)]
pub enum PlotError {
    /// The results cannot be read.
    #[error(transparent)]
    Results(#[from] OutputError),
    /// A width that no paper has.
    #[error("a figure is 20 to 500 mm wide, not {0}")]
    Width(f64),
    /// It could not be drawn.
    #[error("{figure}: {what}")]
    Draw {
        /// Which one.
        figure: &'static str,
        /// Why.
        what: String,
    },
    /// A file cannot be written.
    #[error("{path}: {source}", path = path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Units of a drawing in a millimetre.
const PER_MM: f64 = 10.0;
/// Eight points.
const TEXT: u32 = 28;
const FONT: &str = "DejaVu Sans";
const DOTS_PER_INCH: f32 = 600.0;
const ENTROPY: &str = "entropy";
const LATENCY: &str = "latency";
const CONVERGENCE: &str = "convergence";
const FIRST: RGBColor = RGBColor(0, 90, 160);
const SECOND: RGBColor = RGBColor(200, 80, 0);

/// Points of a curve, from left to right.
type Curve = Vec<(f64, f64)>;

struct Figure {
    name: &'static str,
    /// Without which there is nothing to draw.
    needs: &'static str,
    x: &'static str,
    y: &'static str,
    curves: Vec<(&'static str, Curve)>,
    /// Between two curves.
    band: Option<(Curve, Curve)>,
}

/// What was drawn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drawn {
    /// Files that were written.
    pub files: Vec<PathBuf>,
    /// Figures for which the results have nothing, and what they need.
    pub empty: Vec<(&'static str, &'static str)>,
}

/// The names of all files that [`all`] may write.
pub(crate) fn files() -> impl Iterator<Item = String> {
    let names = [ENTROPY, LATENCY, CONVERGENCE];
    names.into_iter().flat_map(|name| ["svg", "png", "pdf"].map(|extension| format!("{name}.{extension}")))
}

/// Draws all figures of the results in a directory, into that directory. Those for which the results have nothing are left
/// out.
///
/// # Errors
/// The results cannot be read, or a file cannot be written.
pub fn all(directory: &Path, width_mm: f64, formats: &[Format]) -> Result<Drawn, PlotError> {
    if !(20.0..=500.0).contains(&width_mm) {
        return Err(PlotError::Width(width_mm));
    }
    let targets = output::read(directory, "targets.parquet")?;
    let latencies = output::read(directory, "latencies.parquet")?;
    let replications = output::read(directory, "replications.parquet")?;
    let figures = [entropy(&targets), latency(&latencies), convergence(&replications)];
    let mut drawn = Drawn::default();
    for figure in figures {
        if figure.curves.iter().all(|(_, curve)| curve.is_empty()) {
            drawn.empty.push((figure.name, figure.needs));
            continue;
        }
        let svg = figure.svg(width_mm)?;
        for format in formats {
            let (extension, bytes) = match format {
                Format::Svg => ("svg", svg.clone().into_bytes()),
                Format::Png => ("png", png(figure.name, &svg)?),
                Format::Pdf => ("pdf", pdf(figure.name, &svg)?),
            };
            let path = directory.join(format!("{}.{extension}", figure.name));
            std::fs::write(&path, bytes).map_err(|source| PlotError::Write { path: path.clone(), source })?;
            drawn.files.push(path);
        }
    }
    Ok(drawn)
}

/// The share of values at most x, as steps.
fn shares_below(mut values: Vec<f64>) -> Curve {
    values.sort_by(f64::total_cmp);
    let count = values.len() as f64;
    // More steps than a printer has dots help nobody.
    let every = values.len().div_ceil(2000).max(1);
    let mut curve = Vec::new();
    let mut below = 0.0;
    for (at, &value) in values.iter().enumerate() {
        if at % every == 0 || at + 1 == values.len() {
            let share = (at + 1) as f64 / count;
            curve.extend([(value, below), (value, share)]);
            below = share;
        }
    }
    curve
}

fn entropy(targets: &Table) -> Figure {
    let curves = [("over packets", "entropy_bits"), ("over receivers", "receiver_entropy_bits")];
    // What was given up before it was finished is not known.
    let finished = targets.numbers("finished");
    let known = |column| {
        let Some(Column::Numbers(values)) = targets.column(column) else { return Vec::new() };
        values
            .iter()
            .zip(&finished)
            .filter(|(_, finished)| **finished > 0.0)
            .filter_map(|(value, _)| *value)
            .collect()
    };
    let curves = curves.map(|(label, column)| (label, shares_below(known(column))));
    Figure {
        name: ENTROPY,
        needs: "targets that are finished: raise run.measure",
        x: "entropy of a target, bits",
        y: "share of targets",
        curves: curves.into_iter().filter(|(_, curve)| !curve.is_empty()).collect(),
        band: None,
    }
}

fn latency(latencies: &Table) -> Figure {
    let (ends, counts) = (latencies.numbers("to_s"), latencies.numbers("messages"));
    let total: f64 = counts.iter().sum();
    let mut sum = 0.0;
    let mut curve: Curve =
        latencies.numbers("from_s").first().map(|&first| (first, 0.0)).into_iter().collect();
    for (end, count) in ends.into_iter().zip(counts) {
        sum += count;
        curve.push((end, sum / total));
        // The last thousandth would take most of the width.
        if sum / total > 0.9995 {
            break;
        }
    }
    Figure {
        name: LATENCY,
        needs: "messages that arrived: raise run.measure",
        x: "time from writing to arrival, s",
        y: "share of messages",
        curves: vec![("", curve)],
        band: None,
    }
}

fn convergence(replications: &Table) -> Figure {
    let values = replications.numbers("entropy_bits");
    let estimates: Vec<(f64, f64, f64)> = (2..=values.len())
        .filter_map(|count| {
            let estimate = Estimate::new(values[..count].iter().copied(), 0.95)?;
            Some((count as f64, estimate.mean, estimate.half_width?))
        })
        .collect();
    let of = |value: fn(&(f64, f64, f64)) -> f64| -> Curve {
        estimates.iter().map(|estimate| (estimate.0, value(estimate))).collect()
    };
    Figure {
        name: CONVERGENCE,
        needs: "two replications or batches with targets",
        x: "replications or batches",
        y: "mean entropy, bits",
        curves: vec![("", of(|estimate| estimate.1))],
        band: Some((of(|estimate| estimate.1 - estimate.2), of(|estimate| estimate.1 + estimate.2))),
    }
}

impl Figure {
    fn svg(&self, width_mm: f64) -> Result<String, PlotError> {
        let points = self.curves.iter().map(|(_, curve)| curve);
        let points = points.chain(self.band.iter().flat_map(|(low, high)| [low, high]));
        let mut ranges = [(f64::INFINITY, f64::NEG_INFINITY); 2];
        for &(x, y) in points.flatten() {
            for (range, value) in ranges.iter_mut().zip([x, y]) {
                *range = (range.0.min(value), range.1.max(value));
            }
        }
        if ranges.iter().any(|range| !range.0.is_finite() || !range.1.is_finite()) {
            let what = String::from("the results have values that are no finite numbers");
            return Err(PlotError::Draw { figure: self.name, what });
        }
        // A little more on either side; something, if all values are the same.
        let ranges = ranges.map(|(from, to)| {
            let margin = ((to - from) * 0.03).max(from.abs() * 1e-3).max(1e-6);
            (from - margin, to + margin)
        });
        let size = [width_mm, width_mm * 0.68].map(|mm| (mm * PER_MM).round() as u32);
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, (size[0], size[1])).into_drawing_area();
            self.draw(&area, ranges).map_err(|what| PlotError::Draw { figure: self.name, what })?;
        }
        // The drawing's units are tenths of millimetres.
        let pixels = format!("<svg width=\"{}\" height=\"{}\"", size[0], size[1]);
        let millimetres = format!(
            "<svg width=\"{}mm\" height=\"{}mm\"",
            f64::from(size[0]) / PER_MM,
            f64::from(size[1]) / PER_MM
        );
        Ok(text.replacen(&pixels, &millimetres, 1))
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>, [x, y]: [(f64, f64); 2]) -> Result<(), String> {
        let text = |error: plotters::drawing::DrawingAreaErrorKind<std::io::Error>| error.to_string();
        area.fill(&WHITE).map_err(text)?;
        let mut chart = ChartBuilder::on(area)
            .margin(TEXT / 2)
            .margin_right(TEXT)
            .x_label_area_size(TEXT * 3)
            .y_label_area_size(TEXT * 4)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)
            .map_err(text)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(220, 220, 220))
            .x_labels(6)
            .y_labels(6)
            .x_desc(self.x)
            .y_desc(self.y)
            .label_style((FONT, TEXT))
            .axis_desc_style((FONT, TEXT))
            .draw()
            .map_err(text)?;
        if let Some((low, high)) = &self.band {
            // The band is what lies above the lower curve and below the upper one.
            let outline: Curve = high.iter().chain(low.iter().rev()).copied().collect();
            let band = plotters::element::Polygon::new(outline, FIRST.mix(0.2));
            chart.draw_series([band]).map_err(text)?;
        }
        for ((label, curve), colour) in self.curves.iter().zip([FIRST, SECOND]) {
            let style = colour.stroke_width(4);
            let series = chart.draw_series(LineSeries::new(curve.iter().copied(), style)).map_err(text)?;
            if !label.is_empty() {
                let key = move |(x, y): (i32, i32)| PathElement::new([(x, y), (x + 50, y)], style);
                series.label(*label).legend(key);
            }
        }
        if self.curves.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::MiddleMiddle)
                .legend_area_size(60)
                .label_font((FONT, TEXT))
                .background_style(WHITE.mix(0.8))
                .draw()
                .map_err(text)?;
        }
        area.present().map_err(text)
    }
}

fn tree(figure: &'static str, svg: &str) -> Result<usvg::Tree, PlotError> {
    let mut options = usvg::Options { font_family: FONT.to_owned(), ..usvg::Options::default() };
    Arc::make_mut(&mut options.fontdb).load_font_data(dejavu::sans::regular().to_vec());
    usvg::Tree::from_str(svg, &options).map_err(|error| PlotError::Draw { figure, what: error.to_string() })
}

fn png(figure: &'static str, svg: &str) -> Result<Vec<u8>, PlotError> {
    let tree = tree(figure, svg)?;
    // The size of the tree is in CSS pixels, 96 to an inch.
    let scale = DOTS_PER_INCH / 96.0;
    let size = tree.size();
    let draw = |what: &str| PlotError::Draw { figure, what: what.to_owned() };
    let pixels = [size.width(), size.height()].map(|length| (length * scale).round() as u32);
    let mut map = tiny_skia::Pixmap::new(pixels[0], pixels[1]).ok_or_else(|| draw("too large for a PNG"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut map.as_mut());
    map.encode_png().map_err(|error| draw(&error.to_string()))
}

fn pdf(figure: &'static str, svg: &str) -> Result<Vec<u8>, PlotError> {
    let tree = tree(figure, svg)?;
    // A point for each of the tree's pixels would make it too large by a third: 96 of them are an inch.
    let page = svg2pdf::PageOptions { dpi: 96.0 };
    svg2pdf::to_pdf(&tree, svg2pdf::ConversionOptions::default(), page)
        .map_err(|error| PlotError::Draw { figure, what: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_rise_to_one() {
        assert_eq!(shares_below(vec![3.0, 1.0]), [(1.0, 0.0), (1.0, 0.5), (3.0, 0.5), (3.0, 1.0)]);
        let many = shares_below((0..10_000).map(f64::from).collect());
        assert!(many.len() < 5000 && many.last() == Some(&(9999.0, 1.0)));
    }

    #[test]
    fn latencies_that_are_all_alike_are_a_step_and_long_tails_are_left_out() {
        let table = |buckets: &[(f64, f64, u64)]| {
            Table::default()
                .with("from_s", Column::numbers(buckets.iter().map(|bucket| bucket.0)))
                .with("to_s", Column::numbers(buckets.iter().map(|bucket| bucket.1)))
                .with("messages", Column::integers(buckets.iter().map(|bucket| bucket.2)))
        };
        let curve = |buckets: &[(f64, f64, u64)]| latency(&table(buckets)).curves.remove(0).1;
        assert_eq!(curve(&[(1.0, 1.1, 7)]), [(1.0, 0.0), (1.1, 1.0)]);
        let tail = curve(&[(1.0, 1.1, 5000), (1.1, 1.2, 4996), (1.2, 1.3, 2), (9.0, 9.1, 2)]);
        assert_eq!(tail, [(1.0, 0.0), (1.1, 0.5), (1.2, 0.9996)]);
        assert_eq!(curve(&[]), []);
    }

    #[test]
    fn a_figure_has_the_width_of_the_column_in_every_format() {
        let curve = vec![(0.0, 0.0), (1.0, 2.0)];
        let figure = Figure {
            name: "test",
            needs: "",
            x: "x",
            y: "y",
            curves: vec![("a", curve.clone()), ("b", curve)],
            band: None,
        };
        let svg = figure.svg(85.0).unwrap();
        assert!(svg.contains("width=\"85mm\"") && svg.contains("viewBox=\"0 0 850 578\""), "{svg}");
        let png = png("test", &svg).unwrap();
        // Width in the header of the file: 85 mm at 600 dots per inch.
        assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 2008);
        let pdf = pdf("test", &svg).unwrap();
        assert!(pdf.starts_with(b"%PDF"));
        let page = String::from_utf8_lossy(&pdf);
        let width = page.split("/MediaBox [0 0 ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        assert!((width.parse::<f64>().unwrap() - 85.0 / 25.4 * 72.0).abs() < 0.1, "{width}");
    }
}
