"""The fast ways of the photos' encoder: to the same features, whoever shares the work."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quickstudy.cores import on_all_cores, one_thread
from quickstudy.encoders import PhotoEncoder, efficientnet, folded, load_encoder
from quickstudy.examples import Example, as_example
from quickstudy.images import open_image


@pytest.fixture(scope="module")
def network() -> Any:
    pytest.importorskip("efficientnet_lite_pytorch")
    return efficientnet().module


@pytest.fixture
def threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield 3
    torch.set_num_threads(before)


def some(n: int) -> list[Example]:
    rng = np.random.default_rng(0)
    shapes = [(*rng.integers(20, 400, 2), 3) for _ in range(n)]
    return [as_example(rng.integers(0, 255, shape, np.uint8), "noise") for shape in shapes]


def by_onnx_runtime(layers: list[folded.Convolution]) -> Callable[[Tensor], Tensor]:
    pytest.importorskip("onnxruntime")
    found = folded.by_onnx_runtime(layers)
    assert found is not None
    return found


@pytest.mark.parametrize("way", [folded.by_torch, by_onnx_runtime])
@pytest.mark.parametrize("size", [224, 96])
@torch.no_grad()
def test_folded_layers_give_the_maps_of_the_network(network: Any, way: Any, size: int) -> None:
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = network(x)
    assert ((way(folded.convolutions(network))(x) - expected).abs() < 2e-5 * expected.max()).all()


def test_onnx_runtime_reports_to_nobody(tmp_path: Path) -> None:
    """Left to itself it keeps an identity and events to send in the user's cache folder."""
    pytest.importorskip("onnxruntime")
    code = """
from quickstudy.encoders import folded
from quickstudy.encoders import efficientnet
assert folded.by_onnx_runtime(folded.convolutions(efficientnet().module))
"""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run((sys.executable, "-c", code), env=environment | home, check=True)
    assert not [path for path in tmp_path.rglob("*") if "onnx" in path.name.lower()]


def test_without_onnx_runtime_pytorch_answers(
    network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_encoder("efficientnet-lite0")(some(3))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert folded.by_onnx_runtime(folded.convolutions(network)) is None
    own = load_encoder("efficientnet-lite0")(some(3))
    assert np.abs(own - plain).max() < 2e-5 * plain.max()


@pytest.mark.usefixtures("network")
def test_a_photo_has_the_same_features_alone_and_among_others(threads: int) -> None:
    encoder, examples = load_encoder("efficientnet-lite0"), some(7)
    together = encoder(examples)
    assert torch.get_num_threads() == threads
    assert np.array_equal(together, np.concatenate([encoder([e]) for e in examples]))
    with one_thread():
        assert np.array_equal(together, encoder(examples))


def test_any_network_answers_as_it_does_by_itself(threads: int) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    encoder, examples = PhotoEncoder(module, size=32), some(4)
    images = [open_image(e.item, e.where, "RGB") for e in examples]  # type: ignore[arg-type]
    pixels = torch.stack([encoder.prepare(image) for image in images])
    with torch.no_grad():
        expected = encoder.network(pixels.float() / 255).numpy()
    assert np.allclose(encoder(examples), expected, atol=1e-6)


def test_items_keep_their_order_and_threads_are_given_back(threads: int) -> None:
    seen = on_all_cores(lambda i: (i, torch.get_num_threads()), range(20))
    assert seen == [(i, 1) for i in range(20)]
    assert torch.get_num_threads() == threads
    with pytest.raises(ZeroDivisionError):
        on_all_cores(lambda i: 1 // i, range(3))
    assert torch.get_num_threads() == threads
    assert on_all_cores(str, []) == []
