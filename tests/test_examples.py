"""Labelled examples from folders, tables and JSON lines."""

import io
import json
import re
import time
import zipfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image

from quickstudy import plain
from quickstudy.encoders import PixelEncoder
from quickstudy.examples import (
    Example,
    as_example,
    as_examples,
    label_form,
    read_examples,
    read_item,
    read_table,
)
from quickstudy.model import Model
from quickstudy.report import Report


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
        ("a.csv", "label\nx\n", r"line 2 has a label, and nothing to tell it by"),
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
    with pytest.raises(ValueError, match=f"{tmp_path.name} is a folder; expected a file"):
        read_item(tmp_path)


def photo(tmp_path: Path) -> tuple[Path, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png", pixels


def test_an_image_is_the_same_in_every_form(tmp_path: Path) -> None:
    path, pixels = photo(tmp_path)
    forms = {
        "path": path,
        "its name": str(path),
        "bytes": path.read_bytes(),
        "Pillow": Image.open(path),
        "HWC": pixels,
        "HWC real": pixels / 255,
        "CHW": np.moveaxis(pixels, 2, 0),
        "CHW tensor": torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
        "CMYK": Image.merge(
            "CMYK", [*Image.fromarray(255 - pixels).split(), Image.new("L", (7, 9))]
        ),
        "wide integers": pixels.astype(np.int64),
        "an example": Example(path.read_bytes(), "mine", "a.png"),
    }
    encoder = PixelEncoder(8)
    expected = encoder([read_item(path)])
    for name, form in forms.items():
        assert np.array_equal(encoder([as_example(form)]), expected), name
    grey = encoder([as_example(pixels[..., :1])])
    for form in (pixels[..., 0], pixels[None, ..., 0], pixels[..., 0] / np.float32(255)):
        assert np.array_equal(encoder([as_example(form)]), grey)
    turned = Image.open(path)
    turned.getexif()[0x0112] = 6  # lies on its side, as telephones save it
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif(), quality=100, subsampling=0)
    of_file = encoder([read_item(tmp_path / "turned.jpg")])
    assert np.array_equal(encoder([as_example(Image.open(tmp_path / "turned.jpg"))]), of_file)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, "it is of type int; expected a text, the path"),
        (np.zeros((2, 3, 3, 3)), r"an array of shape \[2, 3, 3, 3\]; expected an image"),
        (np.zeros((5, 5, 2)), r"shape \[5, 5, 2\]"),
        (np.zeros((0, 4)), r"shape \[0, 4\]"),
        (np.full((4, 4), 255.0), r"float64, from 255\.0 to 255\.0; expected"),
        (np.full((4, 4), 256), "from 256 to 256"),
        (np.full((4, 4), np.nan), "from nan to nan"),
        (np.full((4, 4), "x"), "an array of <U1; expected"),
    ],
)
def test_what_is_no_example_is_said(item: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_example(item)  # type: ignore[arg-type]


def test_labelled_examples_come_in_pairs(tmp_path: Path) -> None:
    path, pixels = photo(tmp_path)
    found = list(
        as_examples([(path, "a"), (pixels, 7), ("is it .png", "b"), Example("t", "c", "")])
    )
    assert [e.label for e in found] == ["a", "7", "b", "c"]
    assert [e.where for e in found] == [str(path), "example 2", "example 3", ""]
    assert found[2].item == "is it .png"
    for name in ("cat", "dog"):
        picture(tmp_path / "photos" / name / "1.png")
    assert [e.label for e in as_examples(tmp_path / "photos")] == ["cat", "dog"]
    for wrong in (path, (path,), "ab"):
        with pytest.raises(ValueError, match=r"example 2 is of type .*; expected a pair"):
            list(as_examples([(path, "a"), wrong]))
    with pytest.raises(FileNotFoundError):
        list(as_examples([(Path("none.png"), "a")]))


def test_a_model_takes_what_people_hold(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    red, blue = (rng.integers(0, 200, (6, 8, 8, 3), np.uint8) for _ in range(2))
    red[..., 0], blue[..., 2] = 255, 255  # red and blue
    few = [*((x, "red") for x in red[:3]), *((x, "blue") for x in blue[:3])]
    model = Model.learn(few, encoder="pixels:8", head="centroid")
    new = [red[3], Image.fromarray(blue[3]), torch.from_numpy(red[4]), blue[4] / 255]
    assert [answer.label for answer in model.predict(new)] == ["red", "blue"] * 2
    assert model.add([(blue[5], "blue")]) == 1
    tested = [(red[5], "red"), (blue[4], "blue"), (blue[4], "blue")]
    assert (Report.of(model, tested).tested, Report.of(model, tested).accuracy) == (3, 1.0)
    with pytest.raises(TypeError, match="takes a list of examples; for a single one"):
        list(model.predict("a.png"))


TWO = [("a", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        (
            "a.csv",
            "Text;LABEL\nhello, you;greet\nbye;leave\n",
            [("hello, you", "greet"), ("bye", "leave")],
        ),
        ("a.csv", "label\ttext\nx\ta, b\n", [("a, b", "x")]),
        ("a.csv", '"label"|"text"\nx|a\n', [("a", "x")]),
        ("a.tsv", "label\ttext\nx\ta\n", [("a", "x")]),
        ("a.csv", "\ufeffText,Label\r\na,x\r\n", [("a", "x")]),
        ("a.csv", "text,label\na,x\n,\n , \n", [("a", "x")]),
        ("a.csv", "text,label\na,x,,\n", [("a", "x")]),
        ("a.csv", "text,label\n" + "a" * 300_000 + ",x\n", [("a" * 300_000, "x")]),
        (
            "a.json",
            '[{"text": "a", "label": 1}, {"Text": "b", "Label": 2.0}]',
            [("a", "1"), ("b", "2")],
        ),
        ("a.jsonl", '\ufeff{"text": "a", "label": true}\n', [("a", "True")]),
        ("a.jsonl", '{"text": "a", "label": "cafe\\u0301 "}\n', [("a", "caf\u00e9")]),
    ],
)
def test_tables_are_read_as_programs_write_them(
    tmp_path: Path, name: str, content: str, found: list[tuple[str, str]]
) -> None:
    (tmp_path / name).write_text(content, "utf-8", newline="")
    assert [(e.item, e.label) for e in read_examples(tmp_path / name)] == found


BAD_ROWS = [
    (
        "a.csv",
        "text,label\nok,x\nplease, now,x\nfine,y\n",
        r"3 has 3 fields, and the header 2",
    ),
    ("a.csv", "text,id,label\nok,,x\nshort\nfine,,y\n", r"3 has 1 fields, and the header 3"),
    ("a.csv", "text,label\nok,x\nnothing,\nfine,y\n", r"line 3 has no label"),
    ("a.csv", "path,text,label\n,ok,x\nnone.png,,x\n,fine,y\n", r"no such file: .*none\.png"),
    (
        "a.jsonl",
        '{"text": "ok", "label": "x"}\n{"text": "b", "label": ["x", "y"]}\n'
        '{"text": "fine", "label": "y"}\n',
        r"line 2 has the label \['x', 'y'\]; expected one",
    ),
    (
        "a.jsonl",
        '{"text": "ok", "label": "x"}\n{"text": "b", "label": NaN}\n'
        '{"text": "fine", "label": "y"}\n',
        r"line 2 has no label",
    ),
    (
        "a.jsonl",
        '{"text": "ok", "label": "x"}\n{"text": "\\ud83d", "label": "x"}\n'
        '{"text": "fine", "label": "y"}\n',
        r"line 2 has half a character",
    ),
    (
        "a.jsonl",
        '{"text": "ok", "label": "x"}\n{"text": \n{"text": "fine", "label": "y"}\n',
        r"line 2 is not JSON",
    ),
    (
        "a.json",
        '[{"text": "ok", "label": "x"}, 7, {"text": "fine", "label": "y"}]',
        r"entry 2 is int; expected an object",
    ),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_ROWS)
def test_a_bad_row_is_named_and_the_others_are_used(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    failed: list[str] = []
    assert [e.item for e in read_examples(tmp_path / name, failed)] == ["ok", "fine"]
    assert len(failed) == 1
    assert re.search(message, failed[0])
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        list(read_examples(tmp_path / name))


def test_an_empty_text_is_left_out_with_a_warning(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("text,label\nok,x\n,x\nfine,y\n")
    with pytest.warns(UserWarning, match=r"left out: .*line 3 has neither a text nor a path"):
        assert [e.item for e in read_examples(table)] == ["ok", "fine"]
    failed: list[str] = []
    assert len(list(read_examples(table, failed))) == 2
    assert "line 3" in failed[0]


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        picture(tmp_path / "mine" / name)
    (tmp_path / "mine" / "cat" / "3.png").symlink_to(tmp_path / "nowhere.png")
    failed: list[str] = []
    assert len(list(read_examples(tmp_path / "mine", failed))) == 3
    assert "3.png" in failed[0]
    packed = tmp_path / "mine.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as file:
        for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
            file.write(tmp_path / "mine" / name, name)
    data = bytearray(packed.read_bytes())
    at = data.index(b"cat/2.png") + len("cat/2.png") + 40
    data[at] ^= 0xFF
    packed.write_bytes(data)
    failed = []
    assert [e.label for e in read_examples(packed, failed)] == ["cat", "dog"]
    assert len(failed) == 1
    assert "2.png" in failed[0]


def test_a_label_has_one_form() -> None:
    forms = [1, 1.0, "1", " 1 ", np.int64(1), np.float32(1)]
    assert {label_form(value, "it") for value in forms} == {"1"}
    assert label_form("cafe\u0301", "it") == label_form("caf\u00e9", "it")
    assert label_form(0.5, "it") == "0.5"
    assert label_form(-0.0, "it") == "0"
    assert label_form(Decimal("0.50"), "it") == "0.50"
    assert label_form(date(2026, 1, 31), "it") == "2026-01-31"
    for nothing in (None, "", "  ", float("nan"), np.nan):
        with pytest.raises(ValueError, match="it has no label"):
            label_form(nothing, "it")
    for several in (["a"], {"a": 1}, ("a", "b")):
        with pytest.raises(ValueError, match="several labels of one example are not supported"):
            label_form(several, "it")


def test_one_item_under_two_labels_is_reported() -> None:
    few = [("my card", "bank"), ("my card", "weather"), ("rain", "weather")]
    with pytest.warns(UserWarning, match="two labels, weather and bank"):
        Model.learn(few, encoder=Letters(), head="centroid")


def test_what_arrives_is_answered_before_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model.learn([("aaa", "a"), ("eee", "e")], encoder=Letters(), head="centroid")
    taken = []

    def typed() -> Any:
        for text in ("a", "e", "aa"):
            taken.append(text)
            yield text

    answers = model.predict(typed(), at_once=1)
    assert next(answers).label == "a"
    assert taken == ["a"]


class Letters:
    name, fingerprint = "letters", "1"
    kind: Literal["image", "text"] = "text"

    def __call__(self, examples: Any) -> Any:
        return np.array([[e.item.count(c) for c in "aeiou"] for e in examples], np.float32)


def test_a_table_is_answered_row_by_row_with_or_without_labels(tmp_path: Path) -> None:
    contents = {
        "a.csv": "Text\n1 2\n3 4\n",
        "b.csv": "label,text\nx,1 2\ny,3 4\n",
        "c.jsonl": '{"text": "1 2"}\n{"text": "3 4", "label": "y"}\n',
        "d.tsv": "id\ttext\n7\t1 2\n8\t3 4\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        assert [e.item for e in read_table(tmp_path / name)] == ["1 2", "3 4"], name
    failed: list[str] = []
    (tmp_path / "e.csv").write_text("id,text\n7,1 2\n8,\n")
    assert [e.item for e in read_table(tmp_path / "e.csv", failed)] == ["1 2"]
    assert "e.csv, line 3 has neither a text nor a path" in failed[0]


@pytest.mark.parametrize("name", ["notes.txt", "book.xlsx", "data.parquet"])
def test_what_is_neither_a_table_nor_a_zip_is_refused_in_these_words(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("hello")
    with pytest.raises(ValueError, match=rf"{name} is no folder, no zip and none of \.csv, \.tsv"):
        list(read_examples(tmp_path / name))


def test_a_quote_that_is_not_closed_takes_no_other_row_with_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        'label,text\nx,one\ny,"open\nx,two\ny,"closed\nover lines"\nx,three\ny,"open again\n'
    )
    failed: list[str] = []
    found = [(e.label, e.item) for e in read_examples(tmp_path / "t.csv", failed)]
    assert found == [
        ("x", "one"),
        ("x", "two"),
        ("y", "closed\nover lines"),
        ("x", "three"),
        ("y", "open again\n"),
    ]
    assert failed == [f"{tmp_path}/t.csv, line 3 has a quote that is not closed"]


def test_many_open_quotes_are_read_in_time(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("label,text\n" + 'x,"open\n' * 3000 + "y,whole\n")
    failed: list[str] = []
    assert [e.item for e in read_examples(tmp_path / "t.csv", failed)][-1] == "whole"
    assert len(failed) > 1000


def test_a_row_that_is_not_in_utf8_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"label,text\nx,caf\xe9\ny,tea\n")
    failed: list[str] = []
    assert [e.item for e in read_examples(tmp_path / "t.csv", failed)] == ["tea"]
    assert failed == [f"{tmp_path}/t.csv, line 2 is not in UTF-8; save the table as UTF-8"]


def test_heads_as_spreadsheets_write_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nText;Label;;\none;x\ntwo;y;;\n")
    assert [(e.item, e.label) for e in read_examples(tmp_path / "t.csv")] == [
        ("one", "x"),
        ("two", "y"),
    ]
    (tmp_path / "u.csv").write_text("label;text;text\nx;one;a note\n")
    with pytest.raises(ValueError, match=r"u\.csv has 2 columns called text"):
        list(read_examples(tmp_path / "u.csv"))


def test_images_that_a_table_has_elsewhere_are_said(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        Image.new("L", (8, 8), 9).save(tmp_path / name / "1.png")
    (tmp_path / "in" / "t.csv").write_text("label,path\nx,1.png\ny,../out/1.png\nz,no.png\n")
    failed: list[str] = []
    with pytest.warns(UserWarning, match=r"1 images lie outside its folder, such as .*out/1\.png"):
        assert len(list(read_examples(tmp_path / "in" / "t.csv", failed))) == 2
    assert len(failed) == 1
    assert re.search(r"t\.csv, line 4: no such file: .*no\.png", failed[0])


def test_pairs_that_are_none_are_left_out() -> None:
    given: list[Any] = [
        ("one", "x"),
        ("two",),
        3,
        ("tea\ud800", "x"),
        ("two", "y"),
        ("no.png", "x"),
    ]
    given += [(np.full((4, 4), 300.0), "x"), (np.eye(4, dtype=int), "z"), (torch.ones(4, 4), b"z")]
    failed: list[str] = []
    found = list(as_examples(given, failed))
    assert [e.label for e in found] == ["x", "y", "z", "z"]
    assert len(failed) == 5
    assert Image.open(io.BytesIO(found[2].item)).getextrema() == (0, 255), "a mask of 0 and 1"  # type: ignore[arg-type]
    assert "no such file: no.png" in failed[3]
    one = [Example("a", label, "") for label in ("\u00e9", "e\u0301", " \u00e9 ")]
    assert {e.label for e in as_examples(one)} == {"\u00e9"}
    with pytest.raises(ValueError, match="pixels that are floats"):
        as_example(Image.new("F", (4, 4), 0.5))


def test_an_image_of_whole_numbers_is_the_file_it_came_from(tmp_path: Path) -> None:
    pixels = (np.arange(64).reshape(8, 8) * 900).astype(np.int32)
    Image.fromarray(pixels).save(tmp_path / "deep.tif")
    encoder = PixelEncoder(8, 1)
    opened = Image.open(tmp_path / "deep.tif")
    assert opened.mode == "I"
    of_file, of_image = (encoder([as_example(x)]) for x in (str(tmp_path / "deep.tif"), opened))
    np.testing.assert_array_equal(of_image, of_file)
    assert np.ptp(of_file) > 0.5


def test_a_table_of_very_many_columns_is_read_in_time(tmp_path: Path) -> None:
    """Each name was looked for among all: 100,000 columns took minutes."""
    head = ",".join(f"c{i}" for i in range(30_000))
    (tmp_path / "t.csv").write_text(f"{head},label\n")
    began = time.monotonic()
    with pytest.raises(ValueError, match="holds no examples"):
        list(read_examples(tmp_path / "t.csv"))
    assert time.monotonic() - began < 2


def test_a_long_header_is_not_kept_with_each_row(tmp_path: Path) -> None:
    """Neither in the rows nor in what is wrong with them: a megabyte became gigabytes."""
    names = ",".join(f"{i:0900}" for i in range(200))
    (tmp_path / "t.csv").write_text(f"label,x,{names}\n" + f"a,1{',' * 200}\n,1{',' * 200}\n" * 50)
    failed: list[str] = []
    rows = [e.item for e in read_examples(tmp_path / "t.csv", failed)]
    one, other = ({*map(id, row)} for row in rows[:2] if isinstance(row, dict))
    assert one == other
    (tmp_path / "t.csv").write_text(f"label,text,{names}\n" + f"a,{',' * 200}\n" * 50)
    with pytest.raises(ValueError, match=r"neither a text nor a path; it has: label, text, 0"):
        list(read_examples(tmp_path / "t.csv", failed))
    assert len(failed) == 100
    assert max(map(len, failed)) < 1000
    (tmp_path / "t.csv").write_text(f"label,{'x' * 1001}\na,1\n")
    with pytest.raises(ValueError, match=r"t\.csv has a column whose name has 1,001 characters"):
        list(read_examples(tmp_path / "t.csv"))


def test_a_label_without_end_is_refused_in_time(tmp_path: Path) -> None:
    """To compose 200,000 accents took minutes."""
    accents = "a" + "\u0300\u0316" * 20_000
    (tmp_path / "t.jsonl").write_text(
        json.dumps({"label": accents, "text": "x"}) + '\n{"label": "b", "text": "y"}\n'
    )
    failed: list[str] = []
    began = time.monotonic()
    assert [e.label for e in read_examples(tmp_path / "t.jsonl", failed)] == ["b"]
    assert failed == [
        f"{tmp_path}/t.jsonl, line 1 has a label of 40,001 characters; expected at most 1,000"
    ]
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_line_without_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file may be said to be of terabytes and take no room at all."""
    monkeypatch.setattr(plain, "LONGEST_LINE", 1000)
    path = tmp_path / name
    lines = ["label,text", "a,b"] if name == "t.csv" else ['{"label": "a", "text": "b"}']
    path.write_text("\n".join(lines) + "\n")
    assert [e.item for e in read_examples(path)] == ["b"]
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(ValueError, match="has a line of more than 1,000 characters"):
        list(read_examples(path, []))
    path.rename(tmp_path / "t.json")
    with pytest.raises(ValueError, match="larger than 256 MiB"):
        list(read_examples(tmp_path / "t.json", []))
