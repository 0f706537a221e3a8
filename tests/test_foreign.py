"""Networks of other libraries as backbones, made on the spot: nothing is fetched."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import quickstudy
from quickstudy.encoders import load_encoder
from quickstudy.experiments.spec import Experiment
from quickstudy.foreign import describe, foreign
from quickstudy.task import Task
from quickstudy.testing import make_task

KINDS = ("vit", "dinov2", "resnet", "convnext", "clip", "siglip")
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SMALL, "image_size": 32, "patch_size": 16}
TEXT = {**SMALL, "intermediate_size": 16, "vocab_size": 50}
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
PHOTOS: dict[str, Any] = {"data": "folder", "size": 32, "channels": 3, "way": 2}


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a tiny model of Hugging Face, in a folder."""
    library = pytest.importorskip("transformers", reason="needs quickstudy[vision]")
    torch.manual_seed(0)
    kind, wide = request.param, {**VISION, "intermediate_size": 16}
    both = {"vision_config": wide, "text_config": TEXT}
    network = {
        "vit": lambda: library.ViTModel(library.ViTConfig(**wide)),
        "dinov2": lambda: library.Dinov2Model(library.Dinov2Config(**VISION)),
        "resnet": lambda: library.ResNetModel(library.ResNetConfig(embedding_size=8, **STAGES)),
        "convnext": lambda: library.ConvNextModel(library.ConvNextConfig(num_stages=2, **STAGES)),
        "clip": lambda: library.CLIPModel(library.CLIPConfig(**both, projection_dim=8)),
        "siglip": lambda: library.SiglipModel(library.SiglipConfig(**both)),
    }[kind]()
    folder = tmp_path_factory.mktemp(kind)
    network.save_pretrained(folder)
    side = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    library.ViTImageProcessor(**side).save_pretrained(folder)
    return f"hf:{folder}"


def task() -> Task:
    return make_task((3, 32, 32), 2, tasks=2, shot=2, query=2).to(torch.float32)


