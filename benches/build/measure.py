"""What building costs: CPU-minutes of a cold release build and the size of what it makes.

    python benches/build/measure.py                        # the last commit
    python benches/build/measure.py --before 1b26100       # and another one beside it
    python benches/build/measure.py --write                # also puts the table into docs/results/building.md

Each commit is cloned into a temporary folder and built there with nothing compiled before; what is to be fetched is
fetched first. CPU time is that of all processes of the build, user and system. Two threads that share a core take more of
it than one at a time, so both are measured.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches"))

import runs  # noqa: E402

PAGE = ROOT / "docs" / "results" / "building.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
ALONE = ["-p", "wattle", "--no-default-features"]


def built(folder, target, jobs, more=()):
    """CPU-minutes and wall minutes of a cold build."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), os.times().elapsed
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", target, "-j", str(jobs), *more]
    subprocess.run(command, cwd=folder, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return spent / 60, (os.times().elapsed - started) / 60


def megabytes(target):
    return (Path(target) / "release" / "wattle").stat().st_size / 1e6


def measure(commit):
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        clone = f"{folder}/wattle"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), clone], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=clone, check=True)
        subprocess.run(["cargo", "fetch", "--quiet"], cwd=clone, check=True)
        jobs = os.cpu_count()
        for count in dict.fromkeys([1, jobs]):
            cpu, wall = built(clone, f"{folder}/{count}", count)
            rows[f"cold release build, {count} at a time"] = f"{cpu:.1f} CPU-minutes, {wall:.1f} minutes"
        rows["`wattle`"] = f"{megabytes(f'{folder}/1'):.1f} MB"
        cpu, wall = built(clone, f"{folder}/alone", jobs, ALONE)
        rows[f"the meter alone, {jobs} at a time"] = f"{cpu:.1f} CPU-minutes, {wall:.1f} minutes"
        rows["`wattle`, the meter alone"] = f"{megabytes(f'{folder}/alone'):.1f} MB"
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", help="a commit to build as well")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    arguments = parser.parse_args()
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    commits = ([arguments.before] if arguments.before else []) + [head.stdout.strip()]
    found = {commit: measure(commit) for commit in commits}
    lines = ["| what | " + " | ".join(commits) + " |", "|---|" + "---|" * len(commits)]
    for what in found[commits[-1]]:
        lines.append(f"| {what} | " + " | ".join(found[commit][what] for commit in commits) + " |")
    name, count = runs.processor()
    table = f"measured: {name}, {count} processors.\n\n" + "\n".join(lines) + "\n"
    print(table)
    if arguments.write:
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + table + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
