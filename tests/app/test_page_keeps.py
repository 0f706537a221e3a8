"""Nothing is lost: what is chosen is added, what is there stays, what is taken away comes back."""

import base64
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

DROP = """([target, names]) => {
  const list = new DataTransfer();
  const canvas = document.createElement("canvas");
  for (const name of names) {
    const bytes = Uint8Array.from(atob(canvas.toDataURL().split(",")[1]), c => c.charCodeAt(0));
    list.items.add(new File([bytes], name, { type: "image/png" }));
  }
  document.querySelector(target).dispatchEvent(
    new DragEvent("drop", { dataTransfer: list, bubbles: true, cancelable: true }));
}"""


def test_all_photos_that_are_chosen_are_added(desk: Any, hand: Any) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    page = desk.page
    page.click("[data-kind=photo]")
    bad = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no picture"}
    page.set_input_files("#teach input[type=file]", [*hand.files(3, "JPEG"), bad])
    page.wait_for_function("() => document.querySelectorAll('#teach .tray .thumb').length === 3")
    assert desk.error() == "1 file that this browser cannot read as a picture: notes.txt"
    page.evaluate(DROP, ["#teach .drop", ["4.png", "5.png"]])
    page.wait_for_function("() => document.querySelectorAll('#teach .tray .thumb').length === 5")
    desk.add("bars")
    desk.wait_for_thumbs(5)
    assert page.locator("#teach .tray .thumb").count() == 0
    page.evaluate(DROP, ["[data-class=bars]", ["6.png"]])
    desk.wait_for_thumbs(6)
    assert desk.classes() == {"bars": 6}


def test_many_at_once_go_in_requests_that_the_server_takes(desk: Any, hand: Any) -> None:
    desk.page.set_input_files("#teach input[type=file]", hand.files(120))
    desk.page.wait_for_selector("#teach .tray .thumb >> nth=119")
    desk.sent.clear()
    desk.add("bars")
    desk.wait_for_thumbs(120)
    adding = [path for method, path in desk.sent if method == "POST" and "examples" in path]
    assert len(adding) == 2
    sizes = desk.page.evaluate(
        """async () => {
          const { portions } = await import("/static/api.js");
          const large = Array(30).fill({ label: "a", image: "x".repeat(900000) });
          const commas = Array(60).fill({ label: "b", text: ",".repeat(3000) });
          return portions([...large, ...commas]).map(examples => {
            const json = JSON.stringify({ examples });
            return [examples.length, json.length, json.match(/[,[{]/g).length];
          });
        }"""
    )
    assert sum(n for n, _, _ in sizes) == 90
    assert all(n <= 100 and size <= 8 << 20 and parts <= 20_000 for n, size, parts in sizes)


def test_the_task_survives_a_reload_and_a_server_that_forgets(desk: Any, hand: Any) -> None:
    desk.three()
    made = next(path for method, path in desk.sent if method == "POST" and "examples" in path)
    desk.page.reload()
    desk.wait_for_thumbs(3)
    desk.draw("#ask", hand.cross())
    assert desk.answers()["ProtoNet"] == "cross"
    asked = [path for method, path in desk.sent if "predict" in path][-1]
    assert asked.split("/")[1] != made.split("/")[1], "a page that is loaded again has its own"
    task = f"{desk.url}/api/tasks/{asked.split('/')[1]}"
    urllib.request.urlopen(urllib.request.Request(task, method="DELETE"))
    desk.page.click("#ask .clear")
    desk.draw("#ask", hand.ring())
    assert desk.answers()["ProtoNet"] == "ring"
    assert desk.trouble.pop(0).startswith("Failed to load"), "what the browser says of a 404"
    desk.page.click("[data-kind=text]")
    desk.page.click("[data-kind=drawing]")
    desk.wait_for_thumbs(3)


def test_two_pages_of_one_browser_do_not_overwrite_each_other(desk: Any, hand: Any) -> None:
    other = type(desk)(desk.context, desk.url).go()
    desk.page.bring_to_front()
    desk.teach("ring", hand.ring())
    other.page.bring_to_front()
    other.wait_for_thumbs(1)
    other.teach("cross", hand.cross())
    desk.page.bring_to_front()
    desk.wait_for_thumbs(2)
    assert desk.classes() == {"ring": 1, "cross": 1}


def test_no_room_in_the_browser_is_said(desk: Any, hand: Any) -> None:
    desk.teach("ring", hand.ring())
    assert not desk.page.locator("#unkept").is_visible()
    desk.page.evaluate(
        """() => {
          let size = 1 << 22;
          for (let i = 0; size > 16; i++) {
            try { localStorage.setItem("filler" + i, "x".repeat(size)); } catch { size >>= 1; }
          }
        }"""
    )
    desk.teach("cross", hand.cross())
    assert "save it to a file" in desk.page.locator("#unkept").inner_text()
    desk.page.evaluate(
        "() => Object.keys(localStorage).filter(k => k.startsWith('filler'))"
        ".forEach(k => localStorage.removeItem(k))"
    )
    desk.teach("zigzag", hand.zigzag)
    assert not desk.page.locator("#unkept").is_visible()


