"""What is taken along: pictures from a webcam, a command, a model; and a model that is there."""

import base64
import csv
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MODEL = {
    "name": "letters.qs",
    "kind": "text",
    "classes": ["a", "b"],
    "examples": 9,
    "unknown": True,
    "together": True,
}
ANSWERS = [
    {"label": "a", "unknown": False, "probabilities": [0.9, 0.1]},
    {"label": "b", "unknown": True, "probabilities": [0.4, 0.6]},
]


def test_the_webcam_gives_pictures(desk: Any) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    page = desk.page
    page.click("[data-kind=photo]")
    page.click("#teach button:text('Webcam')")
    page.wait_for_function("() => document.querySelector('#teach video').videoWidth > 0")
    shutter = page.locator("#teach .camera button")
    shutter.click()
    assert page.locator("#teach .tray .thumb").count() == 1
    shutter.hover()
    page.mouse.down()
    page.wait_for_selector("#teach .tray .thumb >> nth=3")
    page.mouse.up()
    shutter.press("Enter")
    many = page.locator("#teach .tray .thumb").count()
    assert many >= 5
    page.wait_for_timeout(400)
    assert page.locator("#teach .tray .thumb").count() == many, "no more when it is let go"
    desk.add("test card")
    desk.wait_for_thumbs(many)
    page.click("#teach button:text('Webcam')")
    assert page.evaluate("() => !document.querySelector('#teach video').srcObject?.active")
    page.evaluate("""() => {
        const media = navigator.mediaDevices, get = media.getUserMedia.bind(media);
        media.getUserMedia = async what => {
            window.given = await get(what);
            document.querySelector("[data-kind=text]").click();
            return window.given;
        };
    }""")
    page.click("#ask button:text('Webcam')")
    page.wait_for_function("() => window.given?.getTracks()[0].readyState === 'ended'")
    page.click("[data-kind=photo]")
    page.evaluate("() => { delete navigator.mediaDevices.getUserMedia; }")
    page.click("#ask button:text('Webcam')")
    page.wait_for_selector(".says")
    desk.sent.clear()
    page.wait_for_timeout(1500)
    assert sum("predict" in path for _, path in desk.sent) >= 2, "it is asked all the time"
    page.click("[data-kind=drawing]")


def test_without_a_camera_there_is_no_button(new_desk: Callable[..., Any]) -> None:
    desk = new_desk()
    desk.page.add_init_script("delete Navigator.prototype.mediaDevices")
    desk.go().page.click("[data-kind=photo]")
    desk.page.wait_for_selector("#teach .drop")
    assert not desk.page.locator("button:text('Webcam')").first.is_visible()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_command_asks_what_the_page_has_asked(new_desk: Callable[..., Any], hand: Any) -> None:
    desk = new_desk(permissions=["clipboard-read", "clipboard-write"]).go()
    page = desk.page
    page.click("#curl")
    assert "Ask something first" in desk.error()
    desk.teach("it's a ring", hand.ring())
    desk.teach("cross", hand.cross())
    with page.expect_response("**/predict") as answer:
        desk.draw("#ask", hand.ring())
    desk.answers()
    page.click("#curl")
    page.wait_for_selector("#notice", state="visible")
    command = page.evaluate("() => navigator.clipboard.readText()")
    assert command.startswith(f"curl -s '{desk.url}/api/tasks/")
    said = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert answer.value.ok
    assert json.loads(said.stdout)["learners"]["ProtoNet"]["answers"][0]["label"] == "it's a ring"


def test_a_model_is_taken_along(desk: Any, hand: Any, start: Any, tmp_path: Path) -> None:
    page = desk.page
    page.click("[data-form=qs]")
    assert desk.error() == "A model needs examples of two classes."
    desk.trouble.clear()
    page.click("#starter")
    desk.answers()
    with page.expect_download() as download:
        page.click("[data-form=qs]")
    download.value.save_as(tmp_path / "mine.qs")
    picture = page.locator("[data-class=zigzag] img").first.get_attribute("src")
    (tmp_path / "one.png").write_bytes(base64.b64decode(picture.partition(",")[2]))
    process = start("quickstudy", "predict", "mine.qs", "one.png", cwd=tmp_path)
    assert process.wait() == 0, process.err
    assert "one.png: zigzag" in process.out


def test_what_cannot_be_exported_is_said(desk: Any) -> None:
    detail = "this needs onnx, which is not installed: pip install 'quickstudy[export]'"
    desk.page.route(
        "**/model?format=onnx", lambda route: route.fulfill(status=501, json={"detail": detail})
    )
    desk.page.click("[data-form=onnx]")
    assert desk.error() == "T" + detail[1:] + "."
    desk.trouble.clear()


