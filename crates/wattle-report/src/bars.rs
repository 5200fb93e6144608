//! Horizontal bar charts: names of any length, one or several bars each, as SVG.

use crate::scale::{Mapping, Scale, fits, tick_label};
use crate::svg::{Anchor, Drawing, GRID, INK, QUIET, colour, shortened, text_width};

const WIDTH: f64 = 640.0;
const BAR: f64 = 14.0;
/// Longest label shown, in characters.
const NAME: usize = 36;

/// The length of one bar, with its interval where it has one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    /// The length.
    pub value: f64,
    /// Lower and upper end of the error bar.
    pub interval: Option<(f64, f64)>,
}

impl From<f64> for Bar {
    fn from(value: f64) -> Self {
        Bar { value, interval: None }
    }
}

/// Groups of bars from zero to the right, each end labelled with its value. A missing bar is left out and marked
/// `n/a`; it never looks like zero.
#[derive(Debug, Clone)]
pub struct Bars {
    title: String,
    axis: String,
    series: Vec<String>,
    groups: Vec<(String, Vec<Option<Bar>>)>,
    label: fn(f64) -> String,
    stacked: bool,
}

impl Bars {
    /// A chart without bars. `axis` says what the length means, with its unit; `series` names the bars of a group.
    pub fn new(
        title: impl Into<String>,
        axis: impl Into<String>,
        series: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let series = series.into_iter().map(Into::into).collect();
        Bars {
            title: title.into(),
            axis: axis.into(),
            series,
            groups: Vec::new(),
            label: tick_label,
            stacked: false,
        }
    }

    /// How values are written beside the bars, such as [`number::seconds`](crate::number::seconds).
    #[must_use]
    pub fn labelled(mut self, label: fn(f64) -> String) -> Self {
        self.label = label;
        self
    }

    /// Lays the bars of a group end to end, as parts of a sum that is written beside them; intervals are not drawn.
    #[must_use]
    pub fn stacked(mut self) -> Self {
        self.stacked = true;
        self
    }

    /// Adds a group of bars, one for each series.
    #[must_use]
    pub fn group(mut self, name: impl Into<String>, bars: impl IntoIterator<Item = Option<Bar>>) -> Self {
        let mut bars: Vec<Option<Bar>> =
            bars.into_iter().map(|bar| bar.filter(|b| fits(Mapping::Linear, b.value))).collect();
        bars.resize(self.series.len(), None);
        self.groups.push((name.into(), bars));
        self
    }

    /// The chart as one `<svg>` element.
    pub fn to_svg(&self) -> String {
        let bars = || self.groups.iter().flat_map(|(_, bars)| bars.iter().flatten());
        let ends = |b: &Bar| match b.interval {
            Some((low, high)) if fits(Mapping::Linear, low) && fits(Mapping::Linear, high) => {
                [b.value, low, high]
            }
            _ => [b.value; 3],
        };
        let sum = |bars: &[Option<Bar>]| bars.iter().flatten().map(|b| b.value.max(0.0)).sum::<f64>();
        let sums: Vec<f64> = self.groups.iter().filter(|_| self.stacked).map(|(_, bars)| sum(bars)).collect();
        let lengths = || {
            let single = bars().filter(|_| !self.stacked);
            single.flat_map(ends).chain(sums.iter().copied())
        };
        // Zero belongs on the axis: the length of a bar is its meaning.
        let scale = Scale::fit(Mapping::Linear, std::iter::once(0.0).chain(lengths()));
        let names: Vec<String> = self.groups.iter().map(|(name, _)| shortened(name, NAME)).collect();
        let left = 22.0 + names.iter().map(|n| text_width(n)).fold(0.0, f64::max);
        let right = 12.0 + lengths().map(|x| text_width(&(self.label)(x))).fold(24.0, f64::max);
        let plot_width = WIDTH - left - right;
        let rows = if self.stacked { 1.0 } else { self.series.len() as f64 };
        let group_height = BAR * rows + 10.0;
        let top = if self.series.len() > 1 { 48.0 } else { 30.0 };
        let bottom = top + group_height * self.groups.len() as f64;
        let x = |value: f64| left + scale.position(value) * plot_width;

        let mut d = Drawing::new(WIDTH, bottom + 42.0, &self.title);
        d.text((0.0, 16.0), Anchor::Start, INK, 14, &self.title);
        if self.series.len() > 1 {
            self.draw_legend(&mut d);
        }
        for tick in &scale.ticks {
            d.line((x(*tick), top), (x(*tick), bottom), GRID, 1.0);
            d.text((x(*tick), bottom + 16.0), Anchor::Middle, QUIET, 12, &tick_label(*tick));
        }
        for (g, (name, (_, bars))) in names.iter().zip(&self.groups).enumerate() {
            let y = top + group_height * g as f64 + 5.0;
            let middle = y + BAR * rows / 2.0 + 4.0;
            d.text((left - 8.0, middle), Anchor::End, INK, 12, name);
            if self.stacked {
                let mut from = 0.0;
                for (s, value) in
                    bars.iter().enumerate().map(|(s, b)| (s, b.map_or(0.0, |b| b.value.max(0.0))))
                {
                    d.rectangle((x(from), y + 1.0), x(from + value) - x(from), BAR - 2.0, &colour(s));
                    from += value;
                }
                d.text((x(from) + 5.0, y + BAR - 3.0), Anchor::Start, QUIET, 11, &(self.label)(from));
                continue;
            }
            for (s, bar) in bars.iter().enumerate() {
                let y = y + BAR * s as f64;
                let Some(bar) = bar else {
                    d.text((x(0.0) + 5.0, y + BAR - 3.0), Anchor::Start, QUIET, 11, "n/a");
                    continue;
                };
                let (from, to) = (x(bar.value.min(0.0)), x(bar.value.max(0.0)));
                d.rectangle((from, y + 1.0), to - from, BAR - 2.0, &colour(s));
                let [_, low, high] = ends(bar);
                if low < high {
                    let y = y + BAR / 2.0;
                    d.line((x(low), y), (x(high), y), INK, 1.0);
                    for end in [low, high] {
                        d.line((x(end), y - 3.0), (x(end), y + 3.0), INK, 1.0);
                    }
                }
                let at = (to.max(x(high)) + 5.0, y + BAR - 3.0);
                d.text(at, Anchor::Start, QUIET, 11, &(self.label)(bar.value));
            }
        }
        d.line((x(0.0), top), (x(0.0), bottom), QUIET, 1.0);
        d.text((left + plot_width / 2.0, bottom + 35.0), Anchor::Middle, QUIET, 12, &self.axis);
        d.finish()
    }

