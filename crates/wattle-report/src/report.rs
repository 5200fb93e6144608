//! One self-contained HTML file: sections, tables, figures; light or dark as the reader prefers; no network.

use std::fmt::Write;

use wattle_meter::Receipt;

use crate::escape::escape;
use crate::receipt;
use crate::table::Table;

const STYLE: &str = include_str!("report.css");

/// A report under construction; every text that goes in is escaped on the way.
///
/// ```
/// use wattle_report::{Align, Report, Table};
/// let mut table = Table::new([("", Align::Left), ("dense", Align::Right), ("lean", Align::Right)]);
/// table.row(["parameters", "61.7 k", "6.2 k"]);
/// let html = Report::new("wattle shrink", "lenet.onnx on digits").section("Result").table(&table).to_html();
/// assert!(html.starts_with("<!DOCTYPE html>"));
/// ```
#[derive(Debug, Clone)]
pub struct Report {
    title: String,
    body: String,
}

impl Report {
    /// A report with a headline and a line that says what it is about.
    pub fn new(title: &str, subtitle: &str) -> Self {
        let mut report = Report { title: escape(title), body: String::new() };
        let title = report.title.clone();
        report.push(format_args!(
            "<header><h1>{title}</h1><p class=\"subtitle\">{}</p></header>\n",
            escape(subtitle)
        ));
        report
    }

    /// Starts a section.
    #[must_use]
    pub fn section(mut self, heading: &str) -> Self {
        self.push(format_args!("<h2>{}</h2>\n", escape(heading)));
        self
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.push(format_args!("<p>{}</p>\n", escape(text)));
        self
    }

    /// Adds a highlighted remark: a warning, a caveat.
    #[must_use]
    pub fn note(mut self, text: &str) -> Self {
        self.push(format_args!("<p class=\"note\">{}</p>\n", escape(text)));
        self
    }

    /// Adds a row of large figures, each `(value, what it is)`.
    #[must_use]
    pub fn headline(mut self, figures: &[(&str, &str)]) -> Self {
        let card = |(value, what): &(&str, &str)| {
            format!("<div><strong>{}</strong><span>{}</span></div>", escape(value), escape(what))
        };
        let cards: String = figures.iter().map(card).collect();
        self.push(format_args!("<div class=\"headline\">{cards}</div>\n"));
        self
    }

    /// Adds a table.
    #[must_use]
    pub fn table(mut self, table: &Table) -> Self {
        self.push(format_args!("{}", table.to_html()));
        self
    }

    /// Adds a drawing made by this crate (`svg` is not escaped) with a caption.
    #[must_use]
    pub fn figure(mut self, svg: &str, caption: &str) -> Self {
        let caption = match caption {
            "" => String::new(),
            text => format!("<figcaption>{}</figcaption>", escape(text)),
        };
        self.push(format_args!("<figure>\n{svg}{caption}</figure>\n"));
        self
    }

    /// Adds pictures side by side, each the bytes of a PNG file, with a caption.
    #[must_use]
    pub fn pictures(mut self, pictures: &[(Vec<u8>, String)]) -> Self {
        let one = |(png, caption): &(Vec<u8>, String)| {
            let caption = escape(caption);
            let data = base64(png);
            format!(
                "<figure><img alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>"
            )
        };
        let all: String = pictures.iter().map(one).collect();
        self.push(format_args!("<div class=\"sheet\">{all}</div>\n"));
        self
    }

    /// Adds preformatted text that stays folded until asked for.
    #[must_use]
    pub fn details(mut self, summary: &str, text: &str) -> Self {
        self.push(format_args!(
            "<details><summary>{}</summary><pre>{}</pre></details>\n",
            escape(summary),
            escape(text)
        ));
        self
    }

