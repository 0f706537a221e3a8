"""Labelled examples from folders, tables and JSON lines."""

import zipfile
from pathlib import Path

import pytest
from PIL import Image

from quickstudy.examples import read_examples, read_item


def picture(path: Path, grey: int = 0) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), grey).save(path)
    return path.read_bytes()


def test_class_folders_and_a_zip_of_them(tmp_path: Path) -> None:
    root = tmp_path / "mine"
    data = [picture(root / "cat" / f"{i}.png", i) for i in range(2)]
    data.append(picture(root / "dog" / "0.png", 9))
    (root / "dog" / "notes.txt").write_text("not an image")
    found = list(read_examples(root))
    assert [(e.label, e.item) for e in found] == list(zip(["cat", "cat", "dog"], data, strict=True))
    assert found[2].where == str(root / "dog" / "0.png")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as packed:
        for file in sorted(root.rglob("*.png")):
            packed.write(file, file.relative_to(tmp_path))
    zipped = list(read_examples(tmp_path / "mine.zip"))
    assert [(e.label, e.item) for e in zipped] == [(e.label, e.item) for e in found]


def test_tables(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    table = tmp_path / "t.csv"
    table.write_text('path,label\nimages/a.png,1\n"images/a.png","two, or 2"\n')
    found = list(read_examples(table))
    assert [e.label for e in found] == ["1", "two, or 2"]
    assert found[0].item == (tmp_path / "images" / "a.png").read_bytes()
    lines = tmp_path / "t.jsonl"
    lines.write_text('{"text": "hi, you", "intent": "greet"}\n\n{"text": "bye", "label": 7}\n')
    assert [(e.item, e.label) for e in read_examples(lines)] == [("hi, you", "greet"), ("bye", "7")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,kind\nhi,greet\n", r"a\.csv, line 2 has no label; it has: text, kind"),
        ("a.csv", "label\nx\n", r"line 2 has neither a text nor a path"),
        ("a.csv", "text,label\n", r"a\.csv holds no examples"),
        ("a.jsonl", "{nonsense}\n", r"a\.jsonl, line 1 is not JSON"),
        ("a.jsonl", "[1]\n", r"line 1 is list; expected an object"),
        ("a.jsonl", '{"text": "hi", "label": ""}\n', r"line 1 has no label"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        list(read_examples(tmp_path / name))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label\ngone.png,x\n")
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        list(read_examples(tmp_path / "a.csv"))
    for missing in ("no.csv", "no"):
        with pytest.raises(FileNotFoundError, match=missing):
            list(read_examples(tmp_path / missing))
    with pytest.raises(FileNotFoundError, match=r"no such file: .*new\.png"):
        read_item(tmp_path / "new.png")
