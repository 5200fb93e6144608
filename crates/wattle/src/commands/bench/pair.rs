//! `wattle bench A B`: two models in turns.

use std::fmt::Write;

use wattle_jobs::bench::pair::Paired;

/// The comparison for people.
pub fn text(paired: &Paired) -> String {
    let mut text = String::new();
    for side in &paired.models {
        let _ = writeln!(
            text,
            "{}: median {:.4} ms (10 % below {:.4}, 90 % below {:.4}), {} rounds of {} runs",
            side.model, side.median_ms, side.p10_ms, side.p90_ms, paired.rounds, side.runs_per_round
        );
        if !side.interpreted_nodes.is_empty() {
            let _ = writeln!(text, "no kernel, interpreted: {}", side.interpreted_nodes.join(", "));
        }
    }
    let verdict = match () {
        () if paired.undecided => "no difference beyond the spread".to_owned(),
        () if paired.ratio > 1.0 => format!("{} is faster", paired.models[1].model),
        () => format!("{} is faster", paired.models[0].model),
    };
    let _ = writeln!(
        text,
        "ratio {:.2} (10 % below {:.2}, 90 % below {:.2}): {verdict}, {} threads, {}",
        paired.ratio, paired.ratio_p10, paired.ratio_p90, paired.threads, paired.isa
    );
    let _ = match paired.difference {
        Some(d) => writeln!(
            text,
            "outputs of the same inputs: {}, differing by at most {:.2e}, {:.2e} of the largest element",
            d.outputs, d.max_absolute, d.max_relative
        ),
        None => writeln!(text, "their outputs are not compared: they have other names or shapes"),
    };
    if let Some(disturbed) = &paired.disturbed {
        let _ = writeln!(text, "warning: {disturbed}");
    }
    text
}
