"""The web service under load, on loopback: ``python benchmarks/load.py [REQUESTS [OTHER]]``.

Eight clients ask at once, each a task of its own with other names for the same drawings, so that an
answer meant for another one would be seen. Every answer is compared with the one given when nobody
else asked: the same labels, and probabilities to a thousandth. Prints predictions a second,
latencies, memory before and after, and writes ``benchmarks/results/load.json``. A tenth as many are
then asked of ``OTHER``, the ``src`` folder of another state of the code. It ends by itself.
"""

import base64
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from quickstudy.data import alphabets
from results_file import keep

OUT = Path(__file__).parent / "results" / "load.json"
CLIENTS, CLASSES, QUERIES = 8, 5, 4


def drawing(label: int, instance: int) -> str:
    pixels = 255 - DRAWN.read(torch.tensor([label]), torch.tensor([instance]))[0, 0].numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def memory(pid: int) -> float:
    """Resident MiB of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1]) / 1024


class Client:
    """One task, and what is answered in quiet."""

    def __init__(self, url: str, number: int) -> None:
        self.http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        named = [
            {"label": f"{number} {c}", "image": drawing((c + number) % CLASSES, 0)}
            for c in range(CLASSES)
        ]
        body = {"kind": "drawing", "examples": named}
        self.task = self.http.post("/api/tasks", json=body).raise_for_status().json()["id"]
        self.bodies = [
            {"items": [{"image": drawing(c, 1 + q)}]}
            for c in range(CLASSES)
            for q in range(QUERIES)
        ]
        self.quiet = [self.ask(i)[0] for i in range(len(self.bodies))]

    def ask(self, i: int) -> tuple[Any, float]:
        began = time.perf_counter()
        answer = self.http.post(f"/api/tasks/{self.task}/predict", json=self.bodies[i])
        spent = time.perf_counter() - began
        found = answer.raise_for_status().json()
        each = {name: own["answers"][0] for name, own in found["learners"].items()}
        said = found["classes"], {name: answer["label"] for name, answer in each.items()}
        return (said, [p for answer in each.values() for p in answer["probabilities"]]), spent

    def load(self, requests: int) -> tuple[list[float], int]:
        times, wrong = [], 0
        for i in range(requests):
            at = i % len(self.bodies)
            answer, spent = self.ask(at)
            times.append(spent)
            wrong += not agree(answer, self.quiet[at])
        return times, wrong


def agree(answer: Any, quiet: Any) -> bool:
    """Whether two answers are one but for the rounding of a batch."""
    (said, p), (known, q) = answer, quiet
    return said == known and max(abs(a - b) for a, b in zip(p, q, strict=True)) <= 1e-3


def measure(requests: int, source: str | None = None) -> dict[str, Any]:
    """Figures of so many requests; ``source`` is a folder with another state of the code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-m", "quickstudy", "serve", "--port", str(port), "--rate", "1e9"]
    server = subprocess.Popen(words, env=os.environ | ({"PYTHONPATH": source} if source else {}))
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                httpx.get(f"{url}/api/health", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        clients = [Client(url, n) for n in range(CLIENTS)]
        each = requests // CLIENTS
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(lambda c: c.load(len(c.bodies)), clients))
            before, began = memory(server.pid), time.perf_counter()
            found = list(pool.map(lambda c: c.load(each), clients))
            seconds, after = time.perf_counter() - began, memory(server.pid)
    finally:
        server.terminate()
        server.wait()
    times = sorted(t for own, _ in found for t in own)
    return {
        "requests": len(times),
        "clients": CLIENTS,
        "requests_a_second": round(len(times) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(times), 1),
        "p99_ms": round(1000 * times[int(0.99 * len(times))], 1),
        "wrong": sum(wrong for _, wrong in found),
        "memory_before_mib": round(before),
        "memory_after_mib": round(after),
    }


def main(requests: int, other: str | None = None) -> None:
    print(f"{requests} requests ...", flush=True)
    result = measure(requests)
    if other:
        result["other"] = measure(requests // 10, other)
    print(json.dumps(result, indent=1))
    if requests >= 10_000:
        keep(OUT, result)


DRAWN = alphabets(CLASSES, 1 + QUERIES, size=84, first_class=40)

if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000, *sys.argv[2:])
