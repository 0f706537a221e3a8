"""What one client can do to the others: nothing. Against a real server, on loopback."""

import asyncio
import base64
import http.client
import io
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs quickstudy[app]")
import uvicorn
from fastapi.testclient import TestClient

from quickstudy.app import Limits, Workbench, create_app, guard, service
from quickstudy.app.connections import connections
from quickstudy.app.guard import Rates
from quickstudy.app.workbench import Item

MANY = "1e6"


def png(side: int, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 2, (side, side)).astype(bool)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Server:
    def __init__(self, start: Any, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        words = ("serve", "--port", str(self.port), "--rate", MANY, *options)
        self.process = start("quickstudy", *words, cwd=folder)
        for _ in range(600):
            try:
                self.ask("/api/health")
                break
            except OSError:
                assert self.process.poll() is None, self.process.err
                time.sleep(0.1)

    def ask(self, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | headers
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(sent)
        return connection

    def resident(self) -> int:
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) << 10

    def end(self) -> float:
        """Ask it to end; how many seconds that took."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(30) in (0, -signal.SIGTERM), self.process.err
        return time.monotonic() - began


@pytest.fixture(scope="module")
def server(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(start, tmp_path_factory.mktemp("server"), "--connections", "60")
    yield server
    server.process.send_signal(signal.SIGKILL)


def test_health_answers_while_others_ask_for_much(server: Server) -> None:
    """Large images, very many parts, heads without an end, and every second answer in 0.3 s.

    Quiet it is 20 ms. This test's threads, and other tests, take the same cores: what matters here
    is that nobody waits for what others asked for, which takes seconds.
    """
    _, task = server.ask(
        "/api/tasks", {"examples": [{"label": str(i), "image": png(84, i)} for i in range(5)]}
    )
    large, ended = png(5000), threading.Event()
    bodies = [
        {"items": [{"image": large}]},
        {"items": [{"image": png(84)}] * 64},
        {"items": [[]] * 9},
    ]
    bodies += [{"items": [{}] * 19_000}, [[0] * 10_000], {"items": "x" * (7 << 20)}]

    def attack(which: int) -> None:
        while not ended.is_set():
            server.ask(f"/api/tasks/{task['id']}/predict", bodies[which])

    threads = [threading.Thread(target=attack, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    try:
        times = []
        for _ in range(60):
            began = time.monotonic()
            status, health = server.ask("/api/health")
            times.append(time.monotonic() - began)
            assert (status, health["status"]) == (200, "ok")
            time.sleep(0.02)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert sorted(times)[30] < 0.3, times
    assert max(times) < 2, times
    new = {"items": [{"image": png(84, 3)}]}
    while (found := server.ask(f"/api/tasks/{task['id']}/predict", new))[0] == 503:
        time.sleep(0.2)
    assert found[1]["learners"]["Nearest pixels"]["answers"][0]["label"] == "3"


def test_connections_that_send_nothing_keep_nobody_out(server: Server) -> None:
    half = b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
    with ExitStack() as held:
        idle = [held.enter_context(server.connect(sent)) for sent in [b"", half] * 25]
        assert server.ask("/api/health")[0] == 200
        more = [held.enter_context(server.connect()) for _ in range(30)]
        closed = [connection for connection in more if connection.recv(1) == b""]
        assert len(closed) >= 15, "a server of 60 connections takes no 80"
        began = time.monotonic()
        assert all(connection.recv(9999) == b"" for connection in idle)
        assert time.monotonic() - began < 15, "who sends nothing for 10 s is closed"
    assert server.ask("/api/health")[0] == 200


def test_a_connection_that_is_used_is_not_closed() -> None:
    """Not even between two requests, when it has been open for as long as one may idle."""
    config = uvicorn.Config(create_app(), port=0, log_level="error", http=connections(9, 0.4))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        used = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with socket.create_connection(("127.0.0.1", port)) as idle:
            for _ in range(6):
                used.request("GET", "/api/health")
                assert used.getresponse().read()
                time.sleep(0.15)
            assert idle.recv(1) == b""
        used.close()
    finally:
        server.should_exit = True
        thread.join()


def test_it_ends_in_seconds_whoever_is_connected(start: Any, tmp_path: Path) -> None:
    server = Server(start, tmp_path)
    few = {"examples": [{"label": str(i), "image": png(84, i)} for i in range(2)]}
    path = f"/api/tasks/{server.ask('/api/tasks', few)[1]['id']}/predict"
    large = {"items": [{"image": png(5000)}]}

    def ask() -> None:
        with suppress(OSError, ValueError, http.client.HTTPException):
            server.ask(path, large)

    asking = [threading.Thread(target=ask) for _ in range(12)]
    for thread in asking:
        thread.start()
    time.sleep(0.5)
    head = b"POST /api/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
    with ExitStack() as held:
        for sent in (b"", head, head + b"\r\n{", head + b"Expect: 100-continue\r\n\r\n") * 10:
            held.enter_context(server.connect(sent))
        assert server.end() < 5
    for thread in asking:
        thread.join()


def calling(**settings: Any) -> TestClient:
    app = create_app(**{"requests_a_second": 1e6, **settings})
    return TestClient(app, base_url="http://localhost")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:9"}, 403),
        ({"Origin": "http://[", "Host": "localhost"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_may_not_ask(headers: dict[str, str], status: int) -> None:
    """A form or a script elsewhere reaches this machine, and needs no answer to do harm."""
    client = calling()
    untyped = client.post("/api/tasks", content=b"{}", headers=headers).status_code
    assert untyped in (status, 422)  # of a body without its type, as FastAPI's version has it
    answer = client.post("/api/tasks", json={}, headers=headers)
    assert answer.status_code == status
    assert client.get("/api/health").json()["tasks"] == [untyped, status].count(201)
    for path in ("/api/models", "/api/health", "/metrics"):
        assert client.get(path, headers=headers).status_code == (200 if status == 201 else 403)
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    for path in ("/", "/api/health", "/openapi.json"):
        assert client.get(path, headers=link).is_success
    assert client.get("/api/models", headers=link).status_code == 403
    assert client.post("/api/tasks", json={}, headers=link).status_code == 403


def test_what_other_sites_ask_costs_nobody_anything() -> None:
    client = TestClient(create_app(requests_a_second=2), base_url="http://localhost")
    for _ in range(20):
        headers = {"Origin": "http://evil.example"}
        assert client.get("/api/health", headers=headers).status_code == 403
    assert client.get("/api/health").is_success


def test_methods_that_there_are_none_of_take_no_memory() -> None:
    """Each was a figure of its own, for as long as the server ran."""
    client = calling()
    for i in range(9):
        assert client.request(f"BREW{i}", "/api/health").status_code == 405
    figures = client.get("/metrics").text
    assert 'quickstudy_requests_total{method="other",status="405"} 9.0' in figures
    assert "BREW" not in figures


def test_the_token_is_looked_at_before_the_body() -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(1000):
            sent.append(1)
            yield b"x" * 1000

    client = calling(token="secret")
    assert client.post("/api/tasks", content=endless()).status_code == 401
    app = client.app

    async def never(*_: Any) -> Any:
        raise AssertionError("the body was read")

    answers = []

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/api/tasks", "query_string": b""}
    scope |= {"headers": [(b"host", b"localhost"), (b"content-length", b"5")], "client": ("a", 1)}
    asyncio.run(app(scope, never, send))  # type: ignore[operator]
    assert answers[0]["status"] == 401


def test_pixels_are_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request of 16 megapixels costs as much as 17 small ones; here no time passes."""
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: 0.0))
    for side, left in ((4000, 2), (84, 18)):
        client = calling(requests_a_second=10)
        task = client.post("/api/tasks", json={}).json()["id"]
        items = {"items": [{"image": png(side)}]}
        assert client.post(f"/api/tasks/{task}/predict", json=items).is_success
        codes = [client.get("/api/health").status_code for _ in range(20)]
        assert codes.count(200) in (left - 1, left)


