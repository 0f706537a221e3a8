"""It shows what it does, says what went wrong, and works on a phone and without a pointer."""

import re
from collections.abc import Callable
from typing import Any

import pytest

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
VISIBLE = "e => !!e.getClientRects().length && getComputedStyle(e).visibility === 'visible'"
CONTROLS = "button, input:not([type=file]), textarea, a[href], [tabindex='0']"


def hold(page: Any, pattern: str) -> list[Any]:
    """Requests that wait until someone goes on with them."""
    held: list[Any] = []
    page.route(pattern, lambda route: held.append(route))
    return held


def test_work_in_progress_is_shown_and_is_done_once(desk: Any, hand: Any) -> None:
    page = desk.page
    held = hold(page, "**/examples")
    desk.draw("#teach", hand.ring())
    page.fill("#label", "ring")
    desk.sent.clear()
    page.evaluate("() => { const add = document.querySelector('#add'); add.click(); add.click(); }")
    page.press("#label", "Enter")
    page.wait_for_selector("#work progress", state="visible")
    assert page.locator("#work").inner_text() == "Adding…"
    assert page.locator("body").get_attribute("aria-busy") == "true"
    (one,) = held
    one.continue_()
    desk.wait_for_thumbs(1)
    page.wait_for_selector("#work", state="hidden")
    assert [method for method, path in desk.sent if "examples" in path] == ["POST"]


def test_the_first_load_of_a_network_is_shown(desk: Any) -> None:
    page = desk.page
    held = hold(page, "**/api/tasks")
    page.click("[data-kind=text]")
    page.wait_for_selector("#work progress", state="visible")
    assert "Loading the network for sentences" in page.locator("#work").inner_text()
    held[0].fulfill(status=201, json={"id": "x", "kind": "text", "examples": []})
    page.wait_for_selector("#work", state="hidden")


def test_errors_are_in_plain_words_and_go_away(new_desk: Callable[..., Any]) -> None:
    desk = new_desk()
    page = desk.page
    page.clock.install()
    desk.go()
    page.click("#add")
    assert desk.error() == "There is nothing to add yet."
    page.click("#error .close")
    assert not page.locator("#error").is_visible()
    page.click("#add")
    desk.error()
    page.clock.fast_forward(9000)
    assert not page.locator("#error").is_visible()
    page.route("**/api/**", lambda route: route.abort())
    page.click("[data-kind=text]")
    assert desk.error() == "The server does not answer. Is quickstudy serve still running?"
    page.unroute("**/api/**")
    detail = "this needs x, which is not installed: pip install 'quickstudy[photo]'"
    page.route("**/api/tasks", lambda route: route.fulfill(status=501, json={"detail": detail}))
    page.click("[data-kind=photo]")
    page.wait_for_function(
        "() => document.querySelector('#error span').textContent.includes('501')"
        " || document.querySelector('#error span').textContent.includes('pip')"
    )
    assert desk.error() == "T" + detail[1:] + "."
    desk.trouble.clear()


def test_who_asks_too_often_waits_and_is_answered(desk: Any, hand: Any) -> None:
    refused: list[int] = []

    def once(route: Any) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(1)
            route.fulfill(status=429, headers={"Retry-After": "1"}, json={"detail": "too many"})

    desk.page.route("**/examples", once)
    desk.teach("ring", hand.ring())
    assert refused
    desk.trouble.clear()


def test_on_a_phone_the_answers_are_below_the_pad(new_desk: Callable[..., Any]) -> None:
    desk = new_desk(**PHONE).go()
    page = desk.page
    page.tap("#starter")
    assert len(desk.answers()) == 5
    page.locator("#ask canvas").evaluate("e => e.scrollIntoView()")
    pad = page.locator("#ask canvas").bounding_box()
    last = page.locator(".says").last.bounding_box()
    assert pad["y"] >= -1
    assert last["y"] + last["height"] <= 844
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    small = page.locator(CONTROLS).evaluate_all(
        f"""all => all.filter(e => e.tagName !== "A" && ({VISIBLE})(e)).filter(e => {{
          const {{ width, height }} = e.getBoundingClientRect();
          return Math.min(width, height) < 44;
        }}).map(e => e.outerHTML)"""
    )
    assert not small


