"""Ordinary and hostile requests, mixed, on loopback: ``python benchmarks/soak.py [REQUESTS]``.

Eight clients send what comes: predictions, examples, photos of 16 megapixels; and bodies that are
too large, cut off or no JSON, decompression bombs, wrong tokens, connections that are dropped.
Meanwhile a process of its own asks, 50 times a second, whether the server is up. Prints what each
kind of request was answered, how soon the server said that it is up, and its memory before, after
and at most; 10,000 or more are written to ``benchmarks/results/soak.json``. It ends by itself.
"""

import base64
import contextlib
import http.client
import io
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

OUT = Path(__file__).parent / "results" / "soak.json"
TOKEN, CLIENTS, SIDE = "soak", 8, 84

Answer = tuple[int, Any]


class Kind(NamedTuple):
    """A kind of request.

    Attributes:
        send: sends one; returns its status, 0 where none is waited for, and the answer.
        expected: every status that it may be answered with.
        share: how many of these, for one of the rarest.
    """

    send: Callable[["Client"], Answer]
    expected: set[int]
    share: int = 1


class Client:
    """One of those who ask, with a task of its own."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.chance = port, random.Random(seed)
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        examples = [{"label": str(c), "image": drawing(c)} for c in range(5)]
        self.task = self.ask("POST", "/api/tasks", {"examples": examples})[1]["id"]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """The status and the answer; a body that is bytes is sent as it is."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        known = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
        try:
            self.http.request(method, path, sent, known | headers)
            answer = self.http.getresponse()
            text = answer.read()
        except OSError:  # it may answer, and close, before it has read a body that is refused
            self.http.close()
            return 0, None
        is_json = answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(text) if text and is_json else None

    def predict(self, *images: str) -> Answer:
        items = {"items": [{"image": image} for image in images]}
        return self.ask("POST", f"/api/tasks/{self.task}/predict", items)

    def predicted(self) -> Answer:
        """A prediction, which has to be right: the drawing is one of the examples."""
        label = self.chance.randrange(5)
        status, found = self.predict(drawing(label))
        if status == 200:
            answers = [learner["answers"][0]["label"] for learner in found["learners"].values()]
            assert answers[-1] == str(label), (answers, label)  # of the nearest pixels
        return status, found

    def another_task(self) -> Answer:
        status, made = self.ask("POST", "/api/tasks", {"kind": "drawing"})
        if status != 201:
            return status, made
        path = f"/api/tasks/{made['id']}"
        self.ask("POST", f"{path}/examples", {"examples": [{"label": "a", "image": drawing(1)}]})
        self.ask("POST", f"{path}/rename", {"old": "a", "new": "b"})
        return self.ask("DELETE", path)

    def dropped(self, sent: bytes, after: float = 0.0) -> Answer:
        """A connection that is closed after so much was sent."""
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection,
            contextlib.suppress(ConnectionError),
        ):
            connection.sendall(sent)
            time.sleep(after)
        return 0, None


def drawing(label: int) -> str:
    image = Image.new("L", (SIDE, SIDE), 255)
    pen = ImageDraw.Draw(image)
    for k in range(2 + label):
        pen.line((10, 10 + 12 * k, 74, 74 - (12 + label) * k), fill=0, width=4)
    return encoded(image)


def encoded(image: Image.Image, form: str = "PNG") -> str:
    file = io.BytesIO()
    image.save(file, form)
    return base64.b64encode(file.getvalue()).decode()


