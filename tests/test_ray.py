"""A local cluster of two workers says what one process says, also when a worker is killed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from quickstudy.batches import Predictor
from quickstudy.model import Model

ray: Any = pytest.importorskip("ray", reason="needs quickstudy[ray]")

FILES = 40


class Killed(Predictor):
    """Its process ends at the fifth batch that any worker meets, once."""

    def __init__(self, model: str, once: str) -> None:
        super().__init__(model)
        self.once = Path(once)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with self.once.open("a") as seen:
            seen.write("x")
        if self.once.stat().st_size == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return {**super().__call__(batch), "worker": np.full(len(batch["path"]), os.getpid())}


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.getenv("PYTHONPATH")]))
    ray.init(
        num_cpus=3,  # two workers, and one that reads
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and drawings for it, one of which is none."""
    folder, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(FILES):
        pixels = rng.integers(0, 256, (16, 16), np.uint8) // (1 + i % 2)
        Image.fromarray(pixels).save(folder / "photos" / f"{i:02}.png")
    (folder / "photos" / "07.png").write_bytes(b"not an image")
    few = [
        (folder / "photos" / f"{i:02}.png", "bright" if i % 2 == 0 else "dark") for i in range(6)
    ]
    Model.learn(few, encoder="pixels:8", head="centroid").save(folder / "m.qs")
    return folder


def test_two_workers_one_killed_say_what_one_process_says(cluster: None, work: Path) -> None:
    one = Predictor(work / "m.qs")
    paths = sorted((work / "photos").iterdir())
    batch = {"path": np.array([*map(str, paths)], object)}
    batch["bytes"] = np.array([p.read_bytes() for p in paths], object)
    expected = one(batch)
    photos = ray.data.read_binary_files(str(work / "photos"), include_paths=True)
    answers = photos.repartition(10).map_batches(
        Killed,
        fn_constructor_args=(str(work / "m.qs"), str(work / "met")),
        concurrency=2,
        batch_size=4,
    )
    rows = answers.take_all()
    assert [Path(row["path"]).name for row in rows] == [path.name for path in paths], "in order"
    assert [row["label"] for row in rows] == expected["label"].tolist()
    assert [row["fault"] for row in rows] == expected["fault"].tolist()
    assert np.allclose([row["probability"] for row in rows], expected["probability"], atol=1e-6)
    assert expected["fault"][7]
    assert {*expected["label"]} == {"bright", "dark", ""}
    assert (work / "met").stat().st_size > FILES // 4, "a batch was asked for again"
    assert len({row["worker"] for row in rows}) >= 2
