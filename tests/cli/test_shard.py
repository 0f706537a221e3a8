"""Many processes that share the examples of one prediction."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quickstudy.batches import Predictor
from quickstudy.cli import main
from quickstudy.files import Files
from quickstudy.model import Model


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Eleven images, one of them broken, and a model of such."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 99 if v % 2 else 255, (9, 9, 3)), "ab"[v % 2]) for v in range(8)]
    Model.learn(pairs, encoder="pixels:4", head="centroid").save("m.qs")
    Path("new/inside").mkdir(parents=True)
    for i in range(10):
        pixels = rng.integers(0, 255, (9, 9, 3), np.uint8)
        Image.fromarray(pixels).save(f"new/{'inside/' if i % 3 else ''}{i}.png")
    Path("new/4.png").write_bytes(b"broken")
    return tmp_path


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["quickstudy", "predict", "m.qs", *words, "--json", "--no-cache"])
        with pytest.raises(SystemExit) as exit_:
            main()
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    assert exit_.value.code in (0, 1), err
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("shares", [1, 3, 16])
@pytest.mark.usefixtures("place")
def test_shares_joined_are_what_one_process_says(
    shares: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = rows(capsys, "new")
    assert len(whole) == 10
    parts = [rows(capsys, "new", "--shard", f"{k + 1}/{shares}") for k in range(shares)]
    joined = sorted((row for part in parts for row in part), key=lambda row: row["where"])
    for row, expected in zip(joined, whole, strict=True):
        assert (row["where"], row["label"]) == (expected["where"], expected["label"])
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-6)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1 + (shares > 1)


def test_files_of_others_are_not_read(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = len(rows(capsys, "new"))
    before = Files.read

    def noting(self: Any, name: str) -> bytes:
        read.append(name)
        return before(self, name)  # type: ignore[no-any-return]

    monkeypatch.setattr("quickstudy.files.Files.read", noting)
    rows(capsys, "new", "--shard", "2/5")
    assert len(read) in (whole // 5, whole // 5 + 1)


@pytest.mark.parametrize("share", ["1/16", "3/16"])
@pytest.mark.usefixtures("place")
def test_a_folder_that_is_not_there_fails_every_share(
    share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv", ["quickstudy", "predict", "m.qs", "mounted/later", "--shard", share]
        )
        with pytest.raises(SystemExit) as exit_:
            main()
    assert exit_.value.code == 2
    assert "no such file: mounted/later" in capsys.readouterr().err


@pytest.mark.parametrize("broken", [1, 3, 4])
@pytest.mark.parametrize("shares", [2, 3, 7])
def test_a_broken_row_is_said_by_one_share(
    broken: int,
    shares: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{v},{v % 2},{'xy'[v % 2]}\n" for v in range(8))
    Path("t.csv").write_text("a,b,label\n" + rows)
    Model.learn("t.csv", head="centroid").save("m.qs")
    lines = [json.dumps({"a": i, "b": 1}) for i in range(4)]
    lines.insert(broken, "no row")
    Path("new.jsonl").write_text("\n".join(lines))
    said, answered = 0, 0
    for k in range(shares):
        argv = ["quickstudy", "predict", "m.qs", "new.jsonl", "--json", "--no-cache"]
        with monkeypatch.context() as patch:
            patch.setattr("sys.argv", [*argv, "--shard", f"{k + 1}/{shares}"])
            with pytest.raises(SystemExit) as exit_:
                main()
        out, err = capsys.readouterr()
        said += f"line {broken + 1} is not JSON" in err
        assert exit_.value.code == (1 if "not JSON" in err else 0)
        answered += len(out.splitlines())
    assert (said, answered) == (1, 4)


@pytest.mark.parametrize("wrong", ["0/4", "5/4", "4", "a/b", "1/0", ""])
def test_a_share_that_is_none_is_refused(place: Path, wrong: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["quickstudy", "predict", "m.qs", "new", "--shard", wrong])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert exit_.value.code == 2


def test_batches_of_an_engine_get_the_same_answers(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {row["where"]: row for row in rows(capsys, "new")}
    files = sorted(Path("new").rglob("*.png"))
    batch = {
        "path": np.array([str(file) for file in files]),
        "bytes": np.array([file.read_bytes() for file in files], dtype=object),
    }
    found = Predictor("m.qs")(batch)
    assert found["path"].tolist() == batch["path"].tolist()
    for path, label, probability, fault in zip(*found.values(), strict=True):
        if path == "new/4.png":
            assert (label, probability) == ("", 0.0)
            assert "new/4.png" in fault
            continue
        assert (label, fault) == (whole[path]["label"], "")
        assert probability == pytest.approx(whole[path]["probability"], abs=1e-6)