    fn draw_legend(&self, d: &mut Drawing) {
        let mut x = 0.0;
        for (i, name) in self.series.iter().enumerate() {
            let name = shortened(name, NAME);
            d.rectangle((x, 26.0), 10.0, 10.0, &colour(i));
            d.text((x + 15.0, 35.0), Anchor::Start, QUIET, 12, &name);
            x += text_width(&name) + 34.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_bar_is_marked_and_not_drawn() {
        let svg = Bars::new("t", "ms", ["dense", "lean"])
            .group("conv1", [Some(2.0.into()), None])
            .group("conv2", [Some(f64::NAN.into()), Some(1.0.into())])
            .to_svg();
        assert_eq!(svg.matches("n/a").count(), 2);
        assert_eq!(svg.matches("<rect").count(), 2 + 2, "two bars and two legend keys");
    }

    #[test]
    fn lengths_are_proportional_from_zero() {
        let svg = Bars::new("t", "ms", ["a"])
            .group("x", [Some(50.0.into())])
            .group("y", [Some(100.0.into())])
            .to_svg();
        let widths: Vec<f64> = svg
            .lines()
            .filter(|l| l.starts_with("<rect"))
            .map(|l| l.split("width=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((widths[1] / widths[0] - 2.0).abs() < 0.01, "{widths:?}");
    }

    #[test]
    fn stacked_bars_lie_end_to_end_and_show_their_sum() {
        let svg = Bars::new("t", "µJ", ["a", "b"])
            .stacked()
            .group("x", [Some(30.0.into()), Some(50.0.into())])
            .group("y", [Some(80.0.into()), None])
            .to_svg();
        let edges: Vec<(f64, f64)> = svg
            .lines()
            .filter(|l| l.starts_with("<rect"))
            .map(|l| {
                let of = |key: &str| -> f64 {
                    l.split(key).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()
                };
                (of("x=\""), of("width=\""))
            })
            .collect();
        let [_, _, a, b, whole, _] = edges[..] else { panic!("{edges:?}") };
        assert!((a.0 + a.1 - b.0).abs() < 0.11 && (a.1 + b.1 - whole.1).abs() < 0.21, "{edges:?}");
        assert_eq!(svg.matches(">80<").count(), 2 + 1, "two sums and a tick");
    }

    #[test]
    fn hostile_and_endless_names_are_escaped_and_shortened() {
        let svg = Bars::new("<b>", "<i>", ["<u>"])
            .group("<script>".repeat(1000), [Some(1.0.into())])
            .group("面".repeat(1000), [Some(1.0.into())])
            .to_svg();
        assert!(!svg.contains("<script>") && !svg.contains("<b>") && svg.len() < 10_000);
    }

    #[test]
    fn a_chart_without_bars_is_still_a_drawing() {
        assert!(Bars::new("t", "ms", Vec::<String>::new()).to_svg().contains("</svg>"));
    }
}