def test_rates() -> None:
    rates = Rates(1000)
    assert rates.take("a")
    rates.charge("a", 10_000)
    assert not rates.take("a")
    assert rates.take("b"), "each client has its own"
    time.sleep(0.05)
    assert not rates.take("a"), "what is owed has to be waited for"
    for i in range(10_100):
        rates.take(str(i))
    assert len(rates._left) <= 10_000


def test_when_all_are_at_work_the_next_is_told_to_wait() -> None:
    bench, going = Workbench(), threading.Event()
    client = calling(workbench=bench, workers=1, waiting=1, seconds=0.5)
    task = bench.create("drawing")
    answers_of = bench._answers

    def slow(together: Any) -> Any:
        going.wait(20)
        return answers_of(together)

    bench._answers = slow  # type: ignore[method-assign]
    item = {"items": [{"image": png(84)}]}
    answers = [client.post(f"/api/tasks/{task}/predict", json=item) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    said = [answer.json()["detail"] for answer in answers]
    assert said[0] == said[1] == "this took more than 0.5 s; ask for less"
    assert said[2] == "this server is busy; try later"
    assert answers[2].headers["retry-after"]
    assert client.get("/api/health").is_success
    going.set()
    time.sleep(0.2)
    assert client.post(f"/api/tasks/{task}/predict", json=item).is_success


def test_a_rename_that_is_refused_is_not_done() -> None:
    """It was done, and what shows it was then refused a worker."""
    bench, going = Workbench(), threading.Event()
    client = calling(workbench=bench, workers=1, waiting=0, seconds=0.2)
    two = [{"label": label, "image": png(84, i)} for i, label in enumerate("ab")]
    task = client.post("/api/tasks", json={"examples": two}).json()["id"]
    show = bench.show

    def slow(task: str) -> Any:
        going.wait(20)
        return show(task)

    bench.show = slow  # type: ignore[method-assign]
    assert client.get(f"/api/tasks/{task}").status_code == 503, "the only worker is kept"
    renamed = client.post(f"/api/tasks/{task}/rename", json={"old": "a", "new": "c"})
    assert renamed.status_code == 503
    assert renamed.json()["detail"] == "this server is busy; try later"
    going.set()
    bench.show = show  # type: ignore[method-assign]
    time.sleep(0.2)
    labels = {e["label"] for e in client.get(f"/api/tasks/{task}").json()["examples"]}
    assert labels == {"a", "b"}


def test_a_thread_that_cannot_begin_keeps_no_place() -> None:
    work = service._Workers(1, 0, 5.0)
    submit, work._pool.submit = work._pool.submit, None  # type: ignore[method-assign,assignment]
    with pytest.raises(TypeError):
        asyncio.run(work(lambda: 1))
    work._pool.submit = submit  # type: ignore[method-assign]
    assert asyncio.run(work(lambda: 1)) == 1


def test_what_waits_to_be_computed_is_dropped_at_the_end() -> None:
    bench = Workbench()
    task = bench.create("drawing")
    with bench._computing:
        first = bench.ask(task, [Item(png(84))], then=str)
        bench.close()
    assert first.cancelled()
    assert bench.predict(task, [Item(png(84))])["classes"] == [], "and it can be started again"


def test_examples_have_so_much_memory() -> None:
    client = calling(workbench=Workbench(Limits(megabytes=1)))
    many = {"examples": [{"label": str(i % 3), "image": png(84, i)} for i in range(100)]}
    task = client.post("/api/tasks", json={}).json()["id"]
    codes, shown = [], 0
    while not codes or codes[-1] == 201:
        answer = client.post(f"/api/tasks/{task}/examples", json=many)
        codes.append(answer.status_code)
    assert codes[-1] == 503
    assert "holds 0 MiB of examples" in answer.json()["detail"] or "task takes" not in answer.text
    shown = len(client.get(f"/api/tasks/{task}").json()["examples"])
    assert shown == 100 * (len(codes) - 1) > 0
    for example in client.get(f"/api/tasks/{task}").json()["examples"]:
        client.delete(f"/api/tasks/{task}/examples/{example['id']}")
    assert client.post(f"/api/tasks/{task}/examples", json=many).status_code == 201


def test_a_request_of_very_many_parts_is_refused() -> None:
    client = calling()
    for body in (b"[" * (1 << 20), b'{"items":[' + b"{}," * 30_000 + b"{}]}"):
        began = time.monotonic()
        answer = client.post(
            "/api/tasks", content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 413
        assert time.monotonic() - began < 1


def test_a_body_that_pauses_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_PATIENCE", 0.05)
    answers = []

    async def pause() -> Any:
        await asyncio.sleep(10)

    async def send(message: Any) -> None:
        answers.append(message)

    async def app(*_: Any) -> None:
        raise AssertionError("it was passed on")

    watch = guard.Guard(app, Rates(10), None)
    scope = {"type": "http", "method": "POST", "path": "/api/tasks", "headers": []}
    asyncio.run(watch(scope, pause, send))
    assert answers[0]["status"] == 408
    assert watch.being_read == 0


def test_bodies_being_read_have_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_BEING_READ", 3 << 20)
    answers = []

    async def ask(watch: guard.Guard) -> None:
        parts = 2

        async def receive() -> Any:
            nonlocal parts
            await asyncio.sleep(0.05)
            parts -= 1
            return {"type": "http.request", "body": bytes(1 << 20), "more_body": parts > 0}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answers.append(message["status"])

        scope = {"type": "http", "method": "POST", "path": "/api/tasks", "headers": []}
        await watch(scope, receive, send)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def all_at_once() -> int:
        watch = guard.Guard(app, Rates(100), None)
        await asyncio.gather(*(ask(watch) for _ in range(3)))
        return watch.being_read

    assert asyncio.run(all_at_once()) == 0
    assert 503 in answers
