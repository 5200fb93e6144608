//! Tables: aligned text for terminals, `<table>` for reports.

use std::fmt;

use crate::escape::{escape, visible};

/// On which side a column's cells line up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Columns with a heading and rows of text. A row shorter than the heading is filled with empty cells; a longer
/// one is cut.
///
/// ```
/// use wattle_report::{Align, Table};
/// let mut table = Table::new([("layer", Align::Left), ("params", Align::Right)]);
/// table.row(["conv1", "1.2 k"]);
/// table.row(["µ-norm", "64"]);
/// assert_eq!(table.to_string(), "layer   params\n──────  ──────\nconv1    1.2 k\nµ-norm      64\n");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = (impl Into<String>, Align)>) -> Self {
        let columns = columns.into_iter().map(|(heading, align)| (heading.into(), align)).collect();
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) -> &mut Self {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as HTML, escaped.
    pub fn to_html(&self) -> String {
        let class = |i: usize| match self.columns[i].1 {
            Align::Left => "",
            Align::Right => " class=\"n\"",
        };
        let cells = |tag: &str, texts: Vec<&str>| -> String {
            let cell = |(i, text): (usize, &str)| format!("<{tag}{}>{}</{tag}>", class(i), escape(text));
            texts.into_iter().enumerate().map(cell).collect()
        };
        let head = cells("th", self.columns.iter().map(|c| c.0.as_str()).collect());
        let body: String = self
            .rows
            .iter()
            .map(|row| format!("<tr>{}</tr>\n", cells("td", row.iter().map(String::as_str).collect())))
            .collect();
        format!(
            "<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n"
        )
    }
}

impl fmt::Display for Table {
    /// Aligned text with two spaces between columns, a rule under the heading, no trailing spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading: Vec<String> = self.columns.iter().map(|c| visible(&c.0)).collect();
        let rows: Vec<Vec<String>> =
            self.rows.iter().map(|row| row.iter().map(|cell| visible(cell)).collect()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| std::iter::once(&heading).chain(&rows).map(|row| width(&row[i])).max().unwrap_or(0))
            .collect();
        let mut line = |cells: &[String]| {
            let mut text = String::new();
            for (i, cell) in cells.iter().enumerate() {
                let pad = " ".repeat(widths[i] - width(cell));
                let gap = if i == 0 { "" } else { "  " };
                text += gap;
                match self.columns[i].1 {
                    Align::Left => text.extend([cell.as_str(), &pad]),
                    Align::Right => text.extend([pad.as_str(), cell]),
                }
            }
            writeln!(f, "{}", text.trim_end())
        };
        line(&heading)?;
        line(&widths.iter().map(|&w| "─".repeat(w)).collect::<Vec<_>>())?;
        rows.iter().try_for_each(|row| line(row))
    }
}

/// Columns that a terminal needs for `text`: combining marks take none, East Asian wide characters and emoji two.
/// The ranges are the common ones of Unicode's EastAsianWidth, not all of it.
pub(crate) fn width(text: &str) -> usize {
    text.chars()
        .map(|c| match c as u32 {
            0x0300..=0x036F | 0x200B..=0x200F | 0x20D0..=0x20FF | 0xFE00..=0xFE0F => 0,
            0x1100..=0x115F
            | 0x2E80..=0xA4CF
            | 0xAC00..=0xD7A3
            | 0xF900..=0xFAFF
            | 0xFE30..=0xFE6F
            | 0xFF00..=0xFF60
            | 0xFFE0..=0xFFE6
            | 0x1F300..=0x1F64F
            | 0x1F680..=0x1F6FF
            | 0x1F900..=0x1FAFF
            | 0x20000..=0x3FFFD => 2,
            _ => 1,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn two() -> Table {
        Table::new([("name", Align::Left), ("value", Align::Right)])
    }

    #[test]
    fn units_and_wide_names_stay_aligned() {
        let mut t = two();
        t.row(["energy", "412 µJ"]).row(["面積", "3 mm²"]).row(["e\u{301}tage", "12.5 %"]);
        assert_eq!(
            t.to_string(),
            "name     value\n──────  ──────\nenergy  412 µJ\n面積     3 mm²\ne\u{301}tage   12.5 %\n"
        );
    }

    #[test]
    fn a_hostile_name_can_neither_break_a_line_nor_drive_the_terminal() {
        let mut t = two();
        t.row(["a\nb\u{1b}[31m\r", "1"]);
        let text = t.to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(!text.contains('\u{1b}') && !text.contains('\r'));
    }

    #[test]
    fn html_is_escaped() {
        let mut t = two();
        t.row(["<script>alert(1)</script>", "\"&'"]);
        let html = t.to_html();
        assert!(!html.contains("<script>"));
        assert!(html.contains("&lt;script&gt;") && html.contains("&quot;&amp;&#39;"));
    }

    #[test]
    fn short_and_long_rows_fit_the_heading() {
        let mut t = two();
        t.row(["only"]).row(["a", "b", "c"]);
        assert_eq!(t.to_string().lines().last(), Some("a         b"));
    }

    proptest! {
        #[test]
        fn numbers_end_in_the_same_column_whatever_the_names(names in prop::collection::vec("\\PC{0,12}", 1..6)) {
            let mut t = two();
            for name in &names {
                t.row([name.as_str(), "1"]);
            }
            let text = t.to_string();
            let widths: Vec<usize> = text.lines().map(width).collect();
            prop_assert!(widths.windows(2).all(|w| w[0] == w[1]), "{text}");
        }
    }
}
