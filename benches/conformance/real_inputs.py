"""Real data to feed the models with: speech, a picture, files, out of packages and the system."""

import glob
import struct
import wave
import zlib

import numpy as np

WAVES = "/usr/share/pocketsphinx/test/data/**/*.wav"  # Debian package pocketsphinx-testdata, 16 kHz mono
PICTURES = "/usr/share/**/*.png"
FILES = "/usr/**/*"


def real_inputs(model, types, index):
    """Feeds number `index` made of real data, and where it is from; None when there is none here."""
    makers = {"speech": _speech, "spectrum": _spectrum, "image": _image, "files": _files, "ramp": _ramp}
    if model.real not in makers:
        return None
    feeds = dict(model.fixed)
    data, *others = model.shapes  # the first input is the data; the others (states) start at zero
    made = makers[model.real](model.shapes[data], index)
    if made is None:
        return None
    array, source = made
    feeds[data] = array.astype(types[data])
    for name in others:
        feeds[name] = np.zeros(model.shapes[name], types[name])
    return feeds, source


def _samples(index):
    paths = sorted(glob.glob(WAVES, recursive=True))
    if not paths:
        return None
    path = paths[index % len(paths)]
    with wave.open(path) as file:
        raw = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return raw / 32768.0, path


def _speech(shape, index):
    found = _samples(index)
    if found is None:
        return None
    samples, path = found
    count = int(np.prod(shape))
    start = len(samples) // 3 if len(samples) // 3 + count <= len(samples) else 0
    return np.resize(samples[start:], count).reshape(shape), path


def _spectrum(shape, index):
    """Log power spectra of 20 ms frames, 10 ms apart, with as many bins as the input is wide.

    The models were trained on other filter banks; the numbers are those of real speech, which is what matters here.
    """
    found = _samples(index)
    if found is None:
        return None
    samples, path = found
    *_, frames, bins = shape
    width = 2 * (bins - 1)
    samples = np.resize(samples, frames * 160 + width)
    windows = np.stack([samples[i * 160 : i * 160 + width] for i in range(frames)]) * np.hanning(width)
    power = np.log10(np.maximum(np.abs(np.fft.rfft(windows)) ** 2, 1e-12))
    return np.broadcast_to(power, shape), path


def _files(shape, index):
    """The first and the last bytes of a file, as the model wants them."""
    half, seen = shape[1] // 2, 0
    for path in glob.iglob(FILES, recursive=True):
        try:
            with open(path, "rb") as file:
                content = file.read(1 << 20)
        except OSError:
            continue
        if len(content) < shape[1]:
            continue
        if seen == index * 50:  # not all out of one directory
            return np.frombuffer(content[:half] + content[-half:], np.uint8).reshape(shape), path
        seen += 1
    return None


def _ramp(shape, _):
    """What the expected outputs beside the `light_*` models were made of (onnx.backend.test.runner)."""
    count = int(np.prod(shape))
    return np.arange(count).reshape(shape) / count, "the onnx wheel's own input"


def _image(shape, index):
    _, channels, height, width = shape
    seen = 0
    for path in sorted(glob.glob(PICTURES, recursive=True)):
        pixels = _read_png(path, least=20_000)
        if pixels is None:
            continue
        if seen < index:
            seen += 1
            continue
        rows = np.arange(height) * pixels.shape[0] // height
        columns = np.arange(width) * pixels.shape[1] // width
        nearest = pixels[rows][:, columns] / 127.5 - 1.0
        return nearest.transpose(2, 0, 1)[None, :channels], path
    return None


def _read_png(path, least):
    """Pixels [height, width, 3] of an 8-bit RGB or RGBA PNG of 200..800 pixels a side; None for any other."""
    with open(path, "rb") as file:
        content = file.read()
    if len(content) < least or content[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if depth != 8 or colour not in (2, 6) or interlaced or not all(200 <= n <= 800 for n in (width, height)):
        return None
    packed, at = b"", 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            packed += content[at + 8 : at + 8 + length]
        at += 12 + length
    size = 3 if colour == 2 else 4
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * size)
    above, pixels = np.zeros((width, size), np.int64), np.empty((height, width, size), np.uint8)
    for y, row in enumerate(rows):  # PNG specification, section 9: filter types
        kind, line = row[0], row[1:].reshape(width, size).astype(np.int64)
        if kind == 2:
            line = (line + above) % 256
        elif kind != 0:
            left = corner = np.zeros(size, np.int64)
            for x in range(width):
                up = above[x]
                if kind == 1:
                    guess = left
                elif kind == 3:
                    guess = (left + up) // 2
                else:
                    p = left + up - corner
                    a, b, c = abs(p - left), abs(p - up), abs(p - corner)
                    guess = np.where((a <= b) & (a <= c), left, np.where(b <= c, up, corner))
                line[x] = (line[x] + guess) % 256
                left, corner = line[x], up
        pixels[y], above = line, line
    return pixels[:, :, :3]
