//! Pictures of arrays: small squares in blocks, each as dark as it is busy, as SVG.

use crate::svg::{Anchor, Drawing, GRID, INK, QUIET, shortened, text_width};

const WIDTH: f64 = 640.0;
/// Side of a square where there is room, and the least that is still drawn as one.
const SIDE: f64 = 9.0;
const LEAST: f64 = 1.5;
/// Gap between squares, and between blocks.
const GAP: f64 = 1.0;
const BLOCK_GAP: f64 = 4.0;
/// Longest name shown, in characters.
const NAME: usize = 22;
/// Density of an element that is hardly ever busy.
const FAINTEST: f64 = 0.2;

/// One array: how busy each of its elements is, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Plate {
    /// What is shown above it.
    pub name: String,
    /// Rows of shares in 0..=1; an idle element has 0.
    pub rows: Vec<Vec<f64>>,
}

/// Several arrays of one shape side by side.
#[derive(Debug, Clone)]
pub struct Tiles {
    title: String,
    block: [usize; 2],
    plates: Vec<Plate>,
}

impl Tiles {
    /// A picture without arrays; blocks of `block` rows and columns are set apart.
    pub fn new(title: impl Into<String>, block: [usize; 2]) -> Self {
        Tiles { title: title.into(), block: block.map(|n| n.max(1)), plates: Vec::new() }
    }

    /// Adds an array.
    #[must_use]
    pub fn plate(mut self, plate: Plate) -> Self {
        self.plates.push(plate);
        self
    }

    /// The picture as one `<svg>` element.
    pub fn to_svg(&self) -> String {
        let columns = self.plates.iter().flat_map(|p| &p.rows).map(Vec::len).max().unwrap_or(0);
        let rows = self.plates.iter().map(|p| p.rows.len()).max().unwrap_or(0);
        let gaps = |n: usize, block: usize| BLOCK_GAP * (n.saturating_sub(1) / block) as f64;
        let room = WIDTH - gaps(columns, self.block[1]);
        let side = (room / columns.max(1) as f64 - GAP).clamp(LEAST, SIDE);
        let gap = if side > LEAST { GAP } else { 0.0 };
        let at =
            |index: usize, block: usize| index as f64 * (side + gap) + BLOCK_GAP * (index / block) as f64;
        let extent = |n: usize, block: usize| n as f64 * (side + gap) + gaps(n, block);
        let (wide, high) = (extent(columns, self.block[1]), extent(rows, self.block[0]));
        let names = self.plates.iter().map(|p| text_width(&shortened(&p.name, NAME)));
        let step = wide.max(names.fold(0.0, f64::max)) + 18.0;
        let across = ((WIDTH / step) as usize).max(1);
        let down = self.plates.len().div_ceil(across);
        let mut d = Drawing::new(WIDTH.max(wide), 30.0 + down as f64 * (high + 40.0), &self.title);
        d.text((0.0, 16.0), Anchor::Start, INK, 14, &self.title);
        for (index, plate) in self.plates.iter().enumerate() {
            let left = (index % across) as f64 * step;
            let top = 44.0 + (index / across) as f64 * (high + 40.0);
            d.text((left, top - 6.0), Anchor::Start, QUIET, 12, &shortened(&plate.name, NAME));
            for (r, row) in plate.rows.iter().enumerate() {
                for (c, &share) in row.iter().enumerate() {
                    let place = (left + at(c, self.block[1]), top + at(r, self.block[0]));
                    d.rectangle(place, side, side, GRID);
                    // What is busy at all must not look idle.
                    if share > 0.0 {
                        d.shade(place, side, FAINTEST + (1.0 - FAINTEST) * share.min(1.0));
                    }
                }
            }
        }
        d.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_drawn_and_busy_ones_are_shaded() {
        let plate = Plate { name: "conv1".into(), rows: vec![vec![0.0, 0.5], vec![1.0, 2.0]] };
        let svg = Tiles::new("t", [1, 2]).plate(plate.clone()).plate(plate).to_svg();
        assert_eq!(svg.matches("<rect").count(), 2 * (4 + 3));
        assert!(svg.contains("opacity:0.60") && svg.contains("opacity:1.00") && !svg.contains("opacity:2"));
    }

    #[test]
    fn a_large_array_stays_within_the_page_and_an_empty_one_is_a_drawing() {
        let rows = vec![vec![0.5; 256]; 4];
        let svg = Tiles::new("t", [4, 256]).plate(Plate { name: "<b>".repeat(50), rows }).to_svg();
        assert!(svg.contains("width=\"640\"") && !svg.contains("<b>"));
        assert!(Tiles::new("t", [0, 0]).to_svg().contains("</svg>"));
    }
}