    /// Adds a receipt as a section: its quantities with sources, power over time, warnings, phases, the raw JSON.
    #[must_use]
    pub fn receipt(self, receipt: &Receipt) -> Self {
        let mut report = self.section("Receipt").table(&receipt::table(receipt));
        for warning in &receipt.warnings {
            report = report.note(&format!("{}; {}.", warning.message, warning.advice));
        }
        if let Some(svg) = receipt::power_plot(receipt) {
            report = report.figure(&svg, "Average power between readings.");
        }
        let scopes = receipt::scopes(receipt);
        if !scopes.is_empty() {
            report = report.table(&scopes);
        }
        report.details("Receipt as JSON", &receipt.to_json())
    }

    /// The whole file.
    pub fn to_html(&self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
             <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}</main>\n</body>\n</html>\n",
            self.title, self.body
        )
    }

    fn push(&mut self, text: std::fmt::Arguments) {
        self.body.write_fmt(text).expect("writing to a String cannot fail");
    }
}

/// Bytes as text (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let four = |three: &[u8]| {
        let byte = |at: usize| three.get(at).map_or(0, |byte| usize::from(*byte));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        [18, 12, 6, 0].map(|shift| LETTERS[bits >> shift & 63] as char)
    };
    let mut text: String = bytes.chunks(3).flat_map(four).collect();
    let padding = (3 - bytes.len() % 3) % 3;
    text.truncate(text.len() - padding);
    text + &"=".repeat(padding)
}

#[cfg(test)]
mod tests {
    use wattle_meter::{Meter, MeterConfig};

    use super::*;
    use crate::{Align, Axis, Plot};

    const HOSTILE: &str =
        "</pre></title><script>alert('x')</script><img src=\"http://example.com/\">\u{1b}[2J";

    fn hostile_report() -> String {
        let mut receipt = Meter::start(MeterConfig::new(["wattle", HOSTILE])).stop();
        receipt.labels.insert(HOSTILE.to_owned(), HOSTILE.to_owned());
        receipt.seeds.insert(HOSTILE.to_owned(), 1);
        receipt.machine.cpu_model = Some(HOSTILE.to_owned());
        let mut table = Table::new([(HOSTILE, Align::Left)]);
        table.row([HOSTILE]);
        let plot =
            Plot::new(HOSTILE, Axis::linear(HOSTILE), Axis::linear(HOSTILE)).line(HOSTILE, [(1.0, 1.0)]);
        Report::new(HOSTILE, HOSTILE)
            .section(HOSTILE)
            .text(HOSTILE)
            .note(HOSTILE)
            .headline(&[(HOSTILE, HOSTILE)])
            .table(&table)
            .figure(&plot.to_svg(), HOSTILE)
            .details(HOSTILE, HOSTILE)
            .receipt(&receipt)
            .to_html()
    }

    #[test]
    fn hostile_names_stay_text_everywhere() {
        let html = hostile_report();
        for forbidden in ["<script", "<img", "\u{1b}", "</pre></title>"] {
            assert!(!html.contains(forbidden), "{forbidden:?} came through");
        }
    }

    #[test]
    fn tags_balance() {
        let html = hostile_report();
        for tag in ["main", "div", "table", "tr", "td", "p", "figure", "svg", "details", "pre", "h2", "style"]
        {
            let opened =
                html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "<{tag}>");
        }
    }

    #[test]
    fn the_page_asks_for_nothing_from_outside() {
        let html = Report::new("t", "s").text("x").to_html();
        for forbidden in ["src=", "href=", "@import", "url(", "<script"] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        assert!(html.contains("default-src 'none'"));
    }

    #[test]
    fn pictures_are_part_of_the_page_and_their_captions_text() {
        // The test vectors of RFC 4648, section 10.
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        let html = Report::new("t", "s").pictures(&[(b"foo".to_vec(), HOSTILE.to_owned())]).to_html();
        assert!(
            html.contains("src=\"data:image/png;base64,Zm9v\"") && html.contains("img-src data:"),
            "{html}"
        );
        assert!(!html.contains("<script") && html.matches("<img").count() == 1, "{html}");
    }

    #[test]
    fn the_receipt_shows_sources_and_warnings() {
        let html = hostile_report();
        assert!(html.contains("monotonic-clock"));
        assert!(html.contains("class=\"note\""), "a run this short warns");
        assert!(html.contains("wattle.receipt/1"));
    }
}