def test_everything_can_be_done_by_keyboard(desk: Any, hand: Any) -> None:
    page = desk.page
    desk.teach("cross", hand.cross())
    page.on("filechooser", lambda chooser: chooser.set_files(hand.files(2)))
    for where in ("#teach", "#ask"):
        page.focus(f"{where} .row button >> nth=0")
        page.keyboard.press("Enter")
        page.wait_for_selector(f"{where} .tray .thumb >> nth=1")
    page.focus("#label")
    page.keyboard.type("bar")
    page.keyboard.press("Enter")
    desk.wait_for_thumbs(3)
    assert desk.answers()["ProtoNet"] == "bar"

    wanted = page.locator(CONTROLS).evaluate_all(
        f"all => all.filter(e => !e.disabled && ({VISIBLE})(e)).length"
    )
    page.evaluate("() => { document.activeElement.blur(); window.reached = new Set(); }")
    for _ in range(wanted + 2):
        page.keyboard.press("Tab")
        page.evaluate("() => window.reached.add(document.activeElement)")
    reached = page.evaluate("() => [...window.reached].filter(e => e !== document.body).length")
    assert reached == wanted

    page.focus("[data-class=bar] .thumb >> nth=0")
    page.keyboard.press("Enter")
    desk.wait_for_thumbs(2)
    assert page.evaluate("() => document.activeElement.dataset.key") == "thumb bar 0"
    page.focus("[data-learner=MAML]")
    page.keyboard.press("Space")
    assert page.locator("#why h3").inner_text() == "MAML"


def test_what_is_chosen_is_told_and_one_sentence_is_spoken(desk: Any, hand: Any) -> None:
    page = desk.page

    def pressed(group: str) -> list[str]:
        return [e.inner_text() for e in page.locator(f"{group} [aria-pressed=true]").all()]

    assert pressed("#kinds") == ["Drawings"]
    page.click("#starter")
    desk.answers()
    assert len(pressed("#answers")) == 1
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('says')")
    said = page.locator("#said").inner_text()
    assert re.fullmatch(r"ProtoNet says triangle; so do \d of 4\.", said)
    live = page.locator("[aria-live], [role=status], [role=alert], output").evaluate_all(
        "all => all.map(e => e.id)"
    )
    assert sorted(live) == ["error", "said"]


def test_long_names_do_not_break_the_page(desk: Any, hand: Any) -> None:
    desk.teach("m" * 100, hand.ring())
    desk.teach("i " * 50, hand.cross())
    desk.draw("#ask", hand.ring())
    desk.answers()
    for width in (1250, 390):
        desk.page.set_viewport_size({"width": width, "height": 844})
        assert desk.page.evaluate("() => document.documentElement.scrollWidth") <= width
        for inside in ("#answers", "#why", "#classes"):
            assert desk.page.locator(inside).evaluate("e => e.scrollWidth - e.clientWidth") <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(
    new_desk: Callable[..., Any], hand: Any, serious: Callable[[Any], list[str]], scheme: str
) -> None:
    desk = new_desk(color_scheme=scheme).go()
    page = desk.page
    found = serious(page)
    for step in (
        "#starter",
        "[data-learner=MAML]",
        "[data-learner=LSTM]",
        "[data-learner='Matching network']",
        "[data-class=circle] .thumb >> nth=0",
        "#undo",
    ):
        page.click(step)
        desk.answers()
        found += [f"{step}: {one}" for one in serious(page)]
    page.click("#ask .clear")
    desk.draw("#ask", hand.spiral())
    assert "unknown" in desk.answers().values()
    assert not found + serious(page)
