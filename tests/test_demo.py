"""The demonstration at small size: everything it promises, with numbers that mean nothing."""

from functools import partial
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from quickstudy import demo
from quickstudy.data import EpisodeSampler, omniglot
from quickstudy.demo import CURVE_STEPS, PIXELS, SCRATCH, UNTRAINED, run_demo
from quickstudy.plots import plot_classes, plot_curves, plot_regression, plot_task
from quickstudy.testing import make_task


def test_demo(tmp_path: Path) -> None:
    said: list[str] = []
    result = run_demo(tmp_path, classes=40, scale=0.01, n_tasks=4, say=said.append)
    assert list(result.table)[:3] == [PIXELS, UNTRAINED, SCRATCH]
    assert [name.partition(",")[0] for name in list(result.table)[3:]] == [
        "ProtoNet",
        "MAML",
        "Transformer",
    ]
    for row in result.table.values():
        for shot in (1, 5):
            assert len(row[shot].scores) == 4
            assert 0 <= row[shot].mean <= 1
    assert result.table[PIXELS][5].mean > 0.6, "pixels do well on these digits"
    assert {name: tuple(curve) for name, curve in result.curves.items()} == {
        "meta-learned": CURVE_STEPS,
        "random start": CURVE_STEPS,
    }
    start = [curve[0].mean for curve in result.curves.values()]
    assert max(start) < 0.4, "before any step a network guesses"
    for picture in result.pictures:
        pixels = np.asarray(Image.open(picture).convert("L"))
        assert min(pixels.shape) > 300
        assert pixels.std() > 10, "the picture is blank"
    assert len(said) >= 8


def test_the_demo_on_omniglot(
    tmp_path: Path, omniglot_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own alphabets, here three of them, and the same learners at another size."""
    for part, alphabets in (("background", ("Ojibwe", "Inuktitut")), ("evaluation", ("Angelic",))):
        with ZipFile(omniglot_root / f"images_{part}.zip") as zipped:
            names = [name for name in zipped.namelist() if name.split("/")[1].startswith(alphabets)]
            zipped.extractall(tmp_path, names)
    monkeypatch.setenv("QUICKSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo, "omniglot", partial(omniglot, verify=False))
    seen, unseen = demo._data(tmp_path, 0, seed=0)
    assert (seen.n_classes, unseen.n_classes) == (4 * 30, 4 * 20)
    assert seen.shape == unseen.shape == (1, 20, 20)
    task = EpisodeSampler(unseen, way=demo.WAY, shot=1, query=1)[0]
    for row in demo._rows(seen.shape[-1], scale=1.0, seed=0):
        assert row.build().eval()(task).shape == (1, demo.WAY, demo.WAY)


def test_pictures_refuse_what_they_cannot_draw(tmp_path: Path) -> None:
    from quickstudy.data import ClassDataset, SinusoidSampler

    with pytest.raises(ValueError, match="only images can be drawn"):
        plot_classes(ClassDataset.from_arrays(np.zeros((4, 3)), [0, 0, 1, 1]), tmp_path / "x.png")
    with pytest.raises(ValueError, match="only classification tasks of images"):
        plot_task(SinusoidSampler(shot=2, query=2)[0], {}, tmp_path / "x.png")
    with pytest.raises(ValueError, match="no curve"):
        plot_curves({}, tmp_path / "x.png", x="steps")
    with pytest.raises(ValueError, match="only regression tasks"):
        plot_regression(make_task((2,), 3), {}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()
