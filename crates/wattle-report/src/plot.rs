//! Line charts and scatter plots with axes, legend and error bars, as SVG.

use crate::scale::{Axis, Scale, fits, tick_label};
use crate::svg::{Anchor, Drawing, GRID, INK, QUIET, colour, shortened, text_width};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 46.0;
/// Beyond this many points markers would hide the line.
const MARKERS: usize = 40;
/// Longest series name shown, in characters.
const NAME: usize = 40;

/// One point, with the interval of its y where it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Across.
    pub x: f64,
    /// Up.
    pub y: f64,
    /// Lower and upper end of the error bar.
    pub interval: Option<(f64, f64)>,
}

impl From<(f64, f64)> for Point {
    fn from((x, y): (f64, f64)) -> Self {
        Point { x, y, interval: None }
    }
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    connected: bool,
    points: Vec<Point>,
}

/// A plot of one or more series over two axes.
///
/// Points that cannot stand on an axis (not finite, or not positive on a logarithmic one) are left out, and the
/// legend says how many: a gap must not look like data.
///
/// ```
/// use wattle_report::{Axis, Plot};
/// let svg = Plot::new("Accuracy", Axis::log("density"), Axis::linear("accuracy (%)"))
///     .line("validation", [(1.0, 97.0), (0.1, 96.8), (0.02, 90.1)])
///     .to_svg();
/// assert!(svg.starts_with("<svg"));
/// ```
#[derive(Debug, Clone)]
pub struct Plot {
    title: String,
    x: Axis,
    y: Axis,
    series: Vec<Series>,
}

impl Plot {
    /// A plot without data.
    pub fn new(title: impl Into<String>, x: Axis, y: Axis) -> Self {
        Plot { title: title.into(), x, y, series: Vec::new() }
    }

    /// Adds a series whose points are connected in the order given.
    #[must_use]
    pub fn line(self, name: impl Into<String>, points: impl IntoIterator<Item = impl Into<Point>>) -> Self {
        self.with(name.into(), true, points)
    }

    /// Adds a series of separate points.
    #[must_use]
    pub fn scatter(
        self,
        name: impl Into<String>,
        points: impl IntoIterator<Item = impl Into<Point>>,
    ) -> Self {
        self.with(name.into(), false, points)
    }

    fn with(
        mut self,
        name: String,
        connected: bool,
        points: impl IntoIterator<Item = impl Into<Point>>,
    ) -> Self {
        self.series.push(Series { name, connected, points: points.into_iter().map(Into::into).collect() });
        self
    }

    /// The plot as one `<svg>` element.
    pub fn to_svg(&self) -> String {
        let shown: Vec<(usize, Vec<Point>)> =
            self.series.iter().enumerate().map(|(i, s)| (i, self.showable(s))).collect();
        let points = || shown.iter().flat_map(|(_, points)| points);
        let x = Scale::fit(self.x.mapping, points().map(|p| p.x));
        let ends = |p: &Point| {
            let (low, high) = p.interval.unwrap_or((p.y, p.y));
            [p.y, low, high]
        };
        let y = Scale::fit(self.y.mapping, points().flat_map(ends));
        let labels = || y.ticks.iter().map(|t| tick_label(*t));
        let left = 34.0 + labels().map(|l| text_width(&l)).fold(0.0, f64::max);
        let legend = self.legend(&shown);
        let top = 34.0 + 18.0 * legend.last().map_or(0.0, |entry| entry.row + 1.0);
        let frame = Frame { left, top, width: WIDTH - left - RIGHT, height: HEIGHT - 34.0 - BOTTOM };
        let total_height = top + frame.height + BOTTOM;
        let mut d = Drawing::new(WIDTH, total_height, &self.title);
        d.text((0.0, 16.0), Anchor::Start, INK, 14, &self.title);
        for entry in &legend {
            let at = (10.0 + entry.x, 30.0 + 18.0 * entry.row);
            if self.series[entry.index].connected {
                d.line((at.0 - 9.0, at.1), (at.0 + 9.0, at.1), &colour(entry.index), 1.8);
            }
            d.marker(at, entry.index);
            d.text((at.0 + 14.0, at.1 + 4.0), Anchor::Start, QUIET, 12, &entry.text);
        }
        self.draw_axes(&mut d, &frame, &x, &y);
        for (index, points) in &shown {
            draw_series(&mut d, &frame, (&x, &y), *index, self.series[*index].connected, points);
        }
        if points().next().is_none() {
            let middle = (frame.left + frame.width / 2.0, frame.top + frame.height / 2.0);
            d.text(middle, Anchor::Middle, QUIET, 12, "no data");
        }
        d.finish()
    }

    fn showable(&self, series: &Series) -> Vec<Point> {
        let y_fits = |y| fits(self.y.mapping, y);
        let shown = series.points.iter().filter(|p| fits(self.x.mapping, p.x) && y_fits(p.y));
        // An error bar that leaves a logarithmic axis is dropped, its point stays.
        shown.map(|p| Point { interval: p.interval.filter(|i| y_fits(i.0) && y_fits(i.1)), ..*p }).collect()
    }

