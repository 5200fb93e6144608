//! Published figures beside ours, with the verdict under the paper's own rounding.

use std::path::{Path, PathBuf};

use serde::Serialize;
use wattle_meter::published::{self, Figure, Paper, Seen, Verdict};
use wattle_meter::scaling::{self, Fit, Form};

use crate::env::Env;
use crate::error::{JobError, Result};
use crate::given_file;
use crate::observer::Observer;

/// Whose figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReproduceOptions {
    /// The papers, in the order of the answer.
    pub papers: Vec<Paper>,
    /// Folder with the points of Thompson et al. 2020 (imagenet.csv, ms_coco.csv, squad_1_1.csv, conll_2003.csv,
    /// wmt14_en_fr.csv), to fit them instead of trusting the coefficients shipped.
    pub points: Option<PathBuf>,
}

/// Published figures, computed again.
#[derive(Clone, Debug, Serialize)]
pub struct Reproduced {
    /// Paper by paper.
    pub papers: Vec<PaperResult>,
    /// How many agree.
    pub summary: Verdicts,
}

/// The figures of one paper.
#[derive(Clone, Debug, Serialize)]
pub struct PaperResult {
    /// Which.
    pub paper: Paper,
    /// Its citation.
    pub citation: &'static str,
    /// What its authors or others corrected later.
    pub corrections: Vec<String>,
    /// Its figures.
    pub figures: Vec<Judged>,
}

/// A figure and what is made of it.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// As printed, and ours.
    #[serde(flatten)]
    pub figure: Figure,
    /// Whether they agree.
    pub verdict: Verdict,
    /// Ours over theirs, less one.
    pub deviation: f64,
}

/// How many figures agree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdicts {
    /// All of them.
    pub figures: usize,
    /// Agree under the rounding of the result.
    pub agree: usize,
    /// Agree under the rounding of printed inputs.
    pub agree_within_inputs: usize,
    /// Differ.
    pub differ: usize,
    /// Of those that agree, how many were read in their source, inputs and result.
    pub agree_and_read: usize,
}

/// Computes published figures again.
///
/// # Errors
/// If points of the user's own cannot be read or fitted.
pub fn reproduce(options: &ReproduceOptions, _env: &Env, _observer: &mut dyn Observer) -> Result<Reproduced> {
    let mut papers = vec![];
    let mut summary = Verdicts::default();
    for &paper in &options.papers {
        let mut corrections: Vec<String> = paper.corrections().iter().map(|&c| c.to_owned()).collect();
        let figures = match (&options.points, paper) {
            (Some(folder), Paper::Thompson2020) => refit(folder, &mut corrections)?,
            _ => paper.figures(),
        };
        let judged =
            |figure: Figure| Judged { verdict: figure.verdict(), deviation: figure.deviation(), figure };
        let figures: Vec<Judged> = figures.into_iter().map(judged).collect();
        figures.iter().for_each(|figure| summary.count(figure));
        papers.push(PaperResult { paper, citation: paper.citation(), corrections, figures });
    }
    Ok(Reproduced { papers, summary })
}

impl Verdicts {
    fn count(&mut self, judged: &Judged) {
        self.figures += 1;
        match judged.verdict {
            Verdict::Agrees => self.agree += 1,
            Verdict::AgreesWithinInputs => self.agree_within_inputs += 1,
            Verdict::Differs => self.differ += 1,
        }
        if judged.verdict != Verdict::Differs && judged.figure.seen == Seen::Read {
            self.agree_and_read += 1;
        }
    }
}

/// The figures of Thompson et al. from points of the user's own.
fn refit(folder: &Path, remarks: &mut Vec<String>) -> Result<Vec<Figure>> {
    let mut figures = vec![];
    for benchmark in published::benchmarks() {
        let path = folder.join(&benchmark.file);
        let file = given_file::open(&path)?;
        let points = scaling::read(file).map_err(|e| JobError::at(path.display(), e))?;
        let fit = |form| Fit::new(&points, form).map_err(|e| JobError::at(path.display(), e));
        let (power, exponential) = (fit(Form::Power)?, fit(Form::Exponential)?);
        let slope = power.summary().exponent.ok_or_else(|| JobError::run("a power law has an exponent"))?;
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
