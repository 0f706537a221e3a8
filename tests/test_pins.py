"""Packages are pinned, and so are their files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]


def plain(pin: str) -> str:
    """As an index spells it."""
    return re.sub("[-_.]+", "-", pin.partition("==")[0]).lower() + "==" + pin.partition("==")[2]


def test_the_files_of_every_pin_but_torch_are_known() -> None:
    hashed = [line.split() for line in lines("requirements-hashes.txt")]
    pins = {plain(pin) for pin in lines("requirements.txt")}
    assert {plain(pin) for pin, *_ in hashed} == {
        pin for pin in pins if not pin.startswith("torch==")
    }
    for pin, *hashes in [*hashed, *(line.split() for line in lines("requirements-minimum.txt"))]:
        assert hashes, pin
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), pin
    recipe = (ROOT / "Makefile").read_text()
    assert "ls .venv/part-* | sed 's/^/--require-hashes -r /'" in recipe
    assert "--require-hashes -r requirements-minimum.txt" in recipe
