"""wattle's mapper against ZigZag's, on ZigZag's ResNet-18 and its accelerator `tpu_like`; docs/results/accelerator-mapper.md shows the result.

    python3.11 -m venv zigzag && zigzag/bin/pip install zigzag-dse==3.9.1 six
    cargo build --release -p wattle
    zigzag/bin/python benches/peers/mappers.py --write        # all of it, about two minutes
    zigzag/bin/python benches/peers/mappers.py --peer FILE    # with ZigZag's search of an earlier run

Both evaluators price both sets of mappings: ZigZag's own cost model, and wattle's on examples/accel/tpu-like.toml.
"""

import argparse
import contextlib
import json
import logging
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))

import runs  # noqa: E402

# ZigZag's names of loops, and ours.
LETTER = {"B": "N", "G": "G", "K": "M", "C": "C", "OY": "P", "OX": "Q", "FY": "R", "FX": "S", "D": "Q"}
GROUP = {"N": "positions", "P": "positions", "Q": "positions", "C": "reduction", "R": "reduction", "S": "reduction", "M": "filters"}
PAGE = ROOT / "docs/results/accelerator-mapper.md"
BEGIN, END = "<!-- written by benches/peers/mappers.py -->", "<!-- end -->"


def inputs():
    import zigzag

    inputs = pathlib.Path(zigzag.__file__).parent / "inputs"
    return inputs / "workload/resnet18.onnx", inputs / "hardware/tpu_like.yaml", inputs / "mapping/tpu_like.yaml"


