//! One image file to bytes of a stated shape: PNG and JPEG, any colour kind, scaled and cropped.
//!
//! Gray becomes three equal channels and colour becomes luma (ITU-R BT.601) where the shape asks for it; transparent
//! pixels are laid over black; 16-bit samples keep their upper byte. The largest centred box of the target's aspect is
//! scaled with a triangle filter as wide as one output pixel (bilinear, antialiased).

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::Path;

use crate::bounded;
use crate::error::{Error, Result};

/// The most pixels an image may have: 2^26, about 8192 x 8192.
const MAX_PIXELS: u64 = 1 << 26;

/// The most passes over the image that a progressive JPEG file may ask for.
const MAX_SCANS: usize = 100;

/// The most bytes of a JPEG file: 256 MiB, four bytes for each pixel of the largest image.
const MAX_JPEG_BYTES: u64 = 1 << 28;

/// What a file's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub width: usize,
    pub height: usize,
    /// Whether it has one colour channel.
    pub gray: bool,
}

/// A decoded image: interleaved 8-bit samples, 1 (gray) or 3 (colour) a pixel.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pixels {
    pub width: usize,
    pub height: usize,
    pub channels: usize,
    pub bytes: Vec<u8>,
}

/// Reads a file's header only.
pub(crate) fn read_header(path: &Path) -> Result<Header> {
    with_file(path, |file| match kind(file)? {
        Kind::Png => Ok(png_header(png_decoder(file))?.0),
        Kind::Jpeg => jpeg_header(&mut jpeg_decoder::Decoder::new(file)),
    })
}

/// Decodes a whole file.
pub(crate) fn read(path: &Path) -> Result<Pixels> {
    with_file(path, decode)
}

fn with_file<T>(path: &Path, work: impl FnOnce(&mut BufReader<File>) -> Decoded<T>) -> Result<T> {
    let file = bounded::open_file(path)?;
    work(&mut BufReader::new(file)).map_err(|problem| {
        Error::input(path.display(), problem)
            .expected("a PNG or JPEG image of at most 67 million pixels")
            .remedy("remove the file from the folder or convert it")
    })
}

/// The classes of the pixels of a mask.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Labels {
    width: usize,
    height: usize,
    labels: Vec<u16>,
}

/// Reads a gray or indexed PNG file as numbers: of a palette its indices, of gray levels the levels.
pub(crate) fn read_labels(path: &Path) -> Result<Labels> {
    let file = bounded::open_file(path)?;
    decode_labels(&mut BufReader::new(file)).map_err(|problem| {
        Error::input(path.display(), problem)
            .expected("a gray or indexed PNG image whose numbers are classes")
            .remedy("save the classes as a gray image of 8 or 16 bits")
    })
}

fn decode_labels<R: BufRead + Seek>(file: &mut R) -> Decoded<Labels> {
    if !matches!(kind(file)?, Kind::Png) {
        return Err("a JPEG image, which does not keep numbers as they are".into());
    }
    let mut decoder = png_decoder(file);
    decoder.set_transformations(png::Transformations::IDENTITY);
    let (Header { width, height, .. }, mut reader) = png_header(decoder)?;
    let size = reader.output_buffer_size().ok_or("an image too large to address")?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(|error| error.to_string())?;
    if !matches!(frame.color_type, png::ColorType::Grayscale | png::ColorType::Indexed) {
        return Err("an image of colours".into());
    }
    let bits = frame.bit_depth as usize;
    let mut labels = Vec::with_capacity(width * height);
    for row in bytes.chunks_exact(frame.line_size.max(1)).take(height) {
        labels.extend((0..width).map(|column| match bits {
            16 => u16::from_be_bytes([row[2 * column], row[2 * column + 1]]),
            bits => {
                let at = column * bits;
                let shift = 8 - bits - at % 8;
                u16::from(row[at / 8] >> shift & ((1u16 << bits) - 1) as u8)
            }
        }));
    }
    if labels.len() == width * height {
        Ok(Labels { width, height, labels })
    } else {
        Err("an incomplete image".into())
    }
}