def test_every_removal_can_be_undone(desk: Any, hand: Any) -> None:
    page = desk.three().page
    before = [thumb.get_attribute("src") for thumb in page.locator("#classes img").all()]
    page.locator("[data-class=cross] .thumb").click()
    desk.wait_for_thumbs(2)
    page.click("#notice .act")
    desk.wait_for_thumbs(3)
    assert [one.get_attribute("src") for one in page.locator("#classes img").all()] == before

    page.click("[aria-label='Take away the class ring']")
    desk.wait_for_thumbs(2)
    page.click("#reset")
    desk.wait_for_thumbs(0)
    desk.teach("ring", hand.ring(0.5, 0.5, 0.2))
    page.click("#undo")
    desk.wait_for_thumbs(3)
    assert desk.classes() == {"cross": 1, "zigzag": 1, "ring": 1}, "what was added since stays"
    page.click("#undo")
    desk.wait_for_thumbs(4)
    assert page.locator("#undo").is_disabled()
    desk.draw("#ask", hand.zigzag)
    assert desk.answers()["ProtoNet"] == "zigzag", "the server has the same"


def test_a_class_becomes_another_only_if_that_is_meant(desk: Any) -> None:
    page = desk.three().page

    def rename(answer: str) -> None:
        page.fill("[data-class=cross] .name", " ring ")
        page.press("[data-class=cross] .name", "Enter")
        assert "“ring” already" in page.locator("#question-text").inner_text()
        page.click(f"#question button:text('{answer}')")

    rename("Cancel")
    page.wait_for_function(
        "() => document.querySelector('[data-class=cross] .name').value == 'cross'"
    )
    assert len(desk.classes()) == 3
    rename("Make them one")
    page.wait_for_function("() => !document.querySelector('[data-class=cross]')")
    assert desk.classes() == {"ring": 2, "zigzag": 1}
    page.click("#undo")
    page.wait_for_selector("[data-class=cross]")
    assert desk.classes() == {"ring": 1, "cross": 1, "zigzag": 1}


def test_what_the_server_refuses_stays_where_it_was(desk: Any, hand: Any) -> None:
    desk.page.route(
        "**/examples",
        lambda route: route.fulfill(
            status=503, content_type="application/json", body='{"detail": "this server is busy"}'
        ),
    )
    desk.draw("#teach", hand.ring())
    desk.page.set_input_files("#teach input[type=file]", hand.files(2))
    desk.page.wait_for_selector("#teach .tray .thumb >> nth=1")
    desk.add("ring")
    assert desk.error() == "This server is busy."
    desk.page.unroute("**/examples")
    desk.page.click("#add")
    desk.wait_for_thumbs(3)
    desk.trouble.clear()


def test_only_a_saved_task_is_opened(desk: Any, tmp_path: Path) -> None:
    desk.three()
    remote = '{"kind": "drawing", "examples": [{"label": "a", "image": "https://x/?base64,AAAA"}]}'
    wrong = ["not json", "[]", '{"kind": "drawing", "examples": [{}]}', remote]
    inherited = [
        json.dumps({"kind": kind, "examples": []}) for kind in ("constructor", "__proto__")
    ]
    for i, content in enumerate([*wrong, *inherited]):
        file = tmp_path / f"{i}.json"
        file.write_text(content)
        desk.page.set_input_files("#file", file)
        desk.page.wait_for_function(
            "name => document.querySelector('#error span').textContent.startsWith(name)",
            arg=file.name,
        )
    assert desk.thumbs() == 3
    desk.page.evaluate("() => localStorage.setItem('quickstudy.kind', '\"valueOf\"')")
    desk.page.reload()
    desk.wait_for_thumbs(3)


def test_labels_of_a_file_are_as_the_server_keeps_them(
    desk: Any, hand: Any, tmp_path: Path
) -> None:
    image = f"data:image/png;base64,{base64.b64encode(hand.files(1)[0]['buffer']).decode()}"
    labels = [" circle\x85", "cafe\u0301"]
    examples = [{"label": label, "image": image} for label in labels]
    (tmp_path / "t.json").write_text(json.dumps({"kind": "drawing", "examples": examples}))
    desk.page.set_input_files("#file", tmp_path / "t.json")
    desk.wait_for_thumbs(2)
    assert desk.classes() == {"circle": 1, "café": 1}
    desk.draw("#ask", hand.ring())
    assert set(desk.answers().values()) <= {"circle", "café"}


def test_a_page_that_is_left_leaves_nothing_on_the_server(desk: Any) -> None:
    def held() -> int:
        return int(json.load(urllib.request.urlopen(f"{desk.url}/api/health"))["tasks"])

    desk.page.wait_for_function("() => !document.querySelector('[aria-busy=true]')")
    before = held()
    for _ in range(3):
        desk.page.reload()
        desk.page.wait_for_load_state("networkidle")
    until = time.monotonic() + 10
    while held() > before and time.monotonic() < until:  # the page says so as it goes
        time.sleep(0.1)
    assert held() <= before
