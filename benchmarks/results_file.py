"""How a benchmark keeps what it found: with the machine, the commit and the day."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from quickstudy.checkpoint import write_atomically
from quickstudy.experiments.reproduce import code_commit


def keep(path: Path, found: dict[str, Any]) -> None:
    signed = found | {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": code_commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    write_atomically(path, json.dumps(signed, indent=1) + "\n")
