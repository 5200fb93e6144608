//! A sample as a small picture, to be looked at.

use crate::column::Column;
use crate::error::{Error, Result};
use crate::image::Pixels;
use crate::table::Table;

/// A picture column of a sample as the bytes of a PNG file, no side above `side` pixels; `None` where the column is no
/// picture. Numbers without a full scale are stretched from their smallest to their largest; of other channels than one or
/// three the first is shown.
///
/// # Errors
/// When the sample cannot be read.
///
/// # Panics
/// If there is no such sample or column.
pub fn thumbnail(table: &dyn Table, sample: usize, column: usize, side: usize) -> Result<Option<Vec<u8>>> {
    let Some(picture) = table.picture(column) else { return Ok(None) };
    let info = &table.columns()[column];
    let mut bytes = vec![0; info.bytes()];
    table.read(sample, column, &mut bytes)?;
    let (name, extents) = (info.name.clone(), info.extents.clone());
    let numbers = Column { name, dtype: info.dtype, extents, bytes }.to_f64();
    let plane = picture.height * picture.width;
    let channels = if numbers.len() == 3 * plane { 3 } else { 1 };
    let shown = &numbers[..channels * plane];
    let (low, high) = match table.full_scale(column) {
        1.0 => shown.iter().fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(*x), high.max(*x))),
        scale => (0.0, f64::from(scale)),
    };
    let range = if high > low { high - low } else { 1.0 };
    let byte = |x: f64| ((x - low) / range * 255.0).round().clamp(0.0, 255.0) as u8;
    let pixels = Pixels {
        width: picture.width,
        height: picture.height,
        channels,
        bytes: (0..plane).flat_map(|at| (0..channels).map(move |c| byte(shown[c * plane + at]))).collect(),
    };
    let scale = (side as f64 / picture.width.max(picture.height) as f64).min(1.0);
    let scaled = |extent: usize| ((extent as f64 * scale).round() as usize).max(1);
    let (height, width) = (scaled(picture.height), scaled(picture.width));
    let mut planes = vec![0; channels * height * width];
    pixels.write_inside([channels, height, width], &mut planes);
    let at = |place: usize| (0..channels).map(move |c| c * height * width + place);
    let interleaved: Vec<u8> = (0..height * width).flat_map(at).map(|place| planes[place]).collect();
    encoded(width, height, channels, &interleaved)
        .map(Some)
        .map_err(|error| Error::machine(format_args!("{}, sample {sample}", table.name()), error))
}

fn encoded(
    width: usize,
    height: usize,
    channels: usize,
    bytes: &[u8],
) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(if channels == 3 { png::ColorType::Rgb } else { png::ColorType::Grayscale });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{Dataset, SampleShape, Samples, SourceParts, Targets};
    use crate::image;

    fn pictures(shape: SampleShape, samples: Samples) -> Dataset {
        let targets = Targets::Values { values: vec![0.0], width: 1 };
        Dataset::new("made".into(), shape, samples, targets, SourceParts::undivided(1)).unwrap()
    }

    #[test]
    fn a_sample_is_shown_with_its_colours_and_not_larger_than_asked() {
        let shape = SampleShape::Image { channels: 3, height: 2, width: 4 };
        let data = (0..24).map(|at| if at < 8 { 16 } else { 0 }).collect();
        let table = pictures(shape, Samples::Bytes { data, full_scale: 16 });
        let file = tempfile::NamedTempFile::new().unwrap();
        for (side, width, height) in [(96, 4, 2), (2, 2, 1)] {
            std::fs::write(file.path(), thumbnail(&table, 0, 0, side).unwrap().unwrap()).unwrap();
            let shown = image::read(file.path()).unwrap();
            assert_eq!((shown.width, shown.height, &shown.bytes[..3]), (width, height, &[255, 0, 0][..]));
        }
        assert_eq!(thumbnail(&table, 0, 1, 96).unwrap(), None, "a target is no picture");
        let floats = pictures(
            SampleShape::Image { channels: 1, height: 1, width: 3 },
            Samples::Floats(vec![-1.0, 0.0, 1.0]),
        );
        std::fs::write(file.path(), thumbnail(&floats, 0, 0, 96).unwrap().unwrap()).unwrap();
        assert_eq!(image::read(file.path()).unwrap().bytes, [0, 128, 255]);
    }
}
