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
RUN = (sys.executable, "-u")
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def parts(photos: str | None, omniglot: str | None) -> dict[str, list[str]]:
    """The command of each part, by what it measures."""
    root = ["--root", photos] if photos else []
    found = {
        "steps of ours and the peers', 15 minutes": [*RUN, "performance.py"],
        "where the time and memory of a step go": [*RUN, "where.py"],
        "photos, ours and a DataLoader, 10 minutes": [*RUN, "photos.py", *root],
        "commands": [*RUN, "commands.py"],
        "the server under load": [*RUN, "load.py"],
        "training with two processes": [*TWO, "scaling.py"],
        "predicting with two processes": [*RUN, "shards.py"],
    }
    if omniglot:
        last = [*RUN, "time_to_accuracy.py", omniglot]
        found["time to accuracy on Omniglot, up to 40 minutes"] = last
    return found


def run(command: list[str]) -> None:
    """To its end, or until Ctrl-C: which reaches this process alone, and ends all of the other's.

    Raises:
        KeyboardInterrupt: on Ctrl-C.
        CalledProcessError: it failed.
    """
    words = [str(HERE / word) if word.endswith(".py") else word for word in command]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        code = process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        raise
    if code:
        raise subprocess.CalledProcessError(code, words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=os.path.abspath)
    parser.add_argument("--omniglot", type=os.path.abspath)
    options = parser.parse_args()
    chosen = parts(options.photos, options.omniglot)
    for number, (what, command) in enumerate(chosen.items(), 1):
        print(f"\n== {time.strftime('%H:%M')}, {number} of {len(chosen)}: {what}", flush=True)
        try:
            run(command)
        except KeyboardInterrupt:
            print("\nstopped; the results of what had ended before are kept", file=sys.stderr)
            sys.exit(130)
    subprocess.run([sys.executable, HERE.parent / "tools" / "results.py"], check=True)


if __name__ == "__main__":
    main()