impl Labels {
    /// The classes at the size that [`Pixels::write_as`] brings the image to: of the nearest pixel in the same box.
    pub(crate) fn nearest(&self, height: usize, width: usize) -> impl Iterator<Item = u16> {
        let scale = (self.width as f64 / width as f64).min(self.height as f64 / height as f64);
        let place = move |from: usize, to: usize, at: usize| {
            let start = (from as f64 - to as f64 * scale) / 2.0;
            ((start + (at as f64 + 0.5) * scale).floor().max(0.0) as usize).min(from - 1)
        };
        (0..height).flat_map(move |row| {
            let line = place(self.height, height, row) * self.width;
            (0..width).map(move |column| self.labels[line + place(self.width, width, column)])
        })
    }
}

type Decoded<T> = std::result::Result<T, String>;

enum Kind {
    Png,
    Jpeg,
}

fn kind(file: &mut impl BufRead) -> Decoded<Kind> {
    match file.fill_buf().map_err(|error| error.to_string())? {
        [0x89, b'P', b'N', b'G', ..] => Ok(Kind::Png),
        [0xff, 0xd8, ..] => Ok(Kind::Jpeg),
        [] => Err("an empty file".into()),
        start => Err(format!("a file of another kind, starting with {:02x?}", &start[..start.len().min(4)])),
    }
}

fn decode<R: BufRead + Seek>(file: &mut R) -> Decoded<Pixels> {
    match kind(file)? {
        Kind::Png => decode_png(file),
        Kind::Jpeg => decode_jpeg(file),
    }
}

fn within_limit(width: usize, height: usize) -> Decoded<()> {
    let pixels = width as u64 * height as u64;
    if pixels == 0 || pixels > MAX_PIXELS { Err(format!("{width} x {height} pixels")) } else { Ok(()) }
}

fn png_decoder<R: BufRead + Seek>(file: R) -> png::Decoder<R> {
    let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: 1 << 28 });
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

fn png_header<R: BufRead + Seek>(decoder: png::Decoder<R>) -> Decoded<(Header, png::Reader<R>)> {
    let reader = decoder.read_info().map_err(|error| error.to_string())?;
    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    within_limit(width, height)?;
    // The decoder reads whole colours.
    if let Some(palette) =
        info.palette.as_ref().filter(|palette| palette.len() % 3 != 0 || palette.is_empty())
    {
        return Err(format!("a palette of {} bytes, which is not a whole number of colours", palette.len()));
    }
    let gray =
        matches!(reader.output_color_type().0, png::ColorType::Grayscale | png::ColorType::GrayscaleAlpha);
    Ok((Header { width, height, gray }, reader))
}

fn decode_png<R: BufRead + Seek>(file: R) -> Decoded<Pixels> {
    let (Header { width, height, .. }, mut reader) = png_header(png_decoder(file))?;
    let size = reader.output_buffer_size().ok_or("an image too large to address")?;
    let mut bytes = vec![0; size];
    let frame = reader.next_frame(&mut bytes).map_err(|error| error.to_string())?;
    bytes.truncate(frame.buffer_size());
    let over_black = |value: u8, alpha: u8| ((u16::from(value) * u16::from(alpha) + 127) / 255) as u8;
    let (channels, bytes) = match frame.color_type {
        png::ColorType::Grayscale => (1, bytes),
        png::ColorType::Rgb => (3, bytes),
        png::ColorType::GrayscaleAlpha => {
            (1, bytes.chunks_exact(2).map(|p| over_black(p[0], p[1])).collect())
        }
        png::ColorType::Rgba => {
            (3, bytes.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|c| over_black(p[c], p[3]))).collect())
        }
        png::ColorType::Indexed => return Err("a palette that could not be expanded".into()),
    };
    complete(Pixels { width, height, channels, bytes })
}

