"""Where a run of a bench keeps what it found: `benches/runs/<date>-<machine>/`, one file a table.

Pages of docs/results keep the one table that answers their question; the folder keeps all that was printed, so that two
machines or two dates can be laid side by side. `WATTLE_RUN=NAME` names the folder otherwise.
"""

import contextlib
import datetime
import io
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]


def processor():
    """The processor as the system names it, and how many there are."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    name = re.search(r"model name\s*: (.*)", text)
    return name[1] if name else "unknown processor", os.cpu_count()


def folder():
    """The folder of this date and machine, made if it is not there."""
    name, count = processor()
    words = re.findall(r"[a-z0-9]+", re.sub(r"\(.*?\)|@.*|\b\d+-Core\b|Processor|CPU", " ", name).lower())
    default = f"{datetime.date.today()}-{'-'.join(words)}-{count}"
    path = ROOT / "benches/runs" / os.environ.get("WATTLE_RUN", default)
    path.mkdir(parents=True, exist_ok=True)
    return path


def keep(name, text):
    """Writes a table into the folder and says where."""
    path = folder() / name
    path.write_text(text.rstrip("\n") + "\n")
    print(f"kept in {path.relative_to(ROOT)}", file=sys.stderr)


@contextlib.contextmanager
def kept(name):
    """Keeps what is printed inside, which still appears on standard output. An error keeps nothing."""
    printed, stdout = io.StringIO(), sys.stdout

    class Both(io.TextIOBase):
        def write(self, text):
            printed.write(text)
            return stdout.write(text)

        def flush(self):
            stdout.flush()

    with contextlib.redirect_stdout(Both()):
        yield
    keep(name, printed.getvalue())
