//! `wattle reproduce`: published figures beside ours, with the verdict under the paper's own rounding.

use std::path::PathBuf;

use wattle_jobs::Silent;
use wattle_jobs::reproduce::{ReproduceOptions, Reproduced, reproduce};
use wattle_meter::published::Paper;
use wattle_report::figures;

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

/// Runs the command.
pub fn run(args: Args, context: &mut Context) -> Result<(), Failure> {
    let options = ReproduceOptions { papers: args.paper.papers(), points: args.points };
    let found = reproduce(&options, context, &mut Silent)?;
    context.print(&found, &text(&found))
}

fn text(found: &Reproduced) -> String {
    let mut text = String::new();
    for paper in &found.papers {
        text += &format!("{}: {}\n\n", paper.paper.name(), paper.citation);
        let figures = paper.figures.iter().map(|f| (&f.figure, f.verdict, f.deviation));
        text += &format!("{}\n", figures::table(figures));
        for correction in &paper.corrections {
            text += &format!("Beside it: {correction}\n");
        }
        text += "\n";
    }
    let s = &found.summary;
    text += &format!(
        "{} figures: {} agree, {} agree within the rounding of printed inputs, {} differ. Of those that agree, {} \
         were read in their source with all inputs; the others are marked \"from memory\".\n",
        s.figures, s.agree, s.agree_within_inputs, s.differ, s.agree_and_read
    );
    text
}
