#!/usr/bin/env python3
"""Makes the tables of the meter again, each on its page of docs/results, and keeps them in benches/runs/<date>-<machine>/.

    python benches/meter/run.py                     all of them, about eight minutes with built binaries
    python benches/meter/run.py cost estimates      some of them

Needs nothing else to do on the machine, CodeCarbon 3.3.2 in the environment of this Python (`cost` leaves it out
otherwise) and, for `estimates`, the packages that .ci/fetch-test-data fetches. Points for `thompson` are the user's own:
THOMPSON=folder. TIMED=command goes before what is timed, where a machine has a way of its own to be quiet.
"""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import runs  # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
WATTLE = os.environ.get("WATTLE", "target/release/wattle")
ALONE = os.environ.get("WATTLE_ALONE", "target/meter-only/release/wattle")
TIMED = os.environ.get("TIMED", "").split()


def output(*command, **environment):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def machine():
    text = open("/proc/cpuinfo").read()
    name = re.search(r"model name\s*: (.*)", text)[1]
    family, model = re.search(r"cpu family\s*: (\d+)", text)[1], re.search(r"model\s*: (\d+)", text)[1]
    virtual = " (a virtual machine)" if " hypervisor" in text else ""
    return f"{os.cpu_count()} processors, {name}, family {family} model {model}{virtual}"


def cost():
    output("cargo", "build", "--quiet", "--release", "-p", "wattle-meter", "--example", "overhead")
    script = [sys.executable, "benches/peers/meter.py", WATTLE, ALONE, "--seconds", "4", "--rounds", "3"]
    overhead = output(*TIMED, "target/release/examples/overhead")
    return f"{machine()}:\n\n{output(*TIMED, *script)}\n```\n{overhead}```\n"


def size():
    if "WATTLE" not in os.environ:
        output("cargo", "build", "--release", "-p", "wattle")
        output("cargo", "build", "--release", "-p", "wattle", "--no-default-features", "--target-dir",
               "target/meter-only")
    megabytes = [os.path.getsize(os.path.join(ROOT, path)) / 1e6 for path in (WATTLE, ALONE)]
    return (f"| binary | MB | goal |\n|---|---|---|\n| all of wattle | {megabytes[0]:.1f} | 20 |\n"
            f"| the meter alone (`--no-default-features`) | {megabytes[1]:.1f} | 5 |\n")


def model():
    text = output("cargo", "test", "--quiet", "-p", "wattle-meter", "--lib", "left_out", "--", "--nocapture")
    return "```\n" + next(line for line in text.splitlines() if line.startswith("left out")) + "\n```\n"


def forecasts():
    text = output("cargo", "test", "--quiet", "-p", "wattle-meter", "--test", "forecasts", "--", "--nocapture")
    return "\n".join(line for line in text.splitlines() if line.startswith("|")) + "\n"


def estimates():
    return f"{machine()}:\n\n" + output(sys.executable, "benches/estimates/run.py", WATTLE)


def thompson():
    points = os.environ.get("THOMPSON")
    if not points:
        return None
    text = output(WATTLE, "reproduce", "thompson2020", "--points", points)
    # What the points give, and how many of the printed exponents; not each of them again, they are in docs/results/published-figures.md.
    lines = [line for line in text.splitlines() if re.match(r"Beside it: .*: \d+ points|\d+ figures", line)]
    return "```\n" + "\n".join(lines) + "\n```\n"


# Each table, what makes it, and its page.
TABLES = {"cost": (cost, "meter-cost"), "size": (size, "meter-cost"), "model": (model, "power-model"),
          "forecasts": (forecasts, "forecasts"), "estimates": (estimates, "estimates"), "thompson": (thompson, "scaling")}


def main():
    wanted = sys.argv[1:] or list(TABLES)
    for name in wanted:
        make, page = TABLES[name]
        table = make()
        if table is None:
            print(f"{name}: left out")
            continue
        place = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end of table -->)", re.DOTALL)
        path = os.path.join(ROOT, f"docs/results/{page}.md")
        text = open(path).read()
        if not place.search(text):
            sys.exit(f"{name}: {page}.md has no place for this table")
        open(path, "w").write(place.sub(lambda m: m[1] + "\n" + table + "\n" + m[2], text))
        runs.keep(f"{name}.md", table)
    if not sys.argv[1:]:
        path = os.path.join(ROOT, "docs/results/published-figures.md")
        text = open(path).read().split("```")
        text[1] = "\n" + output(WATTLE, "reproduce", "all").strip() + "\n"
        open(path, "w").write("```".join(text))


if __name__ == "__main__":
    main()
