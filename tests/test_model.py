"""From examples to answers: the model, the commands and the report, on drawings made here."""

import io
import json
import re
import shutil
import sys
import weakref
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from quickstudy.checkpoint import load_state, save_state
from quickstudy.cli import main
from quickstudy.data import alphabets
from quickstudy.estimator import FewShotClassifier
from quickstudy.examples import Example, read_examples
from quickstudy.experiments.run import Machine, run_experiment
from quickstudy.experiments.spec import Experiment
from quickstudy.export import Deployed
from quickstudy.heads import usual_temperature
from quickstudy.model import Model
from quickstudy.report import Report


class Points:
    """Texts such as "1 2" as they are."""

    name = "points"
    kind: Literal["image", "text"] = "text"
    fingerprint = "points 1"

    def __call__(self, examples: Any) -> Any:
        return np.array([[float(v) for v in e.item.split()] for e in examples], np.float32)


def cloud(label: str, at: float, n: int, seed: int = 0) -> list[Example]:
    drawn = np.random.default_rng(seed).normal([at, 5 - at], 1, (n, 2))
    return [Example(f"{x} {y}", label, f"{label} {i}") for i, (x, y) in enumerate(drawn)]


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark drawings on light paper: ``learn`` and ``test``, four classes, and a broken file."""
    root = tmp_path_factory.mktemp("drawings")
    drawn = alphabets(4, 9, size=56, first_class=70)
    for c in range(4):
        for e in range(9):
            folder = root / ("learn" if e < 4 else "test") / f"symbol {c}"
            folder.mkdir(parents=True, exist_ok=True)
            pixels = drawn.read(torch.tensor([c]), torch.tensor([e]))[0, 0].numpy()
            Image.fromarray(255 - pixels).save(folder / f"{e}.png")
    (root / "learn" / "symbol 1" / "broken.png").write_bytes(b"not an image")
    return root


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    import sys

    before = sys.argv
    sys.argv = ["quickstudy", *map(str, words)]
    try:
        main()
    except SystemExit as stop:
        out, err = capsys.readouterr()
        return int(stop.code or 0), out, err
    finally:
        sys.argv = before
    raise AssertionError("main returned")


def test_unknown_is_said_as_seldom_of_known_classes_as_was_promised() -> None:
    few = cloud("a", 0, 30) + cloud("b", 5, 30)
    model = Model.learn(few, encoder=Points(), head="ridge", false_reject=0.1)
    own = model.classifier
    assert own.held_out_ == 60
    assert own.threshold_ is not None
    more = cloud("a", 0, 500, seed=1) + cloud("b", 5, 500, seed=2)
    answers = list(model.predict(more))
    assert np.mean([a.label is None for a in answers]) < 0.16
    between = list(model.predict(cloud("?", 2.5, 300, seed=3)))
    assert np.mean([a.label is None for a in between]) > 0.3
    for answer in answers[:5]:
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        assert answer.probability == max(answer.probabilities.values())
    sure = Model.learn(few, encoder=Points(), head="ridge")
    assert all(a.label is not None for a in sure.predict(more))


def test_calibration_holds_every_example_out_once_and_changes_no_answer() -> None:
    few = cloud("a", 0, 12) + cloud("b", 2, 5) + cloud("c", 5, 1)
    x, y = Points()(few), [e.label for e in few]
    plain = FewShotClassifier("centroid").fit(x, y)
    own = FewShotClassifier("centroid").fit(x, y).calibrate()
    assert own.held_out_ == 17  # the only example of c cannot be
    assert own.temperature_ != plain.temperature_ == usual_temperature("centroid", [12, 5, 1])
    assert np.array_equal(own.predict(x), plain.predict(x))
    assert np.allclose(own.phi_["prototypes"], plain.phi_["prototypes"])
    again = FewShotClassifier("centroid").fit(x, y).calibrate()
    assert again.temperature_ == own.temperature_
    one_each = FewShotClassifier("centroid").fit(x[[0, 12, 17]], ["a", "b", "c"]).calibrate(0.1)
    assert (one_each.held_out_, one_each.threshold_) == (0, None)
    assert one_each.temperature_ == usual_temperature("centroid", [1, 1, 1])
    assert own.partial_fit(x, y).temperature_ == usual_temperature("centroid", [24, 10, 2])
    with pytest.raises(ValueError, match=r"false_reject is 1\.5"):
        own.calibrate(1.5)
    with pytest.raises(ValueError, match="folds is 1"):
        own.calibrate(folds=1)


def test_a_class_can_be_added_and_all_is_saved(tmp_path: Path) -> None:
    model = Model.learn(cloud("a", 0, 5) + cloud("b", 5, 5), encoder=Points(), false_reject=0.2)
    assert model.add(cloud("c", -9, 4)) == 4
    assert model.counts == {"a": 5, "b": 5, "c": 4}
    model.save(tmp_path / "m.qs")
    again = Model.load(tmp_path / "m.qs", encoder=Points())
    new = cloud("c", -9, 20, seed=5)
    assert list(again.predict(new)) == list(model.predict(new))
    assert sum(a.label == "c" for a in again.predict(new)) > 12
    assert again.about() == model.about()
    changed = Points()
    changed.fingerprint = "points 2"
    with pytest.raises(ValueError, match=r"m\.qs was learned with another points"):
        Model.load(tmp_path / "m.qs", encoder=changed)


def test_files_that_are_no_models_are_refused(tmp_path: Path) -> None:
    FewShotClassifier().fit([[0.0], [1.0]], [0, 1]).save(tmp_path / "classifier.qs")
    with pytest.raises(ValueError, match="a classifier without an encoder"):
        Model.load(tmp_path / "classifier.qs")
    save_state(tmp_path / "other.qs", {"estimator": "FewShotRegressor"})
    with pytest.raises(ValueError, match="does not hold a FewShotClassifier"):
        Model.load(tmp_path / "other.qs")
    (tmp_path / "pickle.qs").write_bytes(b"\x80\x04cos\nsystem\n(S'echo no'\ntR.")
    with pytest.raises(ValueError, match="is not a safetensors file that can be read"):
        Model.load(tmp_path / "pickle.qs")


def test_what_cannot_be_learned_from_says_why() -> None:
    with pytest.raises(ValueError, match="there are no examples"):
        Model.learn([], encoder=Points())
    with pytest.raises(ValueError, match="a 0 has no label"):
        Model.learn([Example("0 0", None, "a 0")], encoder=Points())
    with pytest.raises(ValueError, match="only 1 class, 'a'"):
        Model.learn(cloud("a", 0, 3), encoder=Points())


def test_from_a_folder_of_drawings_to_answers(
    drawings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    model = tmp_path / "model.qs"
    code, out, err = run(capsys, "learn", drawings / "learn", "-o", model)
    assert (code, out) == (0, "")
    assert "left out: cannot read the image" in err
    assert "broken.png" in err
    assert "drawing features, protonet-drawings" in err

    code, out, _ = run(capsys, "predict", model, drawings / "test", "--json")
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(answers) == 20
    right = [a["label"] == Path(a["where"]).parent.name for a in answers]
    assert np.mean(right) >= 0.8
    one = drawings / "test" / "symbol 2" / "5.png"
    code, out, _ = run(capsys, "predict", model, one, "--csv")
    assert out.splitlines()[0] == "example,label,probability"
    assert out.splitlines()[1].startswith(f"{one},symbol 2,")
    code, out, err = run(capsys, "predict", model, drawings / "learn" / "symbol 1")
    assert code == 1
    assert "left out" in err
    assert len(out.splitlines()) == 4

    new = sorted((drawings / "test" / "symbol 3").iterdir())
    code, _, err = run(capsys, "add", model, *new[:2], "--class", "my own")
    assert code == 0
    assert Model.load(model).counts["my own"] == 2
    code, out, _ = run(capsys, "info", model, "--json")
    about = json.loads(out)
    assert about["classes"] == {f"symbol {i}": 4 for i in range(4)} | {"my own": 2}
    assert about["held_out"] == 18
    assert "my own" in run(capsys, "info", model)[1]


def test_commands_refuse_clearly(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.qs"
    Model.learn(read_examples(drawings / "test"), encoder="drawing").save(model)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for words, message in (
        (("learn", tmp_path / "none"), "no such folder or zip"),
        (("learn", drawings / "test", "--encoder", "vgg"), "no encoder 'vgg'"),
        (("learn", drawings / "test", "--head", "vgg"), "there is no head 'vgg'"),
        (("predict", model), "name something to look at"),
        (("predict", model, "--text", "hello"), "learned from images; --text is for sentences"),
        (("predict", model, "x", "--json", "--csv"), "give one of --json and --csv"),
        (("predict", model, tmp_path / "no.png"), "no such file"),
        (("predict", tmp_path / "no.qs", "x"), "there is no file"),
        (("predict", tmp_path / "run", "x"), "is the folder of a run, and no model"),
        (("add", model, "x"), "--class"),
        (("add", model, "x", "--class", " unknown "), "choose another name"),
    ):
        code, _, err = run(capsys, *words)
        assert code == 2, words
        assert message in " ".join(err.split()), (words, err)


def test_unknown_that_cannot_be_promised_is_said(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("learn", drawings / "learn", "-o", tmp_path / "m.qs", "--no-cache", "--unknown", 0.01)
    _, _, err = run(capsys, *words)
    assert "with 16 examples to hold out, nothing can be called unknown at a rate of 0.01" in err
    assert "99 are needed" in err


def test_the_report_counts_and_shows_what_went_wrong(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Model.learn(
        [e for e in read_examples(drawings / "test") if e.label != "symbol 3"],
        encoder="drawing",
    )
    test = [*read_examples(drawings / "test"), Example(b"broken", "symbol 0", "broken.png")]
    failed: list[str] = []
    found = Report.of(model, test, failed=failed)
    assert found.classes == [f"symbol {i}" for i in range(4)]
    assert found.confusion.shape == (4, 4)
    assert found.confusion.sum(1).tolist() == [5, 5, 5, 5]
    assert found.confusion[3, 3] == 0  # it never says unknown
    assert found.accuracy == found.confusion.trace() / 20
    assert len(failed) == 1
    assert {m.truth for m in found.worst} >= {"symbol 3"}
    page = found.html("<model>")
    assert "&lt;model&gt;" in page
    assert page.count("data:image/png;base64,") == len(found.worst)
    assert "broken.png" in page
    learned = sum(model.counts.values())
    assert f"encoder drawing, head protonet-drawings, learned from {learned} examples" in page
    right = int(found.confusion.trace())
    low, high = scipy.stats.binomtest(right, 20).proportion_ci(method="wilson")
    assert found.interval == pytest.approx((low, high), abs=1e-4)
    assert f"that is {low:.1%} to {high:.1%}\nof all" in page
    assert "http" not in page
    rows = {name: figures for name, *figures in found.per_class()}
    assert rows["symbol 0"][1] == found.confusion[0, 0] / 5
    model.save(tmp_path / "m.qs")
    words = ("report", tmp_path / "m.qs", drawings / "test", "-o", tmp_path / "r.html")
    code, out, _ = run(capsys, *words, "--no-cache")
    assert code == 0
    assert f"accuracy {found.accuracy:.1%} on 20 examples" in out
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_a_report_tells_unknown_from_wrong() -> None:
    few = cloud("a", 0, 30) + cloud("b", 5, 30)
    model = Model.learn(few, encoder=Points(), head="ridge", false_reject=0.1)
    found = Report.of(model, cloud("a", 0, 40, 7) + cloud("new", 2.5, 40, 8))
    assert found.classes == ["a", "b", "new"]
    right = found.confusion[0, 0] + found.confusion[2, 2]
    assert found.confusion[2, 2] > 10
    assert found.accuracy == right / 80
    assert all(m.text for m in found.worst)


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of twelve tints, a folder for each, and networks that were trained on them."""
    folder = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for n in range(12):
        tint = np.eye(3)[n % 3] * (1, 0.6, 0.3, 0.8)[n // 3]
        (folder / "photos" / f"tint {n}").mkdir(parents=True)
        for i in range(6):
            pixels = (rng.random((20, 20, 3)) * 100 + 150 * tint).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / f"tint {n}" / f"{i}.png")
    about = {"data": "folder", "root": str(folder / "photos"), "size": 16, "way": 2, "query": 2}
    about |= {"steps": 2, "filters": 8, "shot": 1, "split": "random"}
    for name, channels in (("protonet", 3), ("maml", 3), ("r2d2", 1)):
        experiment = Experiment(learner=name, channels=channels, **about)
        run_experiment(experiment, folder / name, Machine(), quiet=True)
    return folder