@pytest.mark.parametrize("name", ["protonet", "r2d2", "maml", "anil", "pmf"])
def test_any_learner_learns_on_a_network_of_hugging_face(name: Any, model: str) -> None:
    learner = Experiment(name, backbone=model, **PHOTOS).build_learner().train()
    if name == "maml":
        learner.inner_lr = 0.01  # type: ignore[assignment]
    x = torch.rand(4, 3, 32, 32)
    theirs: Any = load_encoder(model)
    own = getattr(learner, "encoder", None) or learner.network[0]  # type: ignore[index]
    with torch.no_grad():
        assert torch.allclose(own(x), theirs.network(x), atol=1e-5), "its weights are the model's"
    first, seen = learner.loss(task()), task()
    optimizer = torch.optim.Adam([p for p in learner.parameters() if p.requires_grad], 1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        learner.loss(seen).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert learner.loss(seen) < first
    idle = [n for n, p in learner.named_parameters() if p.requires_grad and p.grad is None]
    assert not [n for n in idle if "text" in n], "a text tower learns nothing here"


def test_mamls_gradient_through_such_a_network_is_of_second_order(model: str) -> None:
    """Against differences of the loss: what a first-order gradient would miss."""
    settings = {"options": {"inner_lr": 0.05, "inner_steps": 2}, "backbone": model, **PHOTOS}
    learner = Experiment("maml", **settings).build_learner().double()
    seen = make_task((3, 32, 32), 2, tasks=1, shot=2, query=2).to(torch.float64)
    weights = [p for p in learner.parameters() if p.requires_grad]
    if "resnet" in model:  # its shifts are zero, where rectifiers have their corner
        for p in weights:
            p.data += 0.02 * torch.randn_like(p)

    def gradient() -> Tensor:
        each = torch.autograd.grad(learner.loss(seen), weights, materialize_grads=True)
        return nn.utils.parameters_to_vector(each)

    exact = gradient()
    along, slope = exact / exact.norm(), exact.norm()
    step = 1e-6 if "resnet" in model else 1e-3  # transformers take softmax in float32
    now = nn.utils.parameters_to_vector(weights).detach()
    losses = []
    for by in (step, -step):
        nn.utils.vector_to_parameters(now + by * along, weights)
        losses.append(learner.loss(seen).detach())
    assert torch.allclose((losses[0] - losses[1]) / (2 * step), slope, rtol=5e-3)
    nn.utils.vector_to_parameters(now, weights)
    learner.first_order = True  # type: ignore[assignment]
    assert abs(gradient() @ along - slope) > 0.05 * slope, "first order alone would be noticed"


def test_what_was_trained_opens_where_the_model_is_not(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = Experiment("protonet", backbone=model, **PHOTOS).with_details()
    learner = experiment.build_learner().eval()
    learner.save_pretrained(tmp_path / "own")
    monkeypatch.setattr("quickstudy.foreign._hugging_face", _reached)
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", _reached)
    again = quickstudy.load(tmp_path / "own")
    seen = task()
    assert torch.equal(learner(seen), again(seen))
    with pytest.raises(ValueError, match="is not described as it should be: 'mean'"):
        experiment.replace(backbone_config={}).build_learner(at_most=10**6)
    named = {"experiment": experiment.replace(backbone_config={}).model_dump()}
    (tmp_path / "run.json").write_text(json.dumps(named))
    with pytest.raises(ValueError, match="does not say how it is built"):
        Experiment.load(tmp_path)


def _reached(*_: Any, **__: Any) -> None:
    raise AssertionError("something was looked for")


def test_a_description_is_plain(model: str) -> None:
    plain = str(describe(model))
    assert all(word not in plain for word in ("auto_map", "_name_or_path", "implementation"))


@pytest.mark.parametrize("model", ["vit"], indirect=True)
def test_a_description_is_no_way_in(model: str) -> None:
    described = describe(model)
    for kind in ("timm_wrapper", "bert", None):
        wrong = {**described, "config": {**described["config"], "model_type": kind}}
        with pytest.raises(ValueError, match="expected one that takes images: beit, bit"):
            foreign(model, 32, wrong, pretrained=False)
    loaded = {**described["config"], "auto_map": {"AutoModel": "trap.Trap"}, "_x": 1}
    loaded["attn_implementation"] = "strangers/kernel"
    network: Any = foreign(model, 32, {**described, "config": loaded}, pretrained=False)
    assert network.module.network.config._attn_implementation == "eager"
    with pytest.raises(ValueError, match="is not described as it should be: 'mean'"):
        foreign(model, 32, {}, pretrained=False)
    with pytest.raises(ValueError, match="takes no images of 28x28"):
        foreign(model, 28, described, pretrained=False)


HOSTILE: dict[str, dict[str, Any]] = {
    "no configuration": {"config": "x"},
    "a list": {"config": []},
    "two colours": {"mean": [0.5, 0.5]},
    "a word of colours": {"mean": "abc"},
    "no deviation": {"std": [0.0, 0.5, 0.5]},
    "not a number": {"mean": [float("nan"), 0.5, 0.5]},
    "a billion layers": {"num_hidden_layers": 10**9},
    "layers in a list": {"depths": [600, 600]},
    "a size in words": {"hidden_size": "x"},
    "a size beyond memory": {"hidden_size": 2**62},
    "no heads": {"num_attention_heads": 0},
    "no patches": {"patch_size": 0},
    "a word where a yes is": {"output_hidden_states": "x"},
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("model", ["vit"], indirect=True)
def test_a_hostile_description_is_refused(model: str, what: str, tmp_path: Path) -> None:
    """In a file of weights, too, where it opens."""
    changed = HOSTILE[what]
    described = describe(model)
    if changed.keys() <= described.keys():
        described |= changed
    else:
        described["config"] |= changed
    learner = Experiment("protonet", backbone=model, **PHOTOS).with_details().build_learner()
    learner.save_pretrained(tmp_path / "own")
    path = next((tmp_path / "own").glob("*.safetensors"))
    with safe_open(path, "pt") as file:
        names: list[str] = file.keys()
        about, tensors = file.metadata(), {key: file.get_tensor(key) for key in names}
    (key,) = [key for key, value in about.items() if "backbone_config" in value]
    inside = json.loads(about[key])
    inside["backbone_config"] = described
    save_file(tensors, path, {**about, key: json.dumps(inside)})
    with pytest.raises(ValueError, match=r"describe|no images of|builds"):
        quickstudy.load(path)


@pytest.mark.parametrize("model", ["vit"], indirect=True)
def test_an_enormous_description_is_refused_before_memory_is_taken(model: str) -> None:
    experiment = Experiment("protonet", backbone=model, **PHOTOS).with_details()
    config = {**experiment.backbone_config["config"], "hidden_size": 2**15, "num_hidden_layers": 99}
    larger = experiment.replace(backbone_config={**experiment.backbone_config, "config": config})
    with pytest.raises(ValueError, match="its description is of a protonet with"):
        larger.build_learner(at_most=10**6)


def test_names_of_timm_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a library in its place that has what is asked of it: the real one needs torchvision."""
    asked = []

    class Data:
        @staticmethod
        def resolve_model_data_config(network: nn.Module) -> dict[str, Any]:
            return {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2), "input_size": (3, 32, 32)}

    class Timm:
        data = Data

        @staticmethod
        def create_model(name: str, *, pretrained: bool, num_classes: int) -> nn.Module:
            asked.append((name, pretrained, num_classes))
            return nn.Conv2d(3, 7, 5, stride=4)

    monkeypatch.setattr("quickstudy.foreign.need", lambda module, extra: Timm)
    experiment = Experiment("protonet", backbone="timm:resnet18.a1_in1k", **PHOTOS).with_details()
    learner: Any = experiment.build_learner()
    assert asked[-1] == ("resnet18.a1_in1k", True, 0)
    assert learner.encoder.out_features == 7
    experiment.build_learner(at_most=10**4)
    assert asked[-1] == ("resnet18.a1_in1k", False, 0)
    for address in ("timm:hf-hub:a/b", "timm:local-dir:/x"):
        with pytest.raises(ValueError, match="is not a name of timm's own"):
            Experiment("protonet", backbone=address, **PHOTOS).build_learner()


@pytest.mark.parametrize("wrong", ["conv5", "hf:", "timm", "other:x"])
def test_other_backbones_are_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"backbone is '{wrong}'; expected one of conv4, r2d2"):
        Experiment("protonet", backbone=wrong)
    with pytest.raises(ValueError, match="channels is 1; hf:x takes photos, of 3"):
        Experiment("protonet", backbone="hf:x")
