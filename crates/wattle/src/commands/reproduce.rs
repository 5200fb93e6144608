//! `wattle reproduce`: published figures beside ours, with the verdict under the paper's own rounding.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_meter::published::{self, Figure, Paper, Seen, Verdict};
use wattle_meter::scaling::{self, Fit, Form};
use wattle_report::{Align, Table};

use crate::context::Context;
use crate::failure::Failure;

/// Arguments of `wattle reproduce`.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example: wattle reproduce gpt3")]
pub struct Args {
    /// Whose figures.
    #[arg(value_enum, default_value_t = Which::All)]
    paper: Which,
    /// Folder with the points of thompson2020 (imagenet.csv, ms_coco.csv, squad_1_1.csv, conll_2003.csv,
    /// wmt14_en_fr.csv), to fit them instead of trusting the coefficients shipped.
    #[arg(long, value_name = "DIR")]
    points: Option<PathBuf>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Strubell2019,
    Gpt3,
    Patterson2021,
    Llmcarbon,
    Bloom,
    Llama,
    Thompson2020,
    All,
}

impl Which {
    fn papers(self) -> Vec<Paper> {
        match self {
            Which::Strubell2019 => vec![Paper::Strubell2019],
            Which::Gpt3 => vec![Paper::Gpt3],
            Which::Patterson2021 => vec![Paper::Patterson2021],
            Which::Llmcarbon => vec![Paper::Llmcarbon],
            Which::Bloom => vec![Paper::Bloom],
            Which::Llama => vec![Paper::Llama],
            Which::Thompson2020 => vec![Paper::Thompson2020],
            Which::All => Paper::ALL.to_vec(),
        }
    }
}

#[derive(Serialize)]
struct Document {
    papers: Vec<PaperResult>,
    summary: Summary,
}

#[derive(Serialize)]
struct PaperResult {
    paper: Paper,
    citation: &'static str,
    corrections: Vec<String>,
    figures: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    figure: Figure,
    verdict: Verdict,
    deviation: f64,
}

#[derive(Default, Serialize)]
struct Summary {
    figures: usize,
    agree: usize,
    agree_within_inputs: usize,
    differ: usize,
    /// Of those that agree, how many were read in their source, inputs and result.
    agree_and_read: usize,
}

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let mut papers = vec![];
    let mut summary = Summary::default();
    for paper in args.paper.papers() {
        let mut corrections: Vec<String> = paper.corrections().iter().map(|&c| c.to_owned()).collect();
        let figures = match (&args.points, paper) {
            (Some(folder), Paper::Thompson2020) => refit(folder, &mut corrections)?,
            _ => paper.figures(),
        };
        let row = |figure: Figure| Row { verdict: figure.verdict(), deviation: figure.deviation(), figure };
        let figures: Vec<Row> = figures.into_iter().map(row).collect();
        for row in &figures {
            summary.count(row);
        }
        papers.push(PaperResult { paper, citation: paper.citation(), corrections, figures });
    }
    let document = Document { papers, summary };
    context.print(&document, &text(&document))
}

impl Summary {
    fn count(&mut self, row: &Row) {
        self.figures += 1;
        match row.verdict {
            Verdict::Agrees => self.agree += 1,
            Verdict::AgreesWithinInputs => self.agree_within_inputs += 1,
            Verdict::Differs => self.differ += 1,
        }
        if row.verdict != Verdict::Differs && row.figure.seen == Seen::Read {
            self.agree_and_read += 1;
        }
    }
}

/// The figures of Thompson et al. from points of the user's own.
fn refit(folder: &Path, remarks: &mut Vec<String>) -> Result<Vec<Figure>, Failure> {
    let mut figures = vec![];
    for benchmark in published::benchmarks() {
        let path = folder.join(&benchmark.file);
        let place = path.display();
        let file = File::open(&path).map_err(|e| Failure::at(place, e))?;
        let points = scaling::read(file).map_err(|e| Failure::at(path.display(), e))?;
        let fit = |form| Fit::new(&points, form).map_err(|e| Failure::at(path.display(), e));
        let (power, exponential) = (fit(Form::Power)?, fit(Form::Exponential)?);
        let slope =
            power.summary().exponent.ok_or_else(|| Failure::Run("a power law has an exponent".into()))?;
        let mut remark = format!(
            "{}: {} points, slope {:.4} [{:.4}, {:.4}] at 95 %",
            benchmark.name,
            points.len(),
            slope.value,
            slope.low,
            slope.high
        );
        if let Some(Ok(projection)) = benchmark.errors.last().map(|&e| power.project(e)) {
            let (x, reverse) = (projection.log10_gflop, projection.reverse_log10_gflop);
            remark += &format!(
                "; error {} takes 10^{:.1} [{:.1}, {:.1}] GFLOP",
                projection.target_error, x.value, x.low, x.high
            );
            remark +=
                &reverse.map_or(String::new(), |r| format!(", by the other direction 10^{:.1}", r.value));
        }
        remarks.push(remark);
        if let (Some(power), Some(exponential)) = (power.line(), exponential.line()) {
            figures.extend(benchmark.figures([power, exponential]));
        }
    }
    Ok(figures)
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    for paper in &document.papers {
        text += &format!("{}: {}\n\n", paper.paper.name(), paper.citation);
        let mut table = Table::new([
            ("figure", Align::Left),
            ("published", Align::Right),
            ("ours", Align::Right),
            ("unit", Align::Left),
            ("formula", Align::Left),
            ("verdict", Align::Left),
        ]);
        for row in &paper.figures {
            let figure = &row.figure;
            let mut verdict = row.verdict.describe().to_owned();
            if row.verdict == Verdict::Differs {
                verdict += &format!(" ({:+.1} %)", 100.0 * row.deviation);
            }
            if figure.seen == Seen::Recalled {
                verdict += ", from memory";
            }
            if !figure.note.is_empty() {
                verdict += &format!("; {}", figure.note);
            }
            let ours = like(&figure.printed, figure.ours[1]);
            table.row([&figure.what, &figure.printed, &ours, figure.unit, figure.formula, &verdict]);
        }
        text += &format!("{table}\n");
        for correction in &paper.corrections {
            text += &format!("Beside it: {correction}\n");
        }
        text += "\n";
    }
    let s = &document.summary;
    text += &format!(
        "{} figures: {} agree, {} agree within the rounding of printed inputs, {} differ. Of those that agree, {} \
         were read in their source with all inputs; the others are marked \"from memory\".\n",
        s.figures, s.agree, s.agree_within_inputs, s.differ, s.agree_and_read
    );
    text
}

/// Ours with two digits more than the paper prints, so that its rounding can be seen.
fn like(printed: &str, ours: f64) -> String {
    if printed.contains('e') {
        return format!("{ours:.4e}");
    }
    let decimals = printed.split_once('.').map_or(0, |(_, digits)| digits.len()) + 2;
    let plain = format!("{ours:.decimals$}");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if !printed.contains(',') {
        return plain;
    }
    let digits: Vec<char> = whole.chars().collect();
    let grouped: Vec<String> = digits.rchunks(3).rev().map(|chunk| chunk.iter().collect()).collect();
    format!("{}.{fraction}", grouped.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_written_as_the_paper_writes_with_two_more_digits() {
        assert_eq!(like("656,347", 656_347.284), "656,347.28");
        assert_eq!(like("7.5", 7.4934), "7.493");
        assert_eq!(like("3.14e23", 3.1428e23), "3.1428e23");
    }
}
