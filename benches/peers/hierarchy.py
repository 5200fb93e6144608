"""What ZigZag 3.9.1 counts at every level of a hierarchy with one buffer more than its tpu_like, for the orders of loops
that it chose for tpu_like itself: the table PEERS in crates/wattle-accel/tests/validation/hierarchy.rs.

    zigzag/bin/python benches/peers/mappers.py --keep theirs.json && zigzag/bin/python benches/peers/hierarchy.py theirs.json
"""

import json
import pathlib
import sys
import tempfile

import yaml

import mappers

L1 = {
    "size": 64 * 1024 * 8,
    "r_cost": 60.0,
    "w_cost": 50.0,
    "area": 0,
    "latency": 1,
    "operands": ["I1", "O"],
    "ports": [
        {"name": "r_port_1", "type": "read", "bandwidth_min": 8, "bandwidth_max": 2048, "allocation": ["I1, tl", "O, tl", "O, th"]},
        {"name": "w_port_1", "type": "write", "bandwidth_min": 8, "bandwidth_max": 2048, "allocation": ["I1, fh", "O, fh", "O, fl"]},
    ],
    "served_dimensions": ["D1", "D2"],
}


def deeper(hardware):
    """`tpu_like` with the L1 below its SRAM, and memories that move single values."""
    chip = yaml.safe_load(hardware.read_text())
    memories = {}
    for name, memory in chip["memories"].items():
        if name == "sram_2MB":
            memories["sram_64kB"] = L1
        if name in ("sram_2MB", "dram"):
            for port in memory["ports"]:
                port["bandwidth_min"] = 8
        memories[name] = memory
    return {**chip, "memories": memories}


def main():
    from zigzag.api import get_hardware_performance_zigzag

    model, hardware, mapping = mappers.inputs()
    theirs = json.loads(pathlib.Path(sys.argv[1]).read_text())
    entries = [e for e in yaml.safe_load(mapping.read_text()) if e["name"] in ("default", "Add", "Pooling")]
    for layer in theirs["layers"]:
        order = mappers.as_theirs(mappers.as_ours(layer), layer)
        entries.append({**entries[0], "name": layer["name"], "temporal_ordering": order})
    scratch = pathlib.Path(tempfile.mkdtemp())
    (scratch / "chip.yaml").write_text(yaml.safe_dump(deeper(hardware), sort_keys=False))
    (scratch / "orders.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))
    _, _, found = get_hardware_performance_zigzag(
        str(model), str(scratch / "chip.yaml"), str(scratch / "orders.yaml"), dump_folder=str(scratch), loma_show_progress_bar=False
    )
    for e in mappers.evaluations(found):
        levels = {str(op): [[(str(d), int(n)) for d, n in level] for level in levels] for op, levels in e.temporal_mapping.mapping_dic_origin.items()}
        energies = {str(op): [float(x) for x in list_] for op, list_ in e.mem_energy_breakdown.items()}
        print(e.layer.name, {str(d): int(n) for d, n in e.layer.layer_dim_sizes.items()}, levels, energies)


if __name__ == "__main__":
    main()