    /// The legend's entries, set in rows; none for a single series of which nothing is missing.
    fn legend(&self, shown: &[(usize, Vec<Point>)]) -> Vec<LegendEntry> {
        let missing = |i: usize| self.series[i].points.len() - shown[i].1.len();
        if self.series.len() == 1 && missing(0) == 0 {
            return Vec::new();
        }
        let (mut x, mut row) = (0.0, 0.0);
        let mut entries = Vec::new();
        for index in 0..self.series.len() {
            let mut text = shortened(&self.series[index].name, NAME);
            match missing(index) {
                0 => {}
                1 => text += " (1 point cannot be shown)",
                n => text += &format!(" ({n} points cannot be shown)"),
            }
            let width = text_width(&text) + 42.0;
            if x > 0.0 && x + width > WIDTH {
                (x, row) = (0.0, row + 1.0);
            }
            entries.push(LegendEntry { index, text, x, row });
            x += width;
        }
        entries
    }

    fn draw_axes(&self, d: &mut Drawing, frame: &Frame, x: &Scale, y: &Scale) {
        for tick in &y.ticks {
            let at = frame.y(y.position(*tick));
            d.line((frame.left, at), (frame.right(), at), GRID, 1.0);
            d.text((frame.left - 7.0, at + 4.0), Anchor::End, QUIET, 12, &tick_label(*tick));
        }
        for tick in &x.ticks {
            let at = frame.x(x.position(*tick));
            d.line((at, frame.bottom()), (at, frame.bottom() + 4.0), QUIET, 1.0);
            d.text((at, frame.bottom() + 18.0), Anchor::Middle, QUIET, 12, &tick_label(*tick));
        }
        d.line((frame.left, frame.bottom()), (frame.right(), frame.bottom()), QUIET, 1.0);
        let middle = (frame.left + frame.width / 2.0, frame.bottom() + 38.0);
        d.text(middle, Anchor::Middle, QUIET, 12, &self.x.label);
        d.vertical_text((14.0, frame.top + frame.height / 2.0), &self.y.label);
    }
}

struct LegendEntry {
    index: usize,
    text: String,
    x: f64,
    row: f64,
}

/// Where in the drawing the data go.
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

impl Frame {
    fn x(&self, position: f64) -> f64 {
        self.left + position * self.width
    }

    fn y(&self, position: f64) -> f64 {
        self.top + (1.0 - position) * self.height
    }

    fn right(&self) -> f64 {
        self.left + self.width
    }

    fn bottom(&self) -> f64 {
        self.top + self.height
    }
}

fn draw_series(
    d: &mut Drawing,
    frame: &Frame,
    (x, y): (&Scale, &Scale),
    index: usize,
    connected: bool,
    points: &[Point],
) {
    let place = |p: &Point| (frame.x(x.position(p.x)), frame.y(y.position(p.y)));
    for point in points {
        if let Some((low, high)) = point.interval {
            let at = frame.x(x.position(point.x));
            let (low, high) = (frame.y(y.position(low)), frame.y(y.position(high)));
            d.line((at, low), (at, high), &colour(index), 1.0);
            for end in [low, high] {
                d.line((at - 3.0, end), (at + 3.0, end), &colour(index), 1.0);
            }
        }
    }
    if connected {
        d.path(&points.iter().map(place).collect::<Vec<_>>(), &colour(index));
    }
    if !connected || points.len() <= MARKERS {
        points.iter().for_each(|p| d.marker(place(p), index));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plot(x: Axis, y: Axis) -> Plot {
        Plot::new("t", x, y)
    }

    #[test]
    fn a_line_runs_through_its_points_within_the_frame() {
        let svg = plot(Axis::linear("x"), Axis::linear("y")).line("a", [(0.0, 0.0), (10.0, 100.0)]).to_svg();
        assert_eq!(svg.matches("<polyline").count(), 1);
        assert_eq!(svg.matches("<circle").count(), 2, "two markers and no legend for one series");
    }

    #[test]
    fn what_cannot_be_shown_is_counted_in_the_legend() {
        let points = [(1.0, 1.0), (2.0, f64::NAN), (3.0, -1.0), (4.0, 10.0)];
        let svg = plot(Axis::linear("x"), Axis::log("y")).line("loss", points).to_svg();
        assert!(svg.contains("loss (2 points cannot be shown)"), "{svg}");
    }

    #[test]
    fn an_empty_plot_says_so() {
        assert!(plot(Axis::linear("x"), Axis::linear("y")).to_svg().contains("no data"));
    }

    #[test]
    fn error_bars_have_a_stem_and_two_ends() {
        let point = Point { x: 1.0, y: 2.0, interval: Some((1.0, 3.0)) };
        let with = plot(Axis::linear("x"), Axis::linear("y")).scatter("a", [point]).to_svg();
        let bare = Point { interval: None, ..point };
        let spread = [bare, Point { y: 1.0, ..bare }, Point { y: 3.0, ..bare }];
        let without = plot(Axis::linear("x"), Axis::linear("y")).scatter("a", spread).to_svg();
        assert_eq!(with.matches("<line").count(), without.matches("<line").count() + 3);
    }

    #[test]
    fn hostile_names_stay_text() {
        let name = "</svg><script>alert(1)</script>";
        let svg = Plot::new(name, Axis::linear(name), Axis::log(name))
            .line(name, [(1.0, 1.0)])
            .scatter(name, [(1.0, 1.0)])
            .to_svg();
        assert!(!svg.contains("<script>") && svg.matches("</svg>").count() == 1);
    }

    proptest! {
        #[test]
        fn coordinates_are_always_numbers(
            points in prop::collection::vec((any::<f64>(), any::<f64>()), 0..30),
            log: bool,
        ) {
            let axis = |label| if log { Axis::log(label) } else { Axis::linear(label) };
            let svg = plot(axis("x"), axis("y")).line("a", points).to_svg();
            prop_assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
