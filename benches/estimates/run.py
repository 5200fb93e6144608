#!/usr/bin/env python3
"""Predicts and then times networks, for the table in docs/results/estimates.md.

    python benches/estimates/run.py target/release/wattle [--only PART] [--first I] [--last J]

Networks from packages lie where `.ci/fetch-test-data` puts them, below target/models; those that are not there are left
out, and the table says so; the encoder is made by benches/peers/networks.py (NETWORKS=folder). TIMED=command goes before every
measurement, where a machine has a way of its own to be quiet. `chosen by` are the networks whose errors were looked at while the probes of the calibration
were chosen; `blind` are those that were not. Run it on a machine with nothing else to do.
"""

import argparse
import json
import os
import re
import subprocess

CHOSEN_BY = [
    ("LeNet-300-100, training step of 60", "--model lenet-300-100 --train --samples 60000 --batch 60"),
    ("LeNet-5, training step of 60", "--model lenet-5 --train --samples 60000 --batch 60"),
    ("ResNet-20, training step of 128",
     "--model resnet-20 --train --samples 50000 --batch 128 --input x=1x3x32x32"),
    ("small-conv on digits, training step of 32",
     "--model small-conv --train --samples 1797 --batch 32 --input x=1x1x8x8"),
    ("PP-OCRv4 detection, 320x320",
     "--model MODELS/rapidocr-onnxruntime/ch_PP-OCRv4_det_infer.onnx --input x=1x3x320x320"),
    ("PP-OCRv4 recognition, 48x320",
     "--model MODELS/rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer.onnx --input x=1x3x48x320"),
    ("PP-OCR direction, 48x192",
     "--model MODELS/rapidocr-onnxruntime/ch_ppocr_mobile_v2.0_cls_infer.onnx --input x=1x3x48x192"),
    ("DNSMOS model_v8", "--model MODELS/speechmos/model_v8.onnx"),
    ("DNSMOS sig_bak_ovr", "--model MODELS/speechmos/sig_bak_ovr.onnx"),
    ("Magika v3.3", "--model MODELS/magika/model.onnx"),
    ("PLCMOS v2, 900 frames",
     "--model MODELS/speechmos/plcmos_v2.onnx --input degraded_audio=1x1x900x257"),
    ("Silero VAD, one window",
     "--model MODELS/silero-vad/silero_vad_16k_op15.onnx --input input=1x576 --input state=2x1x128"),
    ("AECMOS, 400 frames", "--model MODELS/speechmos/Run_1663829550_Stage_0.onnx --input input=1x3x400x160"),
    ("DNSMOS bak_ovr", "--model MODELS/speechmos/bak_ovr.onnx"),
    ("AlexNet", "--model MODELS/onnx-light/light_bvlc_alexnet.onnx"),
    ("ShuffleNet", "--model MODELS/onnx-light/light_shufflenet.onnx"),
    ("Inception v1", "--model MODELS/onnx-light/light_inception_v1.onnx"),
    ("ResNet-18 on 3x32x32, training step of 16",
     "--model resnet-18 --train --samples 50000 --batch 16 --input x=1x3x32x32"),
    ("Silero VAD, 32 windows", "--model MODELS/silero-vad/silero_vad_16k_sequence.onnx --input input=32x576"),
]
BLIND = [
    ("SqueezeNet", "--model MODELS/onnx-light/light_squeezenet.onnx"),
    ("DenseNet-121", "--model MODELS/onnx-light/light_densenet121.onnx"),
    ("Inception v2", "--model MODELS/onnx-light/light_inception_v2.onnx"),
    ("ResNet-50", "--model MODELS/onnx-light/light_resnet50.onnx"),
    ("VGG-19", "--model MODELS/onnx-light/light_vgg19.onnx"),
    ("ZFNet-512", "--model MODELS/onnx-light/light_zfnet512.onnx"),
    ("transformer encoder, 16 rows", "--model NETWORKS/encoder-dense-b16.onnx"),
    ("AECMOS, third version, 400 frames",
     "--model MODELS/speechmos/Run_1668423760_Stage_0.onnx --input input=1x3x400x160"),
    ("DNSMOS sig", "--model MODELS/speechmos/sig.onnx"),
    ("Silero VAD, half the parameters",
     "--model MODELS/silero-vad/silero_vad_half.onnx --input input=1x576 --input state=2x1x128"),
    ("ResNet-20, training step of 16",
     "--model resnet-20 --train --samples 50000 --batch 16 --input x=1x3x32x32"),
    ("LeNet-5, training step of 8", "--model lenet-5 --train --samples 60000 --batch 8"),
]
CHECKED = re.compile(r"predicted (\S+) ms \[(\S+), (\S+)\], measured (\S+) ms .*, (\S+) %, (inside|outside)")


def check(wattle, line, models, networks, threads):
    """(predicted, low, high, measured, off, inside), or why there is none."""
    arguments = line.replace("MODELS", models).replace("NETWORKS", networks).split()
    path = arguments[1]
    if path.endswith(".onnx") and not os.path.exists(path):
        return "not at hand"
    command = [*os.environ.get("TIMED", "").split(), wattle, "estimate", "--json", "--threads", str(threads), "--check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    found = next(filter(None, (CHECKED.search(note) for note in json.loads(done.stdout)["notes"])))
    return (*(float(x) for x in found.groups()[:5]), found[6] == "inside")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wattle")
    parser.add_argument("--models", default="target/models")
    parser.add_argument("--networks", default=os.environ.get("NETWORKS", "target/networks"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=["chosen", "blind"])
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--last", type=int, default=99)
    a = parser.parse_args()
    parts = {"chosen": [(n, c, "") for n, c in CHOSEN_BY], "blind": [(n, c, " *") for n, c in BLIND]}
    networks = sum([part for name, part in parts.items() if a.only in (None, name)], [])[a.first:a.last]
    print(f"| network, {a.threads} thread(s) | predicted, ms | interval | measured, ms | off, % | |\n|---|---|---|---|---|---|")
    within = inside = counted = 0
    for name, line, star in networks:
        found = check(a.wattle, line, a.models, a.networks, a.threads)
        if isinstance(found, str):
            print(f"| {name}{star} | | | | | {found} |", flush=True)
            continue
        predicted, low, high, measured, off, held = found
        counted, within, inside = counted + 1, within + (abs(off) <= 25), inside + held
        print(f"| {name}{star} | {predicted:.3g} | {low:.3g} to {high:.3g} | {measured:.3g} | {off:+.0f} | "
              f"{'' if held else 'outside'} |", flush=True)
    print(f"\n{within} of {counted} within 25 %, {inside} of {counted} inside their interval.")


if __name__ == "__main__":
    main()
