"""Sparse products and their gradients against SparseProp's kernels (Nikdan et al. 2023), in turns.

    python products.py [--wattle target/release/wattle] [--densities 0.1] [--threads 1 2] [--rounds 5]

Needs torch and sparseprop==0.1.14 (a source package: pip builds it with g++, -march=native, -ffast-math). Both sides
take activations a feature after the other. SparseProp's kernels add to their results, so clearing these is part of the
time; its transposes, which its PyTorch layer does around the kernels, are not. Its backward kernel computes both
gradients at once. Results are checked against a dense product. Random masks, uniform; every round is a process of
wattle and as many runs of SparseProp after it. Prints a Markdown table and keeps it in benches/runs/<date>-<machine>/.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runs  # noqa: E402

SHAPES = [(304, 784, 64), (1024, 1024, 128), (3072, 768, 128), (512, 512, 832), (256, 256, 3136)]


def peer():
    """One process with its number of threads in OMP_NUM_THREADS: answers `m k n density runs` with times in us."""
    import torch
    from sparseprop import backend
    from sparseprop.modules.utils import to_csr_2d

    torch.set_num_threads(1)
    cases = {}
    for line in sys.stdin:
        m, k, n, density, runs = line.split()
        m, k, n, density, runs = int(m), int(k), int(n), float(density), int(runs)
        if (m, k, n, density) not in cases:
            torch.manual_seed(0)
            w = torch.rand(m, k) * 0.9 + 0.1
            w *= torch.rand(m, k) < density
            x, dy = torch.rand(k, n) * 2 - 1, torch.rand(m, n) * 2 - 1
            values, (rows, columns) = to_csr_2d(w)
            y, dx, dw = torch.zeros(m, n), torch.zeros(k, n), torch.zeros_like(values)
            cases = {(m, k, n, density): (w, x, dy, values, rows, columns, y, dx, dw)}
        w, x, dy, values, rows, columns, y, dx, dw = cases[m, k, n, density]

        def forward():
            y.zero_()
            backend.sparse_linear_vectorized_forward(x, rows, columns, values, y)

        def backward():
            dx.zero_()
            dw.zero_()
            backend.sparse_linear_vectorized_backward(x, rows, columns, values, dy, dx, dw)

        answer = {"nonzeros": values.numel()}
        for name, call in [("forward", forward), ("backward", backward)]:
            for _ in range(max(2, runs // 10)):
                call()
            answer[name] = []
            for _ in range(runs):
                start = time.perf_counter()
                call()
                answer[name].append((time.perf_counter() - start) * 1e6)
        expected = (w @ x, w.t() @ dy, (dy @ x.t())[w != 0])
        errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip((y, dx, dw), expected)]
        answer["error"] = max(errors)
        print(json.dumps(answer), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wattle", default="target/release/wattle")
    parser.add_argument("--densities", nargs="+", type=float, default=[0.2, 0.1, 0.05])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=40, help="timed runs a round")
    parser.add_argument("--block", default="1x1", choices=["1x1", "4x1"])
    arguments = parser.parse_args()
    import os

    print("| outputs x inputs, columns | kept | threads | wattle forward, us | SparseProp, us | ratio [p10 p90] "
          "| wattle backward, us | SparseProp, us | ratio [p10 p90] |")
    print("|---|---|---|---|---|---|---|---|---|")
    for threads in arguments.threads:
        other = subprocess.Popen([sys.executable, Path(__file__).resolve(), "peer"], stdin=subprocess.PIPE, text=True,
                                 stdout=subprocess.PIPE, env=dict(os.environ, OMP_NUM_THREADS=str(threads)))
        for m, k, n in SHAPES:
            for density in arguments.densities:
                ours, theirs = {"forward": [], "backward": []}, {"forward": [], "backward": []}
                for _ in range(arguments.rounds):
                    command = [arguments.wattle, "bench", "spmm", "--m", m, "--k", k, "--n", n, "--density", density,
                               "--threads", threads, "--runs", arguments.runs, "--block", arguments.block, "--backward", "--json"]
                    found = json.loads(subprocess.run([str(c) for c in command], capture_output=True, check=True).stdout)
                    ours["forward"].append(found["median_us"])
                    ours["backward"].append(found["backward"]["median_us"])
                    other.stdin.write(f"{m} {k} {n} {density} {arguments.runs}\n")
                    other.stdin.flush()
                    answer = json.loads(other.stdout.readline())
                    if answer["error"] > 1e-4:
                        sys.exit(f"SparseProp's results for {m} x {k}, {n} are off by {answer['error']:.1e}")
                    for name in theirs:
                        theirs[name].append(statistics.median(answer[name]))
                cells = []
                for name in ("forward", "backward"):
                    ratios = sorted(b / a for a, b in zip(ours[name], theirs[name]))
                    low, high = ratios[len(ratios) // 10], ratios[-1 - len(ratios) // 10]
                    cells += [f"{statistics.median(ours[name]):.0f}", f"{statistics.median(theirs[name]):.0f}",
                              f"{statistics.median(ratios):.1f} [{low:.1f} {high:.1f}]"]
                print(f"| {m} x {k}, {n} | {100 * density:g} % | {threads} | " + " | ".join(cells) + " |", flush=True)
        other.stdin.close()
        other.wait()


if __name__ == "__main__":
    if sys.argv[1:] == ["peer"]:
        peer()
    else:
        with runs.kept("products.md"):
            main()