@pytest.mark.parametrize(
    ("role", "run_folder", "encoder", "classes"),
    [
        ("head", "protonet", "pixels:16", 12),
        ("head", "maml", "pixels:16", 2),
        ("head", "r2d2", "grey:16", 12),
        ("encoder", "protonet", "logistic", 12),
        ("encoder", "r2d2", "logistic", 12),
    ],
)
def test_what_was_trained_on_photos_is_used_on_photos(
    colours: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    role: str,
    run_folder: str,
    encoder: str,
    classes: int,
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(colours / run_folder, mine)
    few, model = tmp_path / "few", tmp_path / "m.qs"
    for n in range(classes):
        shutil.copytree(colours / "photos" / f"tint {n}", few / f"tint {n}")
    code, _, err = run(capsys, "learn", few, f"--{role}", mine, "-o", model)
    assert code == 0
    assert encoder in err
    shutil.rmtree(mine)  # the file needs it no more
    new = few / "tint 1" / "0.png"
    code, out, _ = run(capsys, "predict", model, new, "--json")
    assert code == 0
    said = json.loads(out)["probabilities"]
    assert sum(said.values()) == pytest.approx(1, abs=1e-3)
    learned = Model.load(model)
    pixels = learned.encoder([Example(new.read_bytes(), None, str(new))])
    images = (3 if "pixels" in encoder else 1, 16, 16)
    assert pixels.shape[1:] == (images if role == "head" else (8,))
    assert run(capsys, "report", model, few, "-o", tmp_path / "r.html")[0] == 0
    assert run(capsys, "export", model, "--torch", "-o", tmp_path / "m.pt2")[0] == 0
    program = torch.export.load(tmp_path / "m.pt2").module()
    got, _ = program(torch.rand(2, *Deployed(learned).input_shape))
    assert got.shape == (2, classes)


def test_a_first_class_of_grey_photos_makes_no_drawings(colours: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    shutil.copytree(colours / "photos", tmp_path / "photos")
    for file in (tmp_path / "photos" / "tint 0").iterdir():
        Image.open(file).convert("L").save(file)
    few = [e for e in read_examples(tmp_path / "photos") if e.label in ("tint 0", "tint 1")]
    model = Model.learn(few)
    assert model.encoder.name == "efficientnet-lite0"
    assert model.guess is not None
    assert "taken for photos" in model.guess
    assert str(model.classifier.learner) == "photo"


class Ink:
    """Stands for photo features that know the classes of `drawings`, or know nothing."""

    name = "efficientnet-lite0"
    kind: Literal["image", "text"] = "image"

    def __init__(self, knows: bool) -> None:
        self.knows, self.fingerprint = knows, f"ink {knows}"

    def __call__(self, examples: Any) -> Any:
        label = [int(e.label[-1]) if self.knows else hash(e.item) % 4 for e in examples]
        return np.eye(1280, dtype=np.float32)[label]


@pytest.mark.parametrize("knows", [True, False])
def test_of_drawings_the_better_features_are_taken_and_that_is_said(
    drawings: Path, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    import quickstudy.model as module

    load = module.load_encoder
    monkeypatch.setattr(
        module,
        "load_encoder",
        lambda name, device=None: Ink(knows) if name == Ink.name else load(name, device),
    )
    rng = np.random.default_rng(0)
    examples = [e for e in read_examples(drawings / "learn") if not e.where.endswith("broken.png")]
    shuffled = rng.permutation([str(e.label) for e in examples])
    confusing = [
        Example(e.item, label, e.where) for e, label in zip(examples, shuffled, strict=True)
    ]
    model = Model.learn(confusing if knows else examples)
    assert model.encoder.name == ("efficientnet-lite0" if knows else "drawing")
    assert model.guess
    if knows:
        assert "photo features 100%; photo features are taken" in model.guess
    else:  # where drawing features are never wrong, no others are tried
        assert "drawing features are taken" in model.guess or "for photos)" in model.guess
    one = {str(e.label): e for e in examples}
    assert Model.learn(one.values()).encoder.name == "drawing", "nothing can be held out"
    assert Model.learn(confusing, head="protonet-omniglot").encoder.name == "drawing"


@pytest.fixture
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of texts that needs no package, and the folder it is in."""
    import quickstudy.model as module

    monkeypatch.chdir(tmp_path)
    Path("points").touch()  # an encoder may be called what is there
    for name in ("load_encoder", "built_in_encoder"):
        monkeypatch.setattr(module, name, lambda name, device=None: Points())
    few = [Example("0 0", "[old] café", ""), Example("5 5", "[/red]", "")]
    Model.learn(few, encoder=Points(), head="centroid").save("m.qs")
    return tmp_path


def test_names_are_shown_as_they_are(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "info", "m.qs")
    assert code == 0
    assert "[old] café" in out
    assert "[/red]" in out
    code, _, err = run(capsys, "add", "m.qs", "--text", "9 9", "--class", " [old] cafe\u0301 ")
    assert code == 0, err
    assert Model.load("m.qs").counts == {"[/red]": 1, "[old] café": 2}


def test_text_files_are_read_as_editors_write_them(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_bytes(b"\xef\xbb\xbf0 1\r\n\r\n5 4\r\n")
    code, out, _ = run(capsys, "predict", "m.qs", "a.txt", "--json", "--no-cache")
    assert code == 0
    assert [json.loads(line)["where"] for line in out.splitlines()] == ["0 1", "5 4"]
    Path("b.txt").write_bytes("0 1 schön".encode("latin-1"))
    code, _, err = run(capsys, "predict", "m.qs", "b.txt", "--no-cache")
    assert code == 2
    assert "error: nothing can be answered: b.txt, line 1 is not a text in UTF-8" in err


def test_one_missing_file_does_not_end_the_others(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Model.learn(drawings / "test", encoder="drawing").save(tmp_path / "m.qs")
    there = drawings / "test" / "symbol 1" / "5.png"
    code, out, err = run(capsys, "predict", tmp_path / "m.qs", "none.png", there, "--no-cache")
    assert code == 1
    assert out.startswith(f"{there}: ")
    assert "left out: no such file: none.png" in err


def test_a_test_may_be_of_one_class(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Model.learn(drawings / "test", encoder="drawing").save(tmp_path / "m.qs")
    shutil.copytree(drawings / "test" / "symbol 2", tmp_path / "one" / "symbol 2")
    code, out, _ = run(
        capsys, "report", tmp_path / "m.qs", tmp_path / "one", "-o", tmp_path / "r.html"
    )
    assert code == 0
    assert "on 5 examples" in out


def test_a_large_collection_is_not_kept_while_it_is_learned() -> None:
    """Neither by the search for one item under two labels."""
    alive: list[weakref.ref[Example]] = []
    most = 0

    def stream() -> Any:
        nonlocal most
        for i in range(200):
            example = Example(f"{i} {i % 2}", "ab"[i % 2], f"{i}")
            alive.append(weakref.ref(example))
            most = max(most, sum(reference() is not None for reference in alive))
            yield example

    Model.learn(stream(), encoder=Points(), head="centroid")
    assert most <= 70


@pytest.mark.parametrize("command", ["learn", "predict", "add", "report", "serve"])
def test_a_device_that_is_not_there_is_named_by_every_command(
    command: str, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Model.learn(drawings / "test", encoder="drawing").save(tmp_path / "m.qs")
    words: dict[str, tuple[Any, ...]] = {
        "learn": (drawings / "test", "-o", tmp_path / "n.qs"),
        "predict": (tmp_path / "m.qs", drawings / "test"),
        "add": (tmp_path / "m.qs", drawings / "test", "--class", "x"),
        "report": (tmp_path / "m.qs", drawings / "test", "-o", tmp_path / "r.html"),
        "serve": (),
    }
    code, _, err = run(capsys, command, *words[command], "--device", "tpu")
    assert code == 2
    assert "there is no device 'tpu' here" in err


def test_an_example_of_another_label_is_not_added(letters: Path) -> None:
    model, failed = Model.load("m.qs"), list[str]()
    with pytest.raises(ValueError, match=r"it is held already, as an example of \[old\] café"):
        model.add([Example("0 0", "new", "it")])
    added = model.add([Example("0 0", "new", "it"), Example("9 0", "new", "that")], failed=failed)
    assert (added, len(failed)) == (1, 1)
    assert model.counts == {"[/red]": 1, "[old] café": 1, "new": 1}


def test_a_fall_of_accuracy_is_said() -> None:
    model = Model.learn(cloud("a", 0, 20) + cloud("b", 5, 20), encoder=Points(), head="centroid")
    assert model.classifier.held_out_accuracy_ == 1
    with pytest.warns(UserWarning, match=r"held-out accuracy fell from 100\.0% to [0-9.]+% with"):
        model.add(cloud("a", 5, 20, seed=1))


def test_a_class_is_forgotten(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "remove", "m.qs", "--class", "[/red]")
    assert (code, "only 2 classes" in err) == (2, True)
    code, _, err = run(capsys, "add", "m.qs", "--text", "9 0", "--class", "new", "--out", "n.qs")
    assert code == 0, err
    assert Model.load("m.qs").counts == {"[/red]": 1, "[old] café": 1}, "--out leaves the model"
    code, _, err = run(capsys, "remove", "n.qs", "--class", "none")
    assert (code, "there is no class 'none'; there are: [/red], [old] café, new" in err) == (
        2,
        True,
    )
    code, _, err = run(capsys, "remove", "n.qs", "--class", " [old] cafe\u0301")
    assert code == 0, err
    left = Model.load("n.qs")
    assert left.counts == {"[/red]": 1, "new": 1}
    assert [a.label for a in left.predict(["0 0", "9 0", "5 5"])] == ["[/red]", "new", "[/red]"]


@pytest.mark.parametrize(
    "named",
    [
        "hf:stranger/model",
        "timm:resnet18",
        "sentence:stranger/model",
        "sentence:beside",
        "beside",
        "pixels:9999999",
        "../run",
    ],
)
def test_a_file_does_not_decide_what_is_loaded(
    named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stranger's model may name any folder or address; it is asked for, and not followed."""
    monkeypatch.chdir(tmp_path)
    few = [*cloud("a", 0, 3), *cloud("b", 5, 3)]
    Model.learn(few, encoder=Points(), head="centroid").save("m.qs")
    state = load_state("m.qs")
    state["about"]["model"]["encoder"] = named
    save_state("m.qs", state)
    Path("beside").mkdir()
    (Path("beside") / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "trap.Trap"}]'
    )
    (Path("beside") / "trap.py").write_text("raise SystemExit('a stranger ran code')\n")

    def reached(*words: Any, **more: Any) -> None:
        raise AssertionError("something was loaded")

    for name in ("timm_model", "hugging_face", "sentence_transformer"):
        monkeypatch.setattr(f"quickstudy.encoders.loading.{name}", reached)
    monkeypatch.setattr("quickstudy.encoders.learned.LearnedEncoder.of", reached)
    assert run(capsys, "info", "m.qs")[0] == 0
    code, _, err = run(capsys, "predict", "m.qs", "--text", "0 5", "--no-cache")
    assert (code, f"needs the encoder {named!r}, which is no part of quickstudy" in err) == (
        2,
        True,
    )
    with pytest.raises(ValueError, match="is no part of quickstudy"):
        Model.load("m.qs").add([("1 1", "c")])
    assert [a.label for a in Model.load("m.qs", encoder=Points()).predict(["0 5"])] == ["a"]
    with pytest.raises(ValueError, match="was learned with another"):
        Model.load("m.qs", encoder="grey:8")


def test_what_was_added_by_hand_is_not_replaced_in_silence(
    letters: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("t.csv").write_text("text,label\n0 0,a\n5 5,b\n")
    again = ("learn", "t.csv", "-o", "m.qs", "--encoder", "points", "--head", "centroid")
    code, _, err = run(capsys, *again, "--no-cache")
    assert code == 0, err
    assert "m.qs is replaced" in err
    assert run(capsys, "add", "m.qs", "--text", "9 0", "--class", "c", "--no-cache")[0] == 0
    code, _, err = run(capsys, *again)
    assert code == 2
    assert "m.qs exists, with 1 examples added to it or removed by hand; --force" in err
    assert "c" in Model.load("m.qs").counts
    assert run(capsys, "remove", "m.qs", "--class", "c")[0] == 0
    code, _, err = run(capsys, *again)
    assert (code, "with 2 examples added to it or removed by hand" in err) == (2, True)
    assert run(capsys, *again, "--force", "--no-cache")[0] == 0
    assert "c" not in Model.load("m.qs").counts
    Path("m.qs").write_text("a letter")
    code, _, err = run(capsys, *again)
    assert (code, "m.qs exists and is no model; --force replaces it" in err) == (2, True)
    assert Path("m.qs").read_text() == "a letter"


def test_strict_refuses_what_would_be_left_out(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.qs"
    code, _, err = run(capsys, "learn", drawings / "learn", "-o", out, "--strict", "--no-cache")
    assert code == 2
    assert "broken.png" in err
    assert "1 examples cannot be read, and --strict was given" in err
    assert not out.exists()


def test_what_is_left_out_is_said_whatever_python_was_told(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import warnings

    Path("t.csv").write_text("text,label\n0 0,a\n0 0,b\n5 5,b\n")
    words = ("learn", "t.csv", "-o", "n.qs", "--encoder", "points", "--no-cache")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        assert run(capsys, *words)[0] == 0
    assert any("they have two labels" in str(warning.message) for warning in said)


def test_a_rate_that_is_none_is_refused_in_the_commands_words(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "learn", "t.csv", "--unknown", "5")
    assert code == 2
    assert "--unknown is 5; expected a rate from 0 to 1, such as 0.05" in err


def test_one_bad_line_or_file_ends_nothing(
    letters: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("a.txt").write_bytes(b"0 1\ncaf\xe9\n5 4\n")
    code, out, err = run(capsys, "predict", "m.qs", "a.txt", "none.txt", "none.csv", "--no-cache")
    assert (code, len(out.splitlines())) == (1, 2), err
    for said in ("a.txt, line 2 is not a text in UTF-8", "no such file: none.txt", "none.csv"):
        assert f"left out: {said}" in err or said in err
    stream = io.TextIOWrapper(io.BytesIO(b"0 1\n\xff\n5 4\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    code, out, err = run(capsys, "predict", "m.qs", "-", "--no-cache")
    assert (code, len(out.splitlines())) == (1, 2)
    assert "standard input, line 2 is not a text in UTF-8" in err
    code, out, err = run(
        capsys, "predict", "m.qs", "--text", "\udce9", "--text", "5 5", "--no-cache"
    )
    assert (code, len(out.splitlines())) == (1, 1)
    failed: list[str] = []
    given = [Path("none.png"), "0 1", np.full((4, 4), 300.0)]
    assert len(list(Model.load("m.qs").predict(given, failed=failed))) == 1
    assert len(failed) == 2


def test_an_empty_text_is_no_sentence(letters: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "predict", "m.qs", "--text", " ", "--text", "5 5", "--no-cache")
    assert (code, out.count("\n")) == (1, 1)
    assert "left out: a --text is empty" in err


def test_a_class_that_vanishes_is_named(tmp_path: Path, drawings: Path) -> None:
    root = tmp_path / "three"
    shutil.copytree(drawings / "test" / "symbol 2", root / "a")
    shutil.copytree(drawings / "test" / "symbol 3", root / "b")
    (root / "c").mkdir()
    (root / "c" / "1.png").write_bytes(b"damaged")
    failed: list[str] = []
    with pytest.warns(UserWarning, match="of the class c nothing can be read: it is left out"):
        model = Model.learn(root, encoder="drawing", head="centroid", failed=failed)
    assert [*model.counts] == ["a", "b"]
    shutil.rmtree(root / "b")
    with pytest.raises(ValueError, match=r"there is only the class a: of c nothing .*c/1\.png"):
        Model.learn(root, encoder="drawing", head="centroid", failed=[])


def test_what_is_there_twice_is_said(letters: Path) -> None:
    few = [("0 0", "a"), ("5 5", "b"), ("0 0", "a")]
    with pytest.warns(UserWarning, match="example 3 is the same as example 1, and counts twice"):
        model = Model.learn(few, encoder=Points(), head="centroid")
    with pytest.warns(UserWarning, match="is held already, as an example of b and is left out"):
        assert model.add([("5 5", "b"), ("6 6", "b")]) == 1
    with pytest.raises(ValueError, match="there is nothing new"):
        model.add([("5 5", "b")])
    assert model.counts == {"a": 2, "b": 2}


def test_labels_of_a_table_that_are_not_heeded_are_said(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("text,label\n1 1,x\n2 2,y\n")
    code, _, err = run(capsys, "add", "m.qs", "t.csv", "--class", "x", "--no-cache")
    assert code == 0, err
    assert "1 examples have another label, such as y: all are x now" in err


def test_a_report_of_other_classes_says_so(letters: Path) -> None:
    model = Model.load("m.qs")
    with pytest.warns(UserWarning, match=r"no class that is tested \(q\) is one of the model's"):
        Report.of(model, [("0 0", "q"), ("0 0", "q")])
    same = Example("0 0", "[/red]", "one place")
    assert Report.of(model, [same, Example("5 5", "[/red]", "one place"), same]).tested == 3


def test_unknown_that_cannot_be_promised_any_more_is_said(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [e for i, name in enumerate("abc") for e in cloud(name, 5.0 * i, 8, i)]
    Model.learn(many, encoder=Points(), false_reject=0.05, head="centroid").save("u.qs")
    code, _, err = run(capsys, "remove", "u.qs", "--class", "a")
    assert code == 0
    assert "with 16 examples to hold out, nothing can be called unknown at a rate of 0.05" in err


def test_a_model_is_not_written_onto_a_folder(
    letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("text,label\n1 1,x\n2 2,y\n")
    Path("folder").mkdir()
    code, _, err = run(capsys, "learn", "t.csv", "-o", "folder", "--force", "--no-cache")
    assert (code, "folder is a folder; give --out the name of a file" in err) == (2, True)
    assert "is replaced" not in err


def test_a_class_of_a_stranger_is_no_command_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2Ja\nb"
    pairs = [(np.full((9, 9), v / 9), evil if v < 4 else "good") for v in range(8)]
    Model.learn(pairs, encoder="drawing").save(tmp_path / "m.qs")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "x.png")
    for command in ("predict", "info"):
        files = [tmp_path / "x.png"] if command == "predict" else []
        code, out, err = run(capsys, command, tmp_path / "m.qs", *files)
        assert code == 0
        assert all(c.isprintable() or c == "\n" for c in out + err)
    code, out, _ = run(capsys, "predict", tmp_path / "m.qs", tmp_path / "x.png")
    assert out.count("\n") == 1


def test_what_is_wrong_with_a_file_of_a_stranger_is_no_command_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b]0;owned\x07"
    rows = "".join(f"{i},{i % 7},{evil}{i % 2}\n" for i in range(40)) + f"40,{evil},{evil}0\n"
    (tmp_path / "t.csv").write_text(f"x,{evil},label\n{rows}")
    (tmp_path / "twice.csv").write_text(f"x,{evil},{evil},label\n1,2,3,a\n")
    (tmp_path / "other.csv").write_text("y\n1\n")
    model = tmp_path / "m.qs"
    for code, *words in (
        (0, "learn", tmp_path / "t.csv", "-o", model),
        (2, "learn", tmp_path / "twice.csv", "-o", tmp_path / "x.qs"),
        (2, "predict", model, tmp_path / "other.csv"),
        (2, "info", tmp_path / f"{evil}.qs"),
    ):
        ended, out, err = run(capsys, *words)
        assert ended == code
        assert "owned" in err
        assert all(c.isprintable() or c == "\n" for c in out + err)
    with monkeypatch.context() as shown:
        shown.setattr(type(sys.stdout), "isatty", lambda _: True)
        _, out, _ = run(capsys, "predict", model, tmp_path / "t.csv", "--csv", "--no-cache")
        assert r"\x1b]0;owned\x070" in out
        assert evil not in out
    _, out, _ = run(capsys, "predict", model, tmp_path / "t.csv", "--csv", "--no-cache")
    assert f"{evil}0" in out, "a program gets what is in the file"


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("held_out_accuracy_", [1], r"held_out_accuracy_ is \[1\]; expected a number"),
        ("threshold_", "high", "threshold_ is 'high'; expected a number"),
        ("support_y", torch.tensor([0, 1, 1 << 31]), "does not have an example of each class"),
        ("support_weight", torch.tensor([1, 1, 1 << 40]), "more than .* is too much"),
    ],
)
def test_figures_of_a_stranger_are_looked_at_before_they_are_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], part: str, value: Any, message: str
) -> None:
    """``info`` took as much memory as the largest label said, and showed what was no number."""
    path = tmp_path / "m.qs"
    Model.learn([("1 2", "a"), ("3 4", "b"), ("5 6", "b")], encoder=Points()).save(path)
    state = load_state(path)
    (state["calibration"] if part in state["calibration"] else state)[part] = value
    save_state(path, state)
    command = "predict" if part == "support_weight" else "info"
    code, _, err = run(capsys, command, path, *["--text", "1 2"] * (command == "predict"))
    assert code == 2
    assert str(path) in err.replace("\n", "")
    assert re.search(message, err)


def test_a_report_of_half_characters_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"x": i, "label": "ab"[i % 2]} for i in range(6)]
    for name, test in (("t", rows), ("u", [{"x": "\ud800", "label": label} for label in "ab"])):
        (tmp_path / f"{name}.json").write_text(json.dumps(test))
    run(capsys, "learn", tmp_path / "t.json", "-o", tmp_path / "m.qs")
    words = ("report", tmp_path / "m.qs", tmp_path / "u.json", "-o", tmp_path / "r.html")
    assert run(capsys, *words)[0] == 0
    assert "&#55296;" in (tmp_path / "r.html").read_text("utf-8")
