"""The page in a real browser, and a hand to use it with."""

import io
import math
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

Strokes = list[list[tuple[float, float]]]


def ring(x: float = 0.5, y: float = 0.5, r: float = 0.3) -> Strokes:
    turn = [2 * math.pi * i / 16 for i in range(17)]
    return [[(x + r * math.cos(t), y + r * math.sin(t)) for t in turn]]


def cross(a: float = 0.25, b: float = 0.75) -> Strokes:
    return [[(a, a), (b, b)], [(a, b), (b, a)]]


def spiral(n: int = 31) -> Strokes:
    turns = [(18 * i / n, 0.03 + 0.32 * i / n) for i in range(n)]
    return [[(0.5 + r * math.cos(t), 0.5 + r * math.sin(t)) for t, r in turns]]


ZIGZAG: Strokes = [[(0.2, 0.3), (0.8, 0.3), (0.2, 0.75), (0.8, 0.75)]]


def picture(seed: int = 0, form: str = "PNG", side: int = 64) -> bytes:
    """An image file: a bar on white, of another place and length for each seed."""
    rng = np.random.default_rng(seed)
    pixels = np.full((side, side, 3), 255, np.uint8)
    top, left = rng.integers(4, side // 2, 2)
    pixels[top : top + side // 8, left : left + side // 3] = 0
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def files(n: int, form: str = "PNG") -> list[dict[str, Any]]:
    """As Playwright puts them into an input."""
    return [
        {"name": f"{i}.{form.lower()}", "mimeType": f"image/{form.lower()}", "buffer": data}
        for i, data in enumerate(picture(seed, form) for seed in range(n))
    ]


class Desk:
    """A page, and what someone does with it.

    Attributes:
        page: Playwright's.
        sent: each request to the API that the page made, as its method and path.
        trouble: errors of scripts, and what the console complains of.
    """

    def __init__(self, context: Any, url: str) -> None:
        self.url, self.context = url, context
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.trouble: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", self._asked)
        self.under_way = 0
        self.page.on("requestfinished", self._answered)
        self.page.on("requestfailed", self._answered)

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.trouble.append(message.text)

    def _asked(self, request: Any) -> None:
        _, api, path = request.url.partition("/api/")
        if api:
            self.sent.append((request.method, path))
        self.under_way += 1

    def _answered(self, _: Any) -> None:
        self.under_way -= 1

    def go(self) -> "Desk":
        self.page.goto(self.url)
        self.page.wait_for_selector("#teach .input")
        return self

    def draw(self, where: str, strokes: Strokes, *, up: bool = True) -> None:
        self.page.locator(f"{where} canvas").scroll_into_view_if_needed()
        box = self.page.locator(f"{where} canvas").bounding_box()
        for stroke in strokes:
            points = [
                (box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke
            ]
            self.page.mouse.move(*points[0])
            self.page.mouse.down()
            for point in points[1:]:
                self.page.mouse.move(*point)
            if up:
                self.page.mouse.up()

    def add(self, name: str) -> None:
        self.page.fill("#label", name)
        self.page.click("#add")

    def teach(self, name: str, strokes: Strokes) -> None:
        before = self.thumbs()
        self.draw("#teach", strokes)
        self.add(name)
        self.wait_for_thumbs(before + 1)

    def three(self) -> "Desk":
        """A ring, a cross and a zigzag."""
        self.teach("ring", ring())
        self.teach("cross", cross())
        self.teach("zigzag", ZIGZAG)
        return self

    def thumbs(self) -> int:
        return int(self.page.locator("#classes .thumb").count())

    def wait_for_thumbs(self, n: int) -> None:
        self.page.wait_for_function(
            "n => document.querySelectorAll('#classes .thumb').length === n"
            " && document.body.getAttribute('aria-busy') !== 'true'",
            arg=n,
        )

    def classes(self) -> dict[str, int]:
        """How many examples each class on the page has."""
        return {
            row.get_attribute("data-class"): row.locator(".thumb").count()
            for row in self.page.locator(".class").all()
        }

    def answers(self) -> dict[str, str]:
        """What each learner says, once nothing changes any more."""
        self.page.wait_for_selector(".says .answer")
        quiet = 0
        while quiet < 2:
            self.page.wait_for_timeout(120)
            quiet = 0 if self.under_way else quiet + 1
        return {
            row.get_attribute("data-learner"): row.locator(".answer").inner_text()
            for row in self.page.locator(".says").all()
        }

    def error(self) -> str:
        self.page.wait_for_selector("#error", state="visible")
        return str(self.page.locator("#error span").inner_text())


@pytest.fixture(scope="session")
def url(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    process = start("quickstudy", "serve", "--port", str(port), "--rate", "1000", cwd=folder)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/api/health", timeout=1)
            break
        except OSError:
            assert process.poll() is None, process.err
            time.sleep(0.1)
    yield url
    process.send_signal(signal.SIGTERM)
    assert process.wait() in (0, -signal.SIGTERM)


@pytest.fixture
def new_desk(url: str, browser: Any) -> Iterator[Callable[..., Desk]]:
    """``new_desk(**settings)`` of a browser's context, at a page that is not yet loaded."""
    desks: list[Desk] = []

    def new(**settings: Any) -> Desk:
        context = browser.new_context(**{"viewport": {"width": 1250, "height": 950}, **settings})
        desks.append(Desk(context, url))
        return desks[-1]

    yield new
    for desk in desks:
        desk.context.close()
        assert not desk.trouble


@pytest.fixture
def desk(new_desk: Callable[..., Desk]) -> Desk:
    """A page in a window of a laptop."""
    return new_desk().go()


@pytest.fixture(scope="session")
def hand() -> SimpleNamespace:
    """What can be drawn, and files of pictures."""
    return SimpleNamespace(
        ring=ring, cross=cross, spiral=spiral, zigzag=ZIGZAG, picture=picture, files=files
    )
