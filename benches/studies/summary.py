"""Writes docs/results/training-studies.md from the results of benches/studies/run."""

import json
import pathlib
import sys

root = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / "benches"))

import runs  # noqa: E402

results = root / "target" / "studies"


def load(name):
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def quantity(q, scale=1.0, digits=1):
    kind = q["source"].split(":")[0]
    value = f"{q['value'] * scale:.{digits}f}"
    if q["low"] == q["high"]:
        return f"{value} ({kind})"
    return f"{value} ({q['low'] * scale:.{digits}f} to {q['high'] * scale:.{digits}f}, {kind})"


lines = [
    "# How well do networks train and shrink here?",
    "",
    "Regenerate with `benches/studies/run && python3 benches/studies/summary.py` (Fashion-MNIST from the Debian",
    "package `dataset-fashion-mnist`). The validation part chooses, the test part (10,000 images) is looked at once,",
    "after training. Durations are of a machine that was also building and testing other things: not benchmarks.",
    "",
    "## Dense networks on Fashion-MNIST",
    "",
    "| network | settings | seed | test accuracy | wanted | duration, s | energy, kJ |",
    "|---|---|---|---|---|---|---|",
]
for name, wanted in [("lenet-0", 0.885), ("lenet-1", 0.885), ("lenet-2", 0.885), ("resnet-20", 0.92)]:
    result = load(name)
    if result is None:
        lines.append(f"| {name} | not run | | | {wanted} | | |")
        continue
    train = result["train"]
    network = name.split("-")[0] if "lenet" not in name else "lenet-300-100"
    network = "resnet-20" if name == "resnet-20" else network
    kind = train["optimizer"]["kind"]
    settings = f"{train['length']}, batch {train['batch']}, {kind} {train['learning_rate']}, {train['schedule']}"
    if train["augmentation"] != "none":
        settings += f", {train['augmentation']}"
    receipt = result["receipt"]
    total = receipt["energy"].get("total")
    energy = quantity(total, 1e-3) if total else "unknown"
    lines.append(
        f"| {network} | {settings} | {train['seed']} | {result['test_accuracy']:.4f} | {wanted} | "
        f"{receipt['duration']['value']:.0f} | {energy} |"
    )
ticket = load("imp-open-lth")
if ticket:
    lines += [
        "",
        "## Lottery tickets: LeNet-300-100, preset `open-lth`, rewound to step 0",
        "",
        f"Settings as in {ticket['preset_source']}. One seed. Density is of the prunable weights (the output layer",
        "is left whole by this preset). Wanted: within 0.5 points of dense at 10 % density.",
        "",
        "| level | density | validation accuracy | test accuracy | points against dense |",
        "|---|---|---|---|---|",
    ]
    dense = ticket["levels"][0]["test_accuracy"]
    for level in ticket["levels"]:
        lines.append(
            f"| {level['level']} | {100 * level['density']:.1f} % | {level['validation_accuracy']:.4f} | "
            f"{level['test_accuracy']:.4f} | {100 * (level['test_accuracy'] - dense):+.2f} |"
        )
runs.keep("training-studies.md", "\n".join(lines))
(root / "docs/results/training-studies.md").write_text("\n".join(lines) + "\n")