def bomb() -> str:
    """A PNG that says it has 200,000 x 200,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + check

    head = (200_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 999))
    return base64.b64encode(data + chunk(b"IEND", b"")).decode()


def kinds() -> dict[str, Kind]:
    """What is sent; large things are made once."""
    photo, wide, packed = (
        encoded(Image.new("L", (4000, 4000), 255)),
        encoded(Image.new("1", (9000, 9000))),
        bomb(),
    )
    many = json.dumps({"items": [{}] * 19_000}).encode()
    head = b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer soak\r\n"
    long = bytes(9 << 20)

    def task(body: Any, **headers: str) -> Callable[[Client], Answer]:
        return lambda client: client.ask(
            "POST", f"/api/tasks/{client.task}/predict", body, **headers
        )

    good = {"items": [{"image": drawing(0)}]}
    return {
        "a prediction": Kind(Client.predicted, {200}, 60),
        "a model's prediction": Kind(
            lambda c: c.ask("POST", "/api/models/soak/predict", good), {200}, 20
        ),
        "16 predictions in one": Kind(lambda c: c.predict(*[drawing(1)] * 16), {200}, 4),
        "a task made, renamed, deleted": Kind(Client.another_task, {204}, 8),
        "an image of 16 megapixels": Kind(lambda c: c.predict(photo), {200}),
        "an image of 81 megapixels": Kind(lambda c: c.predict(wide), {422}, 4),
        "a decompression bomb": Kind(lambda c: c.predict(packed), {422}, 8),
        "no image": Kind(lambda c: c.predict("aGVsbG8="), {422}, 8),
        "no base64": Kind(lambda c: c.predict("../../etc/passwd"), {422}, 8),
        "no JSON": Kind(task(b'{"items": [{"image": '), {422}, 8),
        "JSON of another form": Kind(task({"items": [{"image": 7}] * 64}), {422}, 8),
        "19,000 empty items": Kind(task(many), {413, 422}, 4),
        "9 MiB": Kind(task(long), {0, 413}, 4),
        "a wrong token": Kind(task(good, Authorization="Bearer wrong"), {401}, 8),
        "another site's page": Kind(task(good, Origin="http://evil.example"), {403}, 8),
        "another name of the server": Kind(task(good, Host="evil.example"), {400}, 8),
        "an unknown task": Kind(lambda c: c.ask("GET", "/api/tasks/none"), {404}, 8),
        "an unknown model": Kind(
            lambda c: c.ask("POST", "/api/models/none/predict", good), {404}, 8
        ),
        "no such method": Kind(lambda c: c.ask("PUT", "/api/tasks", {}), {405}, 8),
        "a body cut off": Kind(
            lambda c: c.dropped(head + b'Content-Length: 999\r\n\r\n{"kind":', 0.01), {0}, 8
        ),
        "a head cut off": Kind(lambda c: c.dropped(head, 0.01), {0}, 8),
        "no HTTP": Kind(lambda c: c.dropped(os.urandom(999)), {0}, 8),
    }


def health(port: int) -> None:
    """Ask whether the server is up, until standard input ends; prints how long each answer took."""
    import threading

    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    times = []
    while not ended.wait(0.02):
        began = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/api/health")
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["status"]) == (200, "ok")
        times.append(time.perf_counter() - began)
        connection.close()
    print(json.dumps(times))


def memory(pid: int, which: str = "VmRSS") -> int:
    """Resident MiB of a process; with ``"VmHWM"`` the most that it ever was."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(f"{which}:")[2].split()[0]) >> 10


def soak(port: int, pid: int, requests: int, clients: int = CLIENTS) -> dict[str, Any]:
    """Send so many requests to a server with the token ``soak`` that serves a model ``soak.qs``.

    Returns:
        What each kind was answered, and how often; what was answered as it must not be; how long
        health took, in ms; and the server's memory after one of each kind from each client, at the
        end, and at most.
    """
    known = kinds()
    chosen = random.Random(0).choices([*known], [kind.share for kind in known.values()], k=requests)
    words = [sys.executable, __file__, "health", str(port)]
    asking = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    asks = [Client(port, seed) for seed in range(clients)]
    answered: dict[str, Counter[int]] = {name: Counter() for name in known}

    def send(client: Client, names: list[str]) -> None:
        for name in names:
            answered[name][known[name].send(client)[0]] += 1

    def send_all(names: list[str]) -> int:
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(send, asks, [names[i::clients] for i in range(clients)]))
        time.sleep(1)
        return memory(pid)

    began = time.perf_counter()
    before = send_all([name for name in known for _ in asks])  # each of them each kind
    after = send_all(chosen)
    seconds = time.perf_counter() - began
    times = sorted(1000 * t for t in json.loads(asking.communicate()[0]))
    wrong = {
        f"{name}: {status}": count
        for name, counts in answered.items()
        for status, count in counts.items()
        if status not in known[name].expected
    }
    return {
        "requests": requests,
        "clients": clients,
        "seconds": round(seconds),
        "answered": {name: dict(sorted(counts.items())) for name, counts in answered.items()},
        "wrong": wrong,
        "health": {
            "asked": len(times),
            "p50_ms": round(times[len(times) // 2], 1),
            "p99_ms": round(times[int(0.99 * len(times))], 1),
            "max_ms": round(times[-1], 1),
        },
        "memory_before_mib": before,
        "memory_after_mib": after,
        "memory_peak_mib": memory(pid, "VmHWM"),
    }


def main(requests: int) -> None:
    from quickstudy.checkpoint import write_atomically
    from quickstudy.experiments.reproduce import code_commit
    from quickstudy.model import Model

    with tempfile.TemporaryDirectory() as folder:
        few = [(base64.b64decode(drawing(c)), str(c)) for c in range(5)]
        Model.learn(few, encoder="drawing").save(Path(folder, "soak.qs"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "quickstudy", "serve", "soak.qs", "--port", str(port)]
        environment = os.environ | {"QUICKSTUDY_TOKEN": TOKEN}
        server = subprocess.Popen([*words, "--rate", "1e9"], cwd=folder, env=environment)
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                assert server.poll() is None
                time.sleep(0.1)
            found = soak(port, server.pid, requests)
        finally:
            server.terminate()
            server.wait()
    found |= {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "commit": code_commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    for name, counts in found["answered"].items():
        said = ", ".join(f"{count} times {status or 'none'}" for status, count in counts.items())
        print(f"{name:32}{said}")
    print(json.dumps({k: v for k, v in found.items() if k != "answered"}, indent=1))
    if requests >= 10_000:
        write_atomically(OUT, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["health"]:
        health(int(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