def with_weights(model, folder):
    """The model with weights: ZigZag's file refers to data that its package leaves out. Noise stands in, without zeros."""
    import numpy
    import onnx

    network = onnx.load(str(model), load_external_data=False)
    ends = {}
    for tensor in network.graph.initializer:
        external = {e.key: e.value for e in tensor.external_data}
        if external:
            end = int(external.get("offset", 0)) + int(external["length"])
            ends[external["location"]] = max(end, ends.get(external["location"], 0))
    for name, size in ends.items():
        noise = numpy.random.default_rng(1).uniform(0.1, 1, size // 4 + 1).astype(numpy.float32)
        (folder / name).write_bytes(noise.tobytes()[:size])
    copy = folder / model.name
    copy.write_bytes(model.read_bytes())
    return copy


def evaluations(found):
    """The evaluations of single layers in what ZigZag returns."""
    from zigzag.cost_model.cost_model import CostModelEvaluation

    if isinstance(found, CostModelEvaluation):
        return [found]
    return [e for part in found for e in evaluations(part)] if isinstance(found, (list, tuple)) else []


def zigzag(mapping):
    """ZigZag over the whole network: seconds, pJ, cycles, and each layer with its loops, innermost first."""
    from zigzag.api import get_hardware_performance_zigzag

    model, hardware, _ = inputs()
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(sys.stderr):
        start = time.perf_counter()
        energy, cycles, found = get_hardware_performance_zigzag(
            str(model), str(hardware), str(mapping), dump_folder=scratch, loma_show_progress_bar=False
        )
        seconds = time.perf_counter() - start
    layers = []
    for e in evaluations(found):
        levels = {str(op): [[[str(d), int(n)] for d, n in level] for level in levels] for op, levels in e.temporal_mapping.mapping_dic_origin.items()}
        dims = {str(d): int(n) for d, n in e.layer.layer_dim_sizes.items()}
        parts = {"drain": e.systolic_drain_cycle}
        layers.append({"name": e.layer.name, "dims": dims, "pj": e.energy_total, "cycles": e.latency_total2, "levels": levels, **parts})
    return {"seconds": seconds, "pj": energy, "cycles": cycles, "layers": layers}


def as_ours(layer):
    """A mapping of ZigZag in wattle's file format. Its sum register holds one sum, so the loops below it are the PE's;
    the buffer holds all activations and sums of every layer here, so the others are the buffer's."""
    outputs, dims = layer["levels"]["O"], layer["dims"]
    if any(level for level in outputs[2:]) or any(level for level in layer["levels"]["I"][1:]):
        raise SystemExit(f"{layer['name']}: loops at external memory, which this script does not translate")
    pe, glb, order = {}, {}, []
    for name, n in outputs[0]:
        pe[LETTER[name]] = pe.get(LETTER[name], 1) * n
    for name, n in outputs[1]:
        letter = LETTER[name]
        glb[letter] = glb.get(letter, 1) * n
        if not order or order[-1] != GROUP[letter]:
            order.append(GROUP[letter])
    if set(pe) - {"C", "R", "S"} or len(set(order)) != len(order):
        raise SystemExit(f"{layer['name']}: its loops are no mapping of wattle's: {outputs}")
    order += [g for g in ("positions", "reduction", "filters") if g not in order]
    spread = {"D1": {"M": min(32, dims["K"])}, "D2": {"C": min(32, dims["C"])}}
    return {
        "layer": layer["name"],
        "compressed": {"iact": False, "weight": False},
        "dram": {"order": ["filters", "reduction", "positions"], "factors": {}},
        "glb": {"order": order[::-1], "factors": glb},
        "axes": [{"axis": axis, "factors": {d: n for d, n in loops.items() if n > 1}} for axis, loops in spread.items()],
        "pe": pe,
    }


def as_theirs(ours, peer):
    """A mapping of wattle as ZigZag's order of loops, innermost first; None where ZigZag's factors cannot say it."""
    dims = {LETTER[d]: n for d, n in peer["dims"].items()}
    back = {LETTER[d]: d for d in peer["dims"]}
    spread = {"M": 32, "C": 32}
    loops = [(d, n) for d in "CSR" for n in [ours["pe"].get(d, 1)]]
    inner = {"positions": "QPN", "reduction": "SRC", "filters": "M"}
    for level in ("glb", "dram"):
        for group in reversed(ours[level]["order"]):
            loops += [(d, ours[level]["factors"].get(d, 1)) for d in inner[group]]
    loops = [(d, n) for d, n in loops if n > 1]
    for d, extent in dims.items():
        product = math.prod(n for e, n in loops if e == d)
        if product != math.ceil(extent / min(extent, spread.get(d, 1))):
            return None
    return [[back[d], n] for d, n in loops]


def wattle(binary, model, *flags):
    command = [binary, "accel", "map", str(model), "--arch", str(ROOT / "examples/accel/tpu-like.toml"), "--json", *flags]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return seconds, json.loads(done.stdout)


def least_that_divides(binary, model, layers, scratch):
    """For layers whose best mapping has factors that ZigZag cannot say: the best of those with C in a PE a divisor."""
    best = {}
    for c in (1, 2, 4, 8, 16):
        names = json.dumps([l["name"] for l in layers])
        (scratch / "divides.toml").write_text(f"[[constraint]]\nlayers = {names}\npe = {{ factors = {{ C = {c} }} }}\n")
        _, found = wattle(binary, model, "--objective", "edp", "--constraints", str(scratch / "divides.toml"))
        for l in found["layers"]:
            if l["value"] < best.get(l["name"], {"value": math.inf})["value"]:
                best[l["name"]] = l
    return {l["name"]: best[l["name"]] for l in layers}


def table(rows):
    head = "| mappings of | evaluator | energy, µJ | cycles | EDP, J·cycles |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {mapper} | {evaluator} | {pj / 1e6:.2f} | {cycles:.0f} | {pj * 1e-12 * cycles:.1f} |\n" for mapper, evaluator, pj, cycles in rows
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wattle", default=str(ROOT / "target/release/wattle"))
    parser.add_argument("--peer", help="ZigZag's result of an earlier run, instead of searching again")
    parser.add_argument("--keep", help="write ZigZag's result to this file, and stop there")
    parser.add_argument("--write", action="store_true", help="write the section of docs/results/accelerator-mapper.md")
    args = parser.parse_args()
    model, hardware, mapping = inputs()
    if args.peer:
        theirs = json.loads(pathlib.Path(args.peer).read_text())
    else:
        theirs = zigzag(mapping)
    if args.keep:
        pathlib.Path(args.keep).write_text(json.dumps(theirs, indent=1))
        return
    scratch = pathlib.Path(tempfile.mkdtemp())
    (scratch / "theirs.json").write_text(json.dumps({"schema": 1, "architecture": "zigzag-tpu-like", "layers": [as_ours(l) for l in theirs["layers"]]}))
    weighty = with_weights(model, scratch)
    _, priced = wattle(args.wattle, weighty, "--mapping", str(scratch / "theirs.json"))
    times, found = [], None
    for _ in range(5):
        seconds, found = wattle(args.wattle, weighty, "--objective", "edp")
        times.append(seconds)
    # The two walk the network in different orders.
    names = [l["name"] for l in theirs["layers"]]
    for document in (priced, found):
        document["layers"].sort(key=lambda l: names.index(l["name"]))
    sums = lambda document: (sum(l["energy_pj"] for l in document["layers"]), sum(l["cycles"] for l in document["layers"]))

    # Ours in ZigZag's evaluator, as complete orders of loops.
    import yaml

    base = [e for e in yaml.safe_load(mapping.read_text()) if e["name"] in ("default", "Add", "Pooling")]
    pairs = list(zip(found["layers"], theirs["layers"]))
    skipped = [layer for layer, peer in pairs if as_theirs(layer["loops"], peer) is None]
    others = least_that_divides(args.wattle, weighty, skipped, scratch) if skipped else {}
    lost = sum(others[l["name"]]["value"] / l["value"] - 1 for l in skipped) / max(1, len(skipped))
    for layer, peer in pairs:
        order = as_theirs(others.get(layer["name"], layer)["loops"], peer)
        assert order is not None, layer["name"]
        base.append({**base[0], "name": layer["name"], "temporal_ordering": order})
    (scratch / "ours.yaml").write_text(yaml.safe_dump(base, sort_keys=False))
    ours_there = zigzag(scratch / "ours.yaml")
    assert [l["name"] for l in ours_there["layers"]] == names == [l["name"] for l in found["layers"]]

    rows = [
        ("ZigZag", "ZigZag", theirs["pj"], theirs["cycles"]),
        ("wattle", "ZigZag", ours_there["pj"], ours_there["cycles"]),
        ("ZigZag", "wattle", *sums(priced)),
        ("wattle", "wattle", *sums(found)),
    ]
    error = [100 * (a / b - 1) for a, b in zip(sums(priced), (theirs["pj"], theirs["cycles"]))]
    median = statistics.median(times)
    drain = sum(l["drain"] for l in theirs["layers"])
    worst = max(
        ((abs(mine[key] / peer[other] - 1), mine["name"], what) for mine, peer in zip(priced["layers"], theirs["layers"]) for key, other, what in (("energy_pj", "pj", "energy"), ("cycles", "cycles", "cycles"))),
    )
    proven = sum(l["proven"] for l in found["layers"])
    worse = lambda a, b: sum(1 for x, y in zip(a, b) if x > y * (1 + 1e-9))
    edps = lambda layers, e, c: [l[e] * l[c] for l in layers]
    text = f"""{table(rows)}
T6, ZigZag's own mappings priced by wattle against ZigZag's golden ({theirs['pj']:.2f} pJ, {theirs['cycles']:.0f} cycles as
installed; {theirs['cycles'] - drain:.0f} without the {drain:.0f} cycles of draining the array): energy {error[0]:+.2f} %, cycles
{error[1]:+.2f} %. The layer that is furthest off: {worst[1]}, {worst[2]}, {100 * worst[0]:.1f} %.

Layers on which wattle's mapping has the larger EDP: {worse(edps(found['layers'], 'energy_pj', 'cycles'), edps(priced['layers'], 'energy_pj', 'cycles'))} of {len(found['layers'])} in wattle's
evaluator, {worse(edps(ours_there['layers'], 'pj', 'cycles'), edps(theirs['layers'], 'pj', 'cycles'))} in ZigZag's. ZigZag knows no factors that do not divide: {len(skipped)} layers have their best mapping of those that do there
({100 * lost:.2f} % more EDP in wattle's evaluator). Proven least: {proven} of {len(found['layers'])} layers, within the mapper's space.

Whole network: ZigZag {theirs['seconds']:.1f} s, wattle {median:.3f} s (median of {len(times)} runs of the command, {min(times):.3f} to {max(times):.3f}):
{theirs['seconds'] / median:.0f}x. Machine: {os.cpu_count()} threads of {cpu()}.
"""
    print(text)
    if args.write:
        runs.keep("mappers.md", text)
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{rest.split(END)[1]}")


def cpu():
    names = [line.split(":")[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else "unknown"


if __name__ == "__main__":
    main()
