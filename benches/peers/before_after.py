"""Did anything get slower? The rows of tables.py, timed with two builds of wattle in turns.

    python before_after.py dense FOLDER --old target/before/release/wattle --new target/release/wattle

FOLDER is what networks.py wrote; the table and its options are those of tables.py. In a round each build runs once, the
order changing from round to round, each a process of its own that fills about a third of a second with runs. A process is
told by its median. A row has the median over rounds of both, and the ratio of new to old: of those medians, and of the
shortest ones, which a busy machine disturbs least. Above 1 the new build is slower. Rows are appended to --out; the table
is kept in benches/runs/<date>-<machine>/.
"""

import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import runs  # noqa: E402
import tables  # noqa: E402

TURN_MS = 300


def median_ms(arguments, wattle, command, runs):
    line = [*shlex.split(arguments.before), wattle, "bench", *command, "--json", "--runs", runs]
    run = subprocess.run([str(part) for part in line], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip())
    found = json.loads(run.stdout)
    return found.get("wattle", found)["median_ms"]


def compare(arguments):
    print("| network | batch | threads | before, ms | after, ms | after / before | of the shortest |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for label, _, batch, path, inputs in tables.chosen(arguments):
        for threads in arguments.threads:
            command = [path, *inputs, "--threads", threads]
            times = {arguments.old: [], arguments.new: []}
            try:
                repeats = {one: max(3, min(2000, round(TURN_MS / median_ms(arguments, one, command, 3)))) for one in times}
                for turn in range(arguments.rounds):
                    for one in list(times)[:: 1 if turn % 2 == 0 else -1]:
                        times[one].append(median_ms(arguments, one, command, repeats[one]))
            except RuntimeError as error:
                print(f"{label} b{batch} t{threads}: {error}", file=sys.stderr)
                continue
            old, new = times.values()
            middle, least = (of(new) / of(old) for of in (statistics.median, min))
            with open(arguments.out, "a") as file:
                file.write(json.dumps({"row": label, "batch": batch, "threads": threads, "old": old, "new": new}) + "\n")
            cells = [label, batch, threads, f"{statistics.median(old):.3g}", f"{statistics.median(new):.3g}"]
            print("| " + " | ".join(map(str, cells)) + f" | {middle:.3f} | {least:.3f} |", flush=True)
            ratios.append(middle)
    if len(ratios) > 1:
        least, *_, most = statistics.quantiles(ratios, n=10)
        mean = statistics.geometric_mean(ratios)
        print(f"\nafter / before over {len(ratios)} rows: geometric mean {mean:.3f}, middle 80 % {least:.2f} to {most:.2f}")


def main():
    parser = tables.options(__doc__)
    parser.add_argument("--old", required=True, help="the program before")
    parser.add_argument("--new", required=True, help="the program after")
    parser.add_argument("--out", default="before-after.jsonl")
    arguments = parser.parse_args()
    with runs.kept(f"before-after-{arguments.table}.md"):
        compare(arguments)


if __name__ == "__main__":
    main()
