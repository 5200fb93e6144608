#!/usr/bin/env python3
"""What measuring itself costs: wattle measure beside CodeCarbon, on a workload that sleeps.

Prints, for each contender and in turns, the time until the workload runs, the tracker's resident memory, and its own
processor time as a share of one core. For wattle the workload of the first figure is `date`, which starts in a millisecond;
CodeCarbon is started inside its program, so that there the interpreter's own start is part of it. Usage, with CodeCarbon 3.3.2 in the environment of this Python:

    python benches/peers/meter.py target/release/wattle target/meter-only/release/wattle --seconds 10 --rounds 3

The second is the meter alone: cargo build --release -p wattle --no-default-features --target-dir target/meter-only.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

# Run by the measured command: its parent is wattle. Waits, then reports on it.
WATCHER = """
import os, time
started = time.monotonic()
def cpu():
    threads = f"/proc/{os.getppid()}/task"
    times = [open(f"{threads}/{thread}/schedstat").read().split()[0] for thread in os.listdir(threads)]
    return sum(map(int, times)) / 1e9
before = cpu()
time.sleep(SECONDS)
status = open(f"/proc/{os.getppid()}/status").read()
rss = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(started, rss, cpu() - before, cpu())
"""

# Run by a Python that carries CodeCarbon.
CODECARBON = """
import os, resource, time
from codecarbon import OfflineEmissionsTracker
tracker = OfflineEmissionsTracker(country_iso_code="USA", measure_power_secs=1, save_to_file=False, log_level="error")
tracker.start()
started = time.monotonic()
def cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
before = cpu()
time.sleep(SECONDS)
spent = cpu() - before
rss = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
tracker.stop()
print(started, rss, spent, cpu())
"""


STARTS = 21


def start(prefix, environment):
    """Milliseconds until `date`, the workload, has looked at the clock; the median of many."""
    times = []
    for _ in range(STARTS):
        begun = time.time_ns()
        now = subprocess.run(prefix + ["date", "+%s%N"], capture_output=True, env=environment, check=True).stdout
        times.append((int(now) - begun) / 1e6)
    return statistics.median(times)


def figures(command, seconds, environment):
    begun = time.monotonic()
    output = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    started, rss, spent, whole = map(float, output.split()[-4:])
    return {"start": (started - begun) * 1000, "rss": rss, "share": 100 * spent / seconds, "all": whole}


def fake_counters(root):
    for package in range(2):
        zone = os.path.join(root, f"class/powercap/intel-rapl:{package}")
        os.makedirs(zone)
        for name, text in [("name", f"package-{package}"), ("energy_uj", "0"), ("max_energy_range_uj", "262143328850")]:
            with open(os.path.join(zone, name), "w") as file:
                file.write(text + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wattle", help="with everything")
    parser.add_argument("alone", help="the meter alone")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    seconds = arguments.seconds
    environment = dict(os.environ, WATTLE_LEDGER="")
    watcher = [sys.executable, "-S", "-c", WATCHER.replace("SECONDS", str(seconds))]
    with tempfile.TemporaryDirectory() as root:
        fake_counters(root)
        whole, alone = ([path, "measure"] for path in (arguments.wattle, arguments.alone))
        counters = ["--sysfs", root]
        contenders = {
            "all of wattle, model, 1 Hz": whole + ["--"] + watcher,
            "all of wattle, two RAPL files, 1 Hz": whole + counters + ["--"] + watcher,
            "the meter alone, model, 1 Hz": alone + ["--"] + watcher,
            "the meter alone, two RAPL files, 1 Hz": alone + counters + ["--"] + watcher,
            "the meter alone, two RAPL files, 1 kHz": alone + counters + ["--interval", "0.001", "--"] + watcher,
        }
        starts = {name: start(command[:command.index("--") + 1], environment) for name, command in contenders.items()}
        bare = start([], environment)
        try:
            import codecarbon  # noqa: F401
            contenders["CodeCarbon, 1 Hz"] = [sys.executable, "-c", CODECARBON.replace("SECONDS", str(seconds))]
        except ImportError:
            print("no CodeCarbon in this Python: it is left out", file=sys.stderr)
        results = {name: [] for name in contenders}
        for _ in range(arguments.rounds):
            for name, command in contenders.items():
                results[name].append(figures(command, seconds, environment))
    print(f"| contender | the workload runs after, ms | peak memory, MB | share of a core over {seconds:g} s, % |")
    print("|---|---|---|---|")
    for name, rows in results.items():
        median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        median["start"] = starts.get(name, median["start"])
        print(f"| {name} | {median['start']:.1f} | {median['rss']:.1f} | {median['share']:.3f} |")
    print(f"| the workload without any | {bare:.1f} | | |")


if __name__ == "__main__":
    main()