fn jpeg_header<R: BufRead>(decoder: &mut jpeg_decoder::Decoder<R>) -> Decoded<Header> {
    decoder.read_info().map_err(|error| error.to_string())?;
    let info = decoder.info().ok_or("no image header")?;
    let (width, height) = (usize::from(info.width), usize::from(info.height));
    within_limit(width, height)?;
    let gray = matches!(info.pixel_format, jpeg_decoder::PixelFormat::L8 | jpeg_decoder::PixelFormat::L16);
    Ok(Header { width, height, gray })
}

/// Scans of a JPEG file. Each passes over the whole image, whatever it brings; progressive files have about ten.
fn scans(bytes: &[u8]) -> usize {
    let (mut at, mut count) = (2, 0);
    while let Some(&[0xff, marker]) = bytes.get(at..at + 2) {
        match marker {
            // Fill bytes, and markers that stand alone (ISO 10918-1, table B.1).
            0xff => at += 1,
            0x00 | 0x01 | 0xd0..=0xd8 => at += 2,
            0xd9 => break,
            _ => {
                let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { break };
                at += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
        }
        if marker == 0xda {
            count += 1;
            // What follows is coded data up to the next marker: 0xff there is followed by 0, or restarts.
            let rest = bytes.get(at..).unwrap_or_default();
            let is_end = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xd0..=0xd7 | 0xff);
            let Some(length) = rest.windows(2).position(is_end) else { break };
            at += length;
        }
    }
    count
}

fn decode_jpeg<R: BufRead>(mut file: R) -> Decoded<Pixels> {
    let mut bytes = vec![];
    file.by_ref().take(MAX_JPEG_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MAX_JPEG_BYTES {
        return Err(format!("a JPEG file of more than {MAX_JPEG_BYTES} bytes"));
    }
    let count = scans(&bytes);
    if count > MAX_SCANS {
        return Err(format!("a JPEG file of {count} scans, more than {MAX_SCANS}"));
    }
    let mut decoder = jpeg_decoder::Decoder::new(&bytes[..]);
    decoder.set_max_decoding_buffer_size(MAX_PIXELS as usize * 4);
    let Header { width, height, .. } = jpeg_header(&mut decoder)?;
    let bytes = decoder.decode().map_err(|error| error.to_string())?;
    let format = decoder.info().ok_or("no image header")?.pixel_format;
    let (channels, bytes) = match format {
        jpeg_decoder::PixelFormat::L8 => (1, bytes),
        // The decoder gives 16-bit samples in the byte order of the machine.
        jpeg_decoder::PixelFormat::L16 => {
            (1, bytes.chunks_exact(2).map(|b| (u16::from_ne_bytes([b[0], b[1]]) >> 8) as u8).collect())
        }
        jpeg_decoder::PixelFormat::RGB24 => (3, bytes),
        jpeg_decoder::PixelFormat::CMYK32 => {
            let ink = |value: u8, black: u8| ((u16::from(value) * u16::from(black) + 127) / 255) as u8;
            (3, bytes.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|c| ink(255 - p[c], 255 - p[3]))).collect())
        }
    };
    complete(Pixels { width, height, channels, bytes })
}

/// What follows indexes by these extents, so they must be true.
fn complete(pixels: Pixels) -> Decoded<Pixels> {
    let expected = pixels.width * pixels.height * pixels.channels;
    if pixels.bytes.len() == expected { Ok(pixels) } else { Err("an incomplete image".into()) }
}

/// How an image of another size is brought to the one that a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resize {
    /// All of it is kept: scaled to lie inside, centred, the rest black.
    Fit,
    /// It fills the size: scaled to cover it and cropped around its centre, as in training.
    Crop,
}

impl Resize {
    /// Both with their names and a sentence.
    pub const ALL: [(&str, Resize, &str); 2] = [
        ("fit", Resize::Fit, "all of the image, the rest black"),
        ("crop", Resize::Crop, "the middle of the image, as in training"),
    ];
}

