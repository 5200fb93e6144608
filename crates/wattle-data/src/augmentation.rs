//! Random crops and flips, each a pure function of (seed, epoch, sample).

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::random::{Purpose, Stream};

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

#[cfg(test)]
mod tests {
    use super::*;

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
