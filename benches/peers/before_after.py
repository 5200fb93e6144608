"""Did anything get slower? The rows of tables.py, timed with two builds of wattle in turns.

    python before_after.py dense FOLDER --old target/before/release/wattle --new target/release/wattle

FOLDER is what networks.py wrote; the table and its options are those of tables.py. In a round each build runs once, the
order changing from round to round, each a process of its own that fills about a third of a second with runs. A process is
told by its median. A row has the median over rounds of both, and the ratio of new to old: of those medians, and of the
shortest ones, which a busy machine disturbs least. Above 1 the new build is slower. Rows are appended to --out.
"""

import json
import shlex
import statistics
import subprocess
import sys

import tables

TURN_MS = 300


def median_ms(arguments, wattle, command, runs):
    line = [*shlex.split(arguments.before), wattle, "bench", *command, "--json", "--runs", runs]
    run = subprocess.run([str(part) for part in line], capture_output=True, text=True)
    if run.returncode != 0:
        raise RuntimeError(run.stderr.strip())
    found = json.loads(run.stdout)
    return found.get("wattle", found)["median_ms"]


def main():
    parser = tables.options(__doc__)
    parser.add_argument("--old", required=True, help="the program before")
    parser.add_argument("--new", required=True, help="the program after")
    parser.add_argument("--out", default="before-after.jsonl")
    arguments = parser.parse_args()
    print("| network | batch | threads | before, ms | after, ms | after / before | of the shortest |")
    print("|---|---|---|---|---|---|---|")
    for label, _, batch, path, inputs in tables.chosen(arguments):
        for threads in arguments.threads:
            command = [path, *inputs, "--threads", threads]
            times = {arguments.old: [], arguments.new: []}
            try:
                runs = {one: max(3, min(2000, round(TURN_MS / median_ms(arguments, one, command, 3)))) for one in times}
                for turn in range(arguments.rounds):
                    for one in list(times)[:: 1 if turn % 2 == 0 else -1]:
                        times[one].append(median_ms(arguments, one, command, runs[one]))
            except RuntimeError as error:
                print(f"{label} b{batch} t{threads}: {error}", file=sys.stderr)
                continue
            old, new = times.values()
            middle, least = (of(new) / of(old) for of in (statistics.median, min))
            with open(arguments.out, "a") as file:
                file.write(json.dumps({"row": label, "batch": batch, "threads": threads, "old": old, "new": new}) + "\n")
            cells = [label, batch, threads, f"{statistics.median(old):.3g}", f"{statistics.median(new):.3g}"]
            print("| " + " | ".join(map(str, cells)) + f" | {middle:.3f} | {least:.3f} |", flush=True)


if __name__ == "__main__":
    main()