impl Pixels {
    /// Writes the image into `out`, channel by channel, scaled and cropped to `[channels, height, width]`.
    pub(crate) fn write_as(&self, [channels, height, width]: [usize; 3], out: &mut [u8]) {
        for (channel, plane) in out.chunks_exact_mut(height * width).enumerate().take(channels) {
            self.resize_plane(&self.channel(channel, channels), height, width, plane);
        }
    }

    /// Writes the whole image into `out`, which is black, scaled to lie inside `[channels, height, width]`, centred.
    pub(crate) fn write_inside(&self, [channels, height, width]: [usize; 3], out: &mut [u8]) {
        let scale = (width as f64 / self.width as f64).min(height as f64 / self.height as f64);
        let side = |own: usize, most: usize| ((own as f64 * scale).round() as usize).clamp(1, most);
        let (inner_height, inner_width) = (side(self.height, height), side(self.width, width));
        let (top, left) = ((height - inner_height) / 2, (width - inner_width) / 2);
        let mut inner = vec![0; inner_height * inner_width];
        for (channel, plane) in out.chunks_exact_mut(height * width).enumerate().take(channels) {
            self.resize_plane(&self.channel(channel, channels), inner_height, inner_width, &mut inner);
            let rows = plane.chunks_exact_mut(width).skip(top);
            for (row, line) in rows.zip(inner.chunks_exact(inner_width)) {
                row[left..left + inner_width].copy_from_slice(line);
            }
        }
    }

    /// One of so many channels: gray is each of them, and colour is luma where there is one.
    fn channel(&self, channel: usize, channels: usize) -> Vec<u8> {
        let luma = |p: &[u8]| {
            ((299 * u32::from(p[0]) + 587 * u32::from(p[1]) + 114 * u32::from(p[2]) + 500) / 1000) as u8
        };
        match (self.channels, channels) {
            (1, _) => self.bytes.clone(),
            (_, 1) => self.bytes.chunks_exact(self.channels).map(luma).collect(),
            _ => self.bytes.iter().skip(channel % self.channels).step_by(self.channels).copied().collect(),
        }
    }

