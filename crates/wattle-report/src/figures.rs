//! Published figures beside ours.

use wattle_meter::published::{Figure, Seen, Verdict};

use crate::table::{Align, Table};

/// One line a figure: as printed, ours, how, and whether they agree.
pub fn table<'a>(figures: impl IntoIterator<Item = (&'a Figure, Verdict, f64)>) -> Table {
    let mut table = Table::new([
        ("figure", Align::Left),
        ("published", Align::Right),
        ("ours", Align::Right),
        ("unit", Align::Left),
        ("formula", Align::Left),
        ("verdict", Align::Left),
    ]);
    for (figure, verdict, deviation) in figures {
        let mut judged = verdict.describe().to_owned();
        if verdict == Verdict::Differs {
            judged += &format!(" ({:+.1} %)", 100.0 * deviation);
        }
        if figure.seen == Seen::Recalled {
            judged += ", from memory";
        }
        if !figure.note.is_empty() {
            judged += &format!("; {}", figure.note);
        }
        let ours = like(&figure.printed, figure.ours[1]);
        table.row([&figure.what, &figure.printed, &ours, figure.unit, figure.formula, &judged]);
    }
    table
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
