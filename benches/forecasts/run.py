#!/usr/bin/env python3
"""Trains real networks and notes when each epoch ended, to judge forecasts of a run's total by.

    python benches/forecasts/run.py target/release/wattle epochs.csv
    EPOCHS=epochs.csv cargo test -p wattle-meter --test forecasts -- --nocapture

Writes `run,model,batch,epoch,seconds`, seconds since the start of the first step. Networks, batch sizes and seeds vary;
what else runs on the machine does too, and is not noted. Takes some minutes.
"""

import argparse
import csv
import json
import os
import random
import subprocess
import tempfile
import time

# Network and epochs, for a run of one to six seconds on one core of 2025.
NETWORKS = [("lenet-300-100", 60), ("lenet-5", 40), ("small-conv", 60), ("resnet-20", 12)]
BATCHES = [16, 32, 64, 128]


def epoch_ends(wattle, model, epochs, batch, seed, folder):
    """Seconds from the first sign of the training to the end of each epoch, from its metrics as they grow."""
    out = os.path.join(folder, "run")
    command = [wattle, "train", "--model", model, "--data", "digits", "--epochs", str(epochs), "--batch", str(batch),
               "--seed", str(seed), "--threads", "1", "--out", out]
    environment = dict(os.environ, WATTLE_LEDGER="")
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    log = os.path.join(out, "metrics.jsonl")
    while not os.path.exists(os.path.join(out, "config.toml")) and child.poll() is None:
        time.sleep(0.0005)
    begun, ends, length = time.monotonic(), [], 0
    while True:
        ended = child.poll() is not None
        if os.path.exists(log) and os.path.getsize(log) > length:
            with open(log) as file:
                lines = file.read().splitlines()
            length = os.path.getsize(log)
            seen = len({json.loads(line)["epoch"] for line in lines if line.endswith("}")})
            now = time.monotonic() - begun
            ends.extend([now] * (seen - len(ends)))
        if ended:
            return ends
        time.sleep(0.001)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wattle")
    parser.add_argument("out")
    parser.add_argument("--runs", type=int, default=60)
    arguments = parser.parse_args()
    chance = random.Random(1)
    with open(arguments.out, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "model", "batch", "epoch", "seconds"])
        for run in range(arguments.runs):
            model, epochs = NETWORKS[run % len(NETWORKS)]
            batch = chance.choice(BATCHES)
            with tempfile.TemporaryDirectory() as folder:
                ends = epoch_ends(arguments.wattle, model, epochs, batch, run, folder)
            for epoch, seconds in enumerate(ends, 1):
                writer.writerow([run, model, batch, epoch, f"{seconds:.4f}"])
            file.flush()


if __name__ == "__main__":
    main()