    fn resize_plane(&self, source: &[u8], height: usize, width: usize, out: &mut [u8]) {
        if (self.height, self.width) == (height, width) {
            out.copy_from_slice(source);
            return;
        }
        let scale = (self.width as f64 / width as f64).min(self.height as f64 / height as f64);
        let columns = triangle_weights(self.width, width, scale);
        let rows = triangle_weights(self.height, height, scale);
        let mut narrow = vec![0f32; self.height * width];
        for (line, row) in source.chunks_exact(self.width).zip(narrow.chunks_exact_mut(width)) {
            for ((first, weights), target) in columns.iter().zip(row) {
                *target = weights.iter().zip(&line[*first..]).map(|(w, &v)| w * f32::from(v)).sum();
            }
        }
        for ((first, weights), row) in rows.iter().zip(out.chunks_exact_mut(width)) {
            for (column, target) in row.iter_mut().enumerate() {
                let sum: f32 =
                    weights.iter().enumerate().map(|(i, w)| w * narrow[(first + i) * width + column]).sum();
                *target = sum.round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// For each of `to` output places: the first input place and the weights (summing to 1) of those that follow, for the
/// centred stretch of `to * scale` inputs.
fn triangle_weights(from: usize, to: usize, scale: f64) -> Vec<(usize, Vec<f32>)> {
    let start = (from as f64 - to as f64 * scale) / 2.0;
    let radius = scale.max(1.0);
    (0..to)
        .map(|place| {
            let centre = start + (place as f64 + 0.5) * scale - 0.5;
            let first = (centre - radius).ceil().max(0.0) as usize;
            let last = ((centre + radius).floor().max(0.0) as usize).min(from - 1);
            let first = first.min(last);
            let raw: Vec<f64> =
                (first..=last).map(|at| (1.0 - (at as f64 - centre).abs() / radius).max(1e-9)).collect();
            let sum: f64 = raw.iter().sum();
            (first, raw.iter().map(|w| (w / sum) as f32).collect())
        })
        .collect()
}

/// Encodes a small PNG for tests here and in the folder module.
#[cfg(test)]
pub(crate) fn encode_png(
    width: u32,
    height: u32,
    color: png::ColorType,
    depth: png::BitDepth,
    data: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 200, 100, 50]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::{BitDepth::*, ColorType::*};
    use proptest::prelude::*;
    use std::io::Cursor;

    /// 16 x 12, made for this test: red rises to the right, green rises downwards, blue is 128; quality 95, no
    /// chroma subsampling.
    const COLOUR_JPEG: &[u8] = include_bytes!("testdata/ramp-colour.jpg");
    /// The same size, gray, rising to the right; progressive.
    const GRAY_JPEG: &[u8] = include_bytes!("testdata/ramp-gray.jpg");

    fn decoded(bytes: &[u8]) -> Pixels {
        decode(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn a_jpeg_file_that_passes_over_its_image_without_end_is_refused() {
        assert_eq!((scans(COLOUR_JPEG), scans(GRAY_JPEG) > 1), (1, true));
        // The last scan, again and again.
        let end = GRAY_JPEG.len() - 2;
        let scan = GRAY_JPEG.windows(2).rposition(|pair| pair == [0xff, 0xda]).unwrap();
        let mut bytes = GRAY_JPEG[..end].to_vec();
        for _ in 0..MAX_SCANS {
            bytes.extend(&GRAY_JPEG[scan..end]);
        }
        bytes.extend(&GRAY_JPEG[end..]);
        let error = decode(&mut Cursor::new(bytes)).unwrap_err();
        assert!(error.contains("scans"), "{error}");
    }

    #[test]
    fn every_png_kind_becomes_gray_or_colour_bytes() {
        for (color, depth, data, channels, first) in [
            (Grayscale, Eight, &[7u8, 8, 9, 10][..], 1, &[7u8, 8][..]),
            (Grayscale, One, &[0b0100_0000, 0b1000_0000], 1, &[0, 255]),
            (Grayscale, Sixteen, &[0x12, 0x34, 0xff, 0, 0, 0, 0, 0], 1, &[0x12, 0xff]),
            (GrayscaleAlpha, Eight, &[100, 255, 100, 0, 100, 128, 0, 0], 1, &[100, 0]),
            (Rgb, Eight, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 3, &[1, 2]),
            (Rgba, Eight, &[100, 50, 10, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 3, &[50, 25]),
            (Indexed, Eight, &[1, 0, 0, 1], 3, &[200, 100]),
        ] {
            let image = decoded(&encode_png(2, 2, color, depth, data));
            assert_eq!((image.width, image.height, image.channels), (2, 2, channels), "{color:?}");
            assert_eq!(&image.bytes[..2], first, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn jpeg_colours_are_close_to_what_was_encoded() {
        let image = decoded(COLOUR_JPEG);
        assert_eq!((image.width, image.height, image.channels), (16, 12, 3));
        for (y, x) in [(0, 0), (6, 8), (11, 15)] {
            let pixel = &image.bytes[(y * 16 + x) * 3..][..3];
            for (found, expected) in pixel.iter().zip([x * 16, y * 20, 128]) {
                assert!(found.abs_diff(expected as u8) <= 12, "{pixel:?} at {y}, {x}");
            }
        }
        let gray = decoded(GRAY_JPEG);
        assert_eq!((gray.channels, gray.bytes.len()), (1, 16 * 12));
        assert!(gray.bytes[0] < 12 && gray.bytes[15] > 228);
    }

    #[test]
    fn scaling_keeps_a_constant_and_averages_a_ramp() {
        let constant = Pixels { width: 7, height: 5, channels: 1, bytes: vec![93; 35] };
        let mut out = [0; 9];
        constant.write_as([1, 3, 3], &mut out);
        assert_eq!(out, [93; 9]);
        // Cropped to the centred 4 x 4, then halved: the mean of each half, up to the filter's overlap.
        let ramp = Pixels { width: 6, height: 4, channels: 1, bytes: [0, 40, 80, 120, 160, 200].repeat(4) };
        let mut out = [0; 4];
        ramp.write_as([1, 2, 2], &mut out);
        assert_eq!(u32::from(out[0]) + u32::from(out[1]), 200);
        assert!(out[0].abs_diff(60) <= 10 && out[0] == out[2], "{out:?}");
    }

    #[test]
    fn an_image_that_is_fitted_keeps_all_of_itself_and_is_centred_on_black() {
        let wide = Pixels { width: 4, height: 2, channels: 1, bytes: vec![200; 8] };
        let mut out = [0; 16];
        wide.write_inside([1, 4, 4], &mut out);
        assert_eq!(out, [[0; 4], [200; 4], [200; 4], [0; 4]].concat()[..]);
        let mut same = [0; 8];
        wide.write_inside([1, 2, 4], &mut same);
        assert_eq!(same, [200; 8]);
        let line = Pixels { width: 1000, height: 1, channels: 1, bytes: vec![9; 1000] };
        let mut out = [0; 9];
        line.write_inside([1, 3, 3], &mut out);
        assert_eq!(out, [0, 0, 0, 9, 9, 9, 0, 0, 0]);
    }

    #[test]
    fn channels_are_converted_as_the_shape_asks() {
        let colour = Pixels { width: 1, height: 1, channels: 3, bytes: vec![255, 0, 0] };
        let mut gray = [0];
        colour.write_as([1, 1, 1], &mut gray);
        assert_eq!(gray, [76]);
        let mut planes = [0; 3];
        colour.write_as([3, 1, 1], &mut planes);
        assert_eq!(planes, [255, 0, 0]);
        Pixels { width: 1, height: 1, channels: 1, bytes: vec![9] }.write_as([3, 1, 1], &mut planes);
        assert_eq!(planes, [9; 3]);
    }

    #[test]
    fn labels_are_numbers_of_any_depth_and_follow_the_image() {
        let read = |png: Vec<u8>| decode_labels(&mut Cursor::new(png)).unwrap();
        for (color, depth, data, expected) in [
            (Grayscale, Eight, &[7u8, 255][..], [7u16, 255]),
            (Grayscale, Sixteen, &[1, 0, 0, 3], [256, 3]),
            (Indexed, Eight, &[1, 0], [1, 0]),
            (Grayscale, One, &[0b0100_0000], [0, 1]),
            (Grayscale, Four, &[0x3f], [3, 15]),
        ] {
            assert_eq!(read(encode_png(2, 1, color, depth, data)).labels, expected, "{color:?} {depth:?}");
        }
        let labels = Labels { width: 6, height: 4, labels: (0..24).collect() };
        assert_eq!(labels.nearest(4, 6).collect::<Vec<_>>(), (0..24).collect::<Vec<_>>());
        // The centred 4 x 4, halved.
        assert_eq!(labels.nearest(2, 2).collect::<Vec<_>>(), [8, 10, 20, 22]);
        assert!(decode_labels(&mut Cursor::new(COLOUR_JPEG)).unwrap_err().contains("JPEG"));
    }

    #[test]
    fn a_huge_image_is_refused_by_its_header() {
        let mut png = encode_png(1, 1, Grayscale, Eight, &[0]);
        png[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
        assert!(decode(&mut Cursor::new(png)).is_err());
    }

    proptest! {
        #[test]
        fn mutated_bytes_never_panic(which in 0usize..3, changes in proptest::collection::vec((0usize..1000, any::<u8>()), 1..5), cut in 0usize..2000) {
            let png = encode_png(2, 2, Rgb, Eight, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
            let mut bytes = [png.as_slice(), COLOUR_JPEG, GRAY_JPEG][which].to_vec();
            let length = bytes.len();
            for (at, byte) in changes {
                bytes[at % length] = byte;
            }
            bytes.truncate(if cut < length { cut } else { length });
            let _ = decode_labels(&mut Cursor::new(&bytes));
            if let Ok(image) = decode(&mut Cursor::new(bytes)) {
                let mut out = [0; 48];
                image.write_as([3, 4, 4], &mut out);
            }
        }
    }
}
