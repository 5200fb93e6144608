//! `wattle bench MODEL --against PEER`: the same work here and in another runtime, in turns.

use std::fmt::Write;
use std::path::PathBuf;

use wattle_jobs::bench::PeerName;
use wattle_jobs::bench::against::{AgainstOptions, Compared, Side};

use crate::names::named;

/// Flags of the comparison.
#[derive(clap::Args, Debug)]
pub struct PeerArgs {
    /// Compare with another runtime: same inputs, same threads, outputs checked, in turns.
    #[arg(long, value_name = "PEER", requires = "which_model", value_parser = named(&PeerName::ALL))]
    against: Option<PeerName>,
    /// The Python that has the peer [default: python3 on PATH].
    #[arg(long, value_name = "PATH", requires = "against")]
    python: Option<PathBuf>,
    /// Turns of each contender.
    #[arg(long, default_value_t = 11, requires = "turns", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Largest difference of outputs that counts as agreement, as a share of the output's largest element.
    #[arg(long, default_value_t = 1e-4, requires = "against", value_name = "SHARE")]
    tolerance: f64,
}

impl PeerArgs {
    /// Turns of each contender.
    pub fn rounds(&self) -> u32 {
        self.rounds
    }

    /// The comparison that is asked for, if one is.
    pub fn options(self) -> Option<AgainstOptions> {
        let python = self.python.unwrap_or_else(|| "python3".into());
        let (rounds, tolerance) = (self.rounds, self.tolerance);
        self.against.map(|peer| AgainstOptions { peer, python, rounds, tolerance })
    }
}

/// The comparison for people.
pub fn text(compared: &Compared) -> String {
    let mut text = String::new();
    let mut line = |side: &Side| {
        let name = match &side.variant {
            Some(variant) => format!("{} {} {variant}", side.name, side.version),
            None => format!("{} {}", side.name, side.version),
        };
        let _ = writeln!(
            text,
            "{name}: median {:.4} ms (10 % below {:.4}, 90 % below {:.4}), {} rounds of {} runs",
            side.median_ms, side.p10_ms, side.p90_ms, compared.rounds, side.runs_per_round
        );
    };
    line(&compared.wattle);
    line(&compared.peer);
    compared.slower.iter().for_each(&mut line);
    let verdict = match () {
        () if compared.undecided => "no difference beyond the spread",
        () if compared.ratio > 1.0 => "wattle is faster",
        () => "wattle is slower",
    };
    let _ = writeln!(
        text,
        "ratio {:.2} (10 % below {:.2}, 90 % below {:.2}): {verdict}, {} threads, {}",
        compared.ratio, compared.ratio_p10, compared.ratio_p90, compared.threads, compared.isa
    );
    let a = &compared.agreement;
    let _ = writeln!(
        text,
        "outputs agree: {} outputs differ by at most {:.2e}, {:.2e} of the largest element (tolerated {:.0e})",
        a.outputs, a.max_absolute, a.max_relative, a.tolerance
    );
    if let Some(disturbed) = &compared.disturbed {
        let _ = writeln!(text, "warning: {disturbed}");
    }
    text
}