def test_a_model_that_is_served_is_tried_with_one_and_with_many(
    new_desk: Callable[..., Any],
) -> None:
    desk, asked, together = new_desk(), [], []

    def answer(route: Any) -> None:
        body = route.request.post_data_json
        items = body["items"]
        together.append(body.get("together", False))
        asked.append(len(items))
        answers = [ANSWERS[i % 2] for i in range(len(items))]
        route.fulfill(json={"classes": ["a", "b"], "answers": answers})

    page = desk.page
    page.route("**/api/models", lambda route: route.fulfill(json={"models": [MODEL]}))
    page.route("**/api/models/letters.qs/predict", answer)
    desk.go()
    page.click("[data-model]")
    assert page.locator("[data-model]").inner_text() == "Your model: letters.qs"
    assert page.locator("[data-model]").get_attribute("aria-pressed") == "true"
    assert "2 classes from 9 examples: a, b." in page.locator("#served-about").inner_text()
    page.fill("#served textarea", "one")
    page.wait_for_selector("#served .verdict")
    assert page.locator("#served .verdict").inner_text() == "a"
    assert page.locator("#served .bars .name").all_inner_texts() == ["a", "b"]
    page.fill("#served textarea", "one\ntwo")
    page.wait_for_selector("#served tbody tr >> nth=1")
    rows = [row.inner_text().split("\t") for row in page.locator("#served tbody tr").all()]
    assert rows == [["one", "a", "90%"], ["two", "unknown", "most like b"]]
    page.fill("#served textarea", "\n".join(map(str, range(70))))
    page.wait_for_selector("#served tbody tr >> nth=69")
    assert asked[-2:] == [64, 6]
    assert not any(together)
    page.get_by_text("Let them help one another").click()
    page.wait_for_selector("#served .toggle[aria-pressed=true]")
    assert together[-2:] == [True, True]
    page.fill("#served textarea", "one")
    page.wait_for_selector("#served .verdict")
    assert not together[-1], "one item has nobody to help it"
    page.click("[data-kind=drawing]")
    assert page.locator("#teach canvas").is_visible()
    assert not page.locator("#served").is_visible()


def test_a_served_table_is_asked_by_a_form_and_by_a_file(
    new_desk: Callable[..., Any], tmp_path: Path
) -> None:
    desk, asked = new_desk(), []
    columns = [
        {"name": "age", "kind": "number", "levels": []},
        {"name": "since", "kind": "date", "levels": []},
        {"name": 'plan, "now"', "kind": "category", "levels": ["free", "paid"]},
    ]

    def answer(route: Any) -> None:
        items = route.request.post_data_json["items"]
        asked.extend(item["row"] for item in items)
        answers = [ANSWERS[i % 2] for i in range(len(items))]
        route.fulfill(json={"classes": ["a", "b"], "answers": answers})

    page = desk.page
    model = {**MODEL, "kind": "table", "encoder": "table", "columns": columns}
    page.route("**/api/models", lambda route: route.fulfill(json={"models": [model]}))
    page.route("**/api/models/letters.qs/predict", answer)
    desk.go()
    page.click("[data-model]")
    page.get_by_label("age").fill("31")
    page.wait_for_selector("#served .verdict")
    page.get_by_label("plan").select_option("paid")
    page.get_by_label("since").fill("2024-01-31")
    page.wait_for_timeout(600)
    assert asked[-1] == {"age": "31", "since": "2024-01-31", 'plan, "now"': "paid"}
    table = tmp_path / "new.csv"
    table.write_text('Age;"plan, ""now""";since;more\r\n7;"a;b";;x\r\n\r\n8;free\r\n')
    page.set_input_files("#served input[type=file]", table)
    page.wait_for_selector("#served tbody tr >> nth=1")
    assert asked[-2:] == [
        {"age": "7", "since": "", 'plan, "now"': "a;b"},
        {"age": "8", "since": "", 'plan, "now"': "free"},
    ]
    assert "2 rows of new.csv" in page.locator("#served-input").inner_text()
    with page.expect_download() as download:
        page.get_by_text("Save answers").click()
    download.value.save_as(tmp_path / "answers.csv")
    with (tmp_path / "answers.csv").open() as file:
        first, second = csv.DictReader(file)
    assert [*first] == ["age", "since", 'plan, "now"', "answer", "a", "b"]
    assert [*first.values()] == ["7", "", "a;b", "a", "0.9000", "0.1000"]
    assert second["answer"] == "unknown"
    table.write_text("age\n7\n")
    page.set_input_files("#served input[type=file]", table)
    assert desk.error() == "new.csv has no column since."
    desk.trouble.clear()


@pytest.mark.parametrize("kind", ["drawing", "photo"])
def test_served_models_of_images(new_desk: Callable[..., Any], hand: Any, kind: str) -> None:
    desk = new_desk()
    page = desk.page
    model = {**MODEL, "kind": kind}
    page.route("**/api/models", lambda route: route.fulfill(json={"models": [model]}))
    page.route(
        "**/api/models/*/predict",
        lambda route: route.fulfill(
            json={
                "classes": ["a", "b"],
                "answers": ANSWERS[1:] * len(route.request.post_data_json["items"]),
            }
        ),
    )
    asked: list[Any] = []
    page.on("request", lambda one: asked.append(one.post_data_json) if one.post_data else None)
    desk.go()
    page.click("[data-model]")
    if kind == "drawing":
        desk.draw("#served", hand.ring())
        page.wait_for_selector("#served .verdict.unknown")
        page.click("#served .clear")
    page.set_input_files("#served input[type=file]", hand.files(3))
    page.wait_for_selector("#served tbody tr >> nth=2")
    assert page.locator("#served tbody img").count() == 3
    sent = [item["image"].partition(",")[2] for item in asked[-1]["items"]]
    assert sent == [base64.b64encode(file["buffer"]).decode() for file in hand.files(3)]
    assert page.locator("#served tbody tr.unknown").count() == 3


def test_many_served_models_leave_a_phone_its_screen(new_desk: Callable[..., Any]) -> None:
    desk = new_desk(viewport={"width": 390, "height": 844})
    many = [{**MODEL, "name": f"letters {n}"} for n in range(30)]
    desk.page.route("**/api/models", lambda route: route.fulfill(json={"models": many}))
    desk.go()
    desk.page.wait_for_selector("[data-model] >> nth=29", state="attached")
    assert desk.page.locator("#bench").bounding_box()["y"] < 844 / 3
    assert desk.page.evaluate("() => document.documentElement.scrollWidth") <= 390
    desk.page.locator("[data-model]").last.click()
    assert desk.page.locator("#served-head").inner_text() == "letters 29"
