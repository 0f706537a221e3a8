"""Every benchmark in turn, then the pages that show them: ``make bench``.

``--photos ROOT`` measures your photos instead of invented ones, ``--omniglot ROOT`` also the time
to accuracy. Ctrl-C ends the benchmark that runs; the results of those before it are kept.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
QUIETLY = """
import runpy, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up, and says nothing
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""
GRACE = 10.0
"""Seconds to clean up in."""


def parts(photos: str | None, omniglot: str | None) -> dict[str, list[str]]:
    """The command of each part, by what it measures."""
    root = ["--root", photos] if photos else []
    found = {
        "steps of ours and the peers', 15 minutes": ["performance.py"],
        "where the time and memory of a step go": ["where.py"],
        "photos, ours and a DataLoader, 10 minutes": ["photos.py", *root],
        "commands": ["commands.py"],
        "the server under load": ["load.py"],
        "training with two processes": ["scaling.py"],
        "predicting with two processes": ["shards.py"],
    }
    if omniglot:
        last = ["time_to_accuracy.py", omniglot]
        found["time to accuracy on Omniglot, up to 40 minutes"] = last
    return found


def run(command: list[str]) -> None:
    """To its end, or until Ctrl-C: which reaches this process alone, and ends all of the other's.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
        SystemExit: it failed.
    """
    script, *words = command
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", QUIETLY, str(HERE / script), *words], start_new_session=True
    )
    try:
        if process.wait():
            sys.exit(f"{script} failed; the results of what had ended before are kept")
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=os.path.abspath)
    parser.add_argument("--omniglot", type=os.path.abspath)
    options = parser.parse_args()
    chosen = parts(options.photos, options.omniglot)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        for i, (what, command) in enumerate(chosen.items(), 1):
            print(f"\n== {time.strftime('%H:%M')}, {i} of {len(chosen)}: {what}", flush=True)
            run(command)
        run(["../tools/results.py"])
    except KeyboardInterrupt:
        print("\nstopped; the results of what had ended before are kept", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
