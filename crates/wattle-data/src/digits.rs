//! The embedded quick-start set: 1,797 handwritten digits of 8 x 8 pixels, integers 0 to 16.
//!
//! Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
//! test part, as the unchanged file `digits.csv.gz` of scikit-learn 1.9.1; see NOTICE.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets, numbered_classes};
use crate::error::{Error, Result};

static PACKED: &[u8] = include_bytes!("digits.csv.gz");

/// Loads the set; it has no test part of its own.
pub(super) fn load() -> Result<Dataset> {
    let broken = |found: String| {
        Error::machine("the embedded digits", found).remedy("rebuild wattle from clean sources")
    };
    let mut text = String::new();
    GzDecoder::new(PACKED).read_to_string(&mut text).map_err(|error| broken(error.to_string()))?;
    let (mut data, mut labels) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let numbers: std::result::Result<Vec<u8>, _> = line.split(',').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([pixels @ .., label]) if pixels.len() == 64 => {
                data.extend_from_slice(pixels);
                labels.push(u32::from(*label));
            }
            _ => return Err(broken(format!("the line `{line}`"))),
        }
    }
    let shape = SampleShape::Image { channels: 1, height: 8, width: 8 };
    let parts = SourceParts::undivided(labels.len());
    let names = numbered_classes(&labels);
    let targets = Targets::Classes { labels, names };
    Dataset::new("digits".into(), shape, Samples::Bytes { data, full_scale: 16 }, targets, parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_set_is_the_catalogued_one() {
        let digits = load().unwrap();
        let (Samples::Bytes { data, .. }, Targets::Classes { labels, names }) =
            (&digits.samples, &digits.targets)
        else {
            panic!("digits are bytes with classes")
        };
        assert_eq!((digits.count(), data.len(), names.len()), (1797, 1797 * 64, 10));
        assert_eq!(data.iter().max(), Some(&16));
        for class in 0..10 {
            let members = labels.iter().filter(|&&label| label == class).count();
            assert!((174..=183).contains(&members), "{members} of class {class}");
        }
        assert_eq!(digits.fingerprint(), "11d9be84c99c31f0");
    }
}
