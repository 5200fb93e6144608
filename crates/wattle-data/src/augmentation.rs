//! Random crops and flips, each a pure function of (seed, epoch, sample).

use std::fmt;
use std::str::FromStr;

use wattle_graph::DType;

use crate::error::{Error, Result};
use crate::random::{Purpose, Stream};
use crate::table::Picture;

/// What is done to training images: `none`, `crop:4`, `flip`, `crop:4+flip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// Pixels of black border added on each side before an image of the original size is cut out at random.
    pub crop: u32,
    /// Whether half of the images are mirrored left to right.
    pub flip: bool,
}

/// The choice made for one image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Draw {
    /// Rows the content moves up (negative: down).
    pub up: i32,
    /// Columns the content moves to the left (negative: to the right), before mirroring.
    pub left: i32,
    pub mirrored: bool,
}

impl Augmentation {
    /// Leaves images as they are.
    pub const NONE: Augmentation = Augmentation { crop: 0, flip: false };

    /// The choice for a sample in an epoch.
    pub(super) fn draw(&self, seed: u64, epoch: u64, sample: u64) -> Draw {
        if *self == Self::NONE {
            return Draw::default();
        }
        let mut stream = Stream::new(seed, Purpose::Augmentation, &[epoch, sample]);
        // All three are always drawn: switching the flip on or off leaves the crops alone.
        let mut shift = || stream.below(2 * u64::from(self.crop) + 1) as i32 - self.crop as i32;
        let (up, left) = (shift(), shift());
        Draw { up, left, mirrored: stream.chance(0.5) && self.flip }
    }
}

impl FromStr for Augmentation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let fault = || {
            Error::input(format_args!("augmentation `{text}`"), "not an augmentation")
                .expected("none, crop:N (N pixels, 1 to 64), flip, or crop:N+flip")
        };
        let mut found = Self::NONE;
        if text == "none" {
            return Ok(found);
        }
        for part in text.split('+') {
            match part.split_once(':') {
                None if part == "flip" && !found.flip => found.flip = true,
                Some(("crop", pixels)) if found.crop == 0 => {
                    found.crop = pixels.parse().ok().filter(|n| (1..=64).contains(n)).ok_or_else(fault)?;
                }
                _ => return Err(fault()),
            }
        }
        Ok(found)
    }
}

impl fmt::Display for Augmentation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.crop, self.flip) {
            (0, false) => write!(f, "none"),
            (0, true) => write!(f, "flip"),
            (crop, false) => write!(f, "crop:{crop}"),
            (crop, true) => write!(f, "crop:{crop}+flip"),
        }
    }
}

/// Writes a picture of any number of channels into `out`, shifted and mirrored; what is shifted in is its border.
pub(super) fn move_picture(picture: Picture, dtype: DType, draw: Draw, from: &[u8], out: &mut [u8]) {
    let Picture { height, width, border } = picture;
    let size = dtype.size();
    let border = number(dtype, border);
    let (rows, columns) = (height as i64, width as i64);
    for (line, to) in out.chunks_exact_mut(width * size).enumerate() {
        let (channel, row) = (line / height, (line % height) as i64 + i64::from(draw.up));
        let inside = (0..rows).contains(&row);
        let start = if inside { (channel * height + row as usize) * width * size } else { 0 };
        for (column, to) in (0i64..).zip(to.chunks_exact_mut(size)) {
            let column = if draw.mirrored { columns - 1 - column } else { column } + i64::from(draw.left);
            let at = start + column.max(0) as usize * size;
            to.copy_from_slice(if inside && (0..columns).contains(&column) {
                &from[at..at + size]
            } else {
                &border[..size]
            });
        }
    }
}

/// A number as the bytes of an element; only the first `dtype.size()` count.
fn number(dtype: DType, value: f64) -> [u8; 8] {
    let mut bytes = [0; 8];
    macro_rules! put {
        ($value:expr) => {{
            let value = $value.to_ne_bytes();
            bytes[..value.len()].copy_from_slice(&value);
        }};
    }
    match dtype {
        DType::F32 => put!((value as f32)),
        DType::F64 => put!(value),
        DType::I8 => put!((value as i8)),
        DType::I16 => put!((value as i16)),
        DType::I32 => put!((value as i32)),
        DType::I64 => put!((value as i64)),
        DType::U8 | DType::Bool => put!((value as u8)),
        DType::U16 => put!((value as u16)),
        DType::U32 => put!((value as u32)),
        DType::U64 => put!((value as u64)),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crops_and_flips_move_pixels_as_they_say() {
        let moved = |border, up, left, mirrored| {
            let mut out = [9; 6];
            let picture = Picture { height: 2, width: 3, border };
            move_picture(picture, DType::U8, Draw { up, left, mirrored }, &[1, 2, 3, 4, 5, 6], &mut out);
            out
        };
        assert_eq!(moved(0.0, 0, 0, false), [1, 2, 3, 4, 5, 6]);
        assert_eq!(moved(0.0, 0, 0, true), [3, 2, 1, 6, 5, 4]);
        assert_eq!(moved(0.0, 1, 0, false), [4, 5, 6, 0, 0, 0]);
        assert_eq!(moved(7.0, 0, -1, false), [7, 1, 2, 7, 4, 5]);
        assert_eq!(moved(0.0, -1, 1, true), [0, 0, 0, 0, 3, 2]);
    }

    #[test]
    fn every_channel_and_every_type_moves_alike() {
        let values: Vec<i64> = (1..9).collect();
        let from: Vec<u8> = values.iter().flat_map(|v| v.to_ne_bytes()).collect();
        let mut out = vec![0; from.len()];
        let picture = Picture { height: 2, width: 2, border: -100.0 };
        move_picture(picture, DType::I64, Draw { up: 1, left: 0, mirrored: true }, &from, &mut out);
        let found: Vec<i64> = out.as_chunks().0.iter().map(|b| i64::from_ne_bytes(*b)).collect();
        assert_eq!(found, [4, 3, -100, -100, 8, 7, -100, -100]);
    }

    #[test]
    fn text_survives_a_round_trip() {
        for text in ["none", "flip", "crop:4", "crop:4+flip"] {
            assert_eq!(text.parse::<Augmentation>().unwrap().to_string(), text);
        }
        for text in ["", "crop", "crop:0", "crop:65", "flip+flip", "crop:4+crop:4", "none+flip", "rotate"] {
            assert!(text.parse::<Augmentation>().is_err(), "{text}");
        }
    }

    #[test]
    fn draws_cover_their_range_and_flips_leave_crops_alone() {
        let both: Augmentation = "crop:2+flip".parse().unwrap();
        let crop: Augmentation = "crop:2".parse().unwrap();
        let draws: Vec<Draw> = (0..200).map(|sample| both.draw(1, 0, sample)).collect();
        for shift in -2..=2 {
            assert!(draws.iter().any(|draw| draw.up == shift) && draws.iter().any(|draw| draw.left == shift));
        }
        assert!((70..130).contains(&draws.iter().filter(|draw| draw.mirrored).count()));
        for (sample, draw) in draws.iter().enumerate() {
            assert_eq!(crop.draw(1, 0, sample as u64), Draw { mirrored: false, ..*draw });
        }
        assert_ne!(draws, (0..200).map(|sample| both.draw(1, 1, sample)).collect::<Vec<_>>());
    }
}
