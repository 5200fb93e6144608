//! The few SVG elements that our drawings need. Colours are custom properties with a fallback, so that a drawing
//! follows the page's light or dark theme and still stands alone.

use std::fmt::Write;

use crate::escape::escape;

/// How many series have a colour and a marker of their own before they repeat.
const SERIES: usize = 6;

/// Okabe and Ito's palette (2008), which people with colour blindness can tell apart.
const COLOURS: [&str; SERIES] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The colour of the `index`-th series.
pub(crate) fn colour(index: usize) -> String {
    let i = index % SERIES;
    format!("var(--s{i},{})", COLOURS[i])
}

/// Text and axis lines.
pub(crate) const INK: &str = "var(--ink,#333)";
/// Quieter text.
pub(crate) const QUIET: &str = "var(--quiet,#666)";
/// Grid lines.
pub(crate) const GRID: &str = "var(--grid,#e2e2e2)";
/// The colour behind the drawing.
pub(crate) const PAPER: &str = "var(--paper,#fff)";

/// Which end of a text stands at its position.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing under construction.
#[derive(Debug)]
pub(crate) struct Drawing {
    body: String,
    width: f64,
    height: f64,
    title: String,
}

impl Drawing {
    /// An empty drawing of the given size in pixels; `title` is what a screen reader says.
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        Drawing { body: String::new(), width, height, title: escape(title) }
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        self.add(format_args!(
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" style=\"stroke:{colour};stroke-width:{width}\"/>",
            from.0, from.1, to.0, to.1
        ));
    }

    pub(crate) fn path(&mut self, points: &[(f64, f64)], colour: &str) {
        let text: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(
            "<polyline points=\"{}\" style=\"fill:none;stroke:{colour};stroke-width:1.8;stroke-linejoin:round\"/>",
            text.join(" ")
        ));
    }

    pub(crate) fn rectangle(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: &str) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"1.5\" style=\"fill:{colour}\"/>"
        ));
    }

    /// A square in the first colour, as dense as a share in 0..=1.
    pub(crate) fn shade(&mut self, (x, y): (f64, f64), side: f64, share: f64) {
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{side:.1}\" height=\"{side:.1}\" rx=\"1.5\" \
             style=\"fill:{};opacity:{share:.2}\"/>",
            colour(0)
        ));
    }

    /// A point of the `index`-th series; series differ in shape too, for prints without colour.
    pub(crate) fn marker(&mut self, (x, y): (f64, f64), index: usize) {
        let style = format!("fill:{};stroke:{PAPER};stroke-width:0.8", colour(index));
        let polygon = |corners: &[(f64, f64)]| {
            let corners: Vec<String> =
                corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy)).collect();
            format!("<polygon points=\"{}\" style=\"{style}\"/>", corners.join(" "))
        };
        let shape = match index % 4 {
            0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.4\" style=\"{style}\"/>"),
            1 => polygon(&[(-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)]),
            2 => polygon(&[(0.0, -4.2), (4.0, 3.2), (-4.0, 3.2)]),
            _ => polygon(&[(0.0, -4.4), (4.4, 0.0), (0.0, 4.4), (-4.4, 0.0)]),
        };
        self.add(format_args!("{shape}"));
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, colour: &str, size: u32, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" style=\"fill:{colour};font-size:{size}px\">{}</text>",
            escape(text)
        ));
    }

    pub(crate) fn vertical_text(&mut self, (x, y): (f64, f64), text: &str) {
        self.add(format_args!(
            "<text transform=\"translate({x:.1},{y:.1}) rotate(-90)\" text-anchor=\"middle\" \
             style=\"fill:{QUIET};font-size:12px\">{}</text>",
            escape(text)
        ));
    }

    /// The whole `<svg>` element; it shrinks with the page but keeps its proportions.
    pub(crate) fn finish(self) -> String {
        let Drawing { body, width, height, title } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-label=\"{title}\" width=\"{width:.0}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             style=\"max-width:100%;height:auto;font-family:system-ui,sans-serif;font-variant-numeric:tabular-nums\">\n\
             {body}</svg>\n"
        )
    }

    fn add(&mut self, element: std::fmt::Arguments) {
        writeln!(self.body, "{element}").expect("writing to a String cannot fail");
    }
}

/// About how wide `text` is drawn at 12 px.
pub(crate) fn text_width(text: &str) -> f64 {
    crate::table::width(text) as f64 * 6.7
}

/// `text` cut to `most` terminal columns, with an ellipsis where something is missing.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    if crate::table::width(text) <= most {
        return text.to_owned();
    }
    let mut short = String::new();
    for c in text.chars() {
        let candidate = format!("{short}{c}");
        if crate::table::width(&candidate) >= most {
            break;
        }
        short = candidate;
    }
    short + "…"
}
