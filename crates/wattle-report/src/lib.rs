//! Tables, plots, the HTML report.
//!
//! Everything here turns results into text: a [`Table`] for the terminal or a page, a [`Plot`] or [`Bars`] as
//! SVG, a [`Report`] as one self-contained HTML file, a [`Receipt`](wattle_meter::Receipt) as a table beside its
//! sources. Nothing is printed, written or fetched; foreign names are escaped on the way in.

mod bars;
pub mod derivation;
mod escape;
pub mod figures;
pub mod ledger;
pub mod measured;
pub mod number;
mod plot;
pub mod receipt;
mod report;
mod scale;
pub mod scaling;
pub mod schedule;
mod svg;
mod table;
mod tiles;

pub use bars::{Bar, Bars};
pub use escape::{escape, visible, visible_lines};
pub use plot::{Plot, Point};
pub use report::Report;
pub use scale::{Axis, Mapping};
pub use table::{Align, Table};
pub use tiles::{Plate, Tiles};
