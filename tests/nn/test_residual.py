"""ResNet-12, WRN-28-10 and DropBlock: what their papers say, and every kind of learner on them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quickstudy.execution import executing
from quickstudy.experiments.spec import LearnerSpec
from quickstudy.learner import MetaLearner
from quickstudy.learners import MAML, R2D2, ProtoNet
from quickstudy.nn import BatchNorm, DropBlock, ResNet12, WideResNet, set_batch_norm_policy
from quickstudy.testing import make_task

BACKBONES: dict[str, Callable[[], nn.Module]] = {
    "resnet12": lambda: ResNet12(3, (2, 3, 4, 5), image_size=16),
    "wide": lambda: WideResNet(3, 10, 1, image_size=8),
}
LEARNERS: dict[str, Callable[[nn.Module], MetaLearner]] = {
    "protonet": ProtoNet,
    "maml": lambda encoder: MAML(
        nn.Sequential(encoder, nn.Linear(_size(encoder), 3)), inner_steps=2
    ),
    "r2d2": R2D2,
}


def _size(encoder: nn.Module) -> int:
    return int(encoder.out_features)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["inductive", "transductive"])
@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_learners_give_one_gradient_whichever_way_they_are_executed(
    backbone: str, learner: str, policy: str
) -> None:
    torch.manual_seed(0)
    encoder = BACKBONES[backbone]()
    set_batch_norm_policy(encoder, policy)  # type: ignore[arg-type]
    learned = LEARNERS[learner](encoder).double().train()
    task = make_task(encoder.input_shape, way=3, shot=2, tasks=2).to(torch.float64)  # type: ignore[arg-type]
    parameters = [p for p in learned.parameters() if p.requires_grad]
    found = []
    for way in ({}, {"tasks_at_once": 1, "graphs": None, "stacked": False}):
        with executing(**way):  # type: ignore[arg-type]
            loss = learned.loss(task)
            found.append((loss, *torch.autograd.grad(loss, parameters)))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-9)
    assert all(bool(g.any()) for g in found[0][1:])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_other_images_are_refused(backbone: str) -> None:
    with pytest.raises(ValueError, match=r"built for images of shape \[3, .* but got \[1, 5, 5\]"):
        BACKBONES[backbone]()(torch.rand(2, 1, 5, 5))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="image_size is 15"):
        ResNet12(image_size=15)
    with pytest.raises(ValueError, match="depth is 12"):
        WideResNet(depth=12)
    with pytest.raises(ValueError, match="image_size is 3"):
        WideResNet(depth=10, widen=1, image_size=3)
    with pytest.raises(ValueError, match="drop is 1"):
        DropBlock(1.0)


def test_resnet12_is_its_layers() -> None:
    torch.manual_seed(0)
    network = ResNet12(1, (2, 3, 4, 5), image_size=20).double().train()
    x = torch.rand(6, 1, 20, 20, dtype=torch.float64)
    layers = iter([m for m in network.modules() if isinstance(m, nn.Conv2d)])

    def layer(z: Tensor) -> Tensor:
        weight = next(layers).weight
        z = nn.functional.conv2d(z, weight, padding=weight.shape[-1] // 2)
        return nn.functional.batch_norm(z, None, None, training=True)

    z = x
    for _ in range(4):
        a = nn.functional.leaky_relu(layer(z), 0.1)
        b = nn.functional.leaky_relu(layer(a), 0.1)
        c = layer(b) + layer(z)
        z = nn.functional.max_pool2d(nn.functional.leaky_relu(c, 0.1), 2)
    torch.testing.assert_close(network(x), z.mean((2, 3)), rtol=1e-9, atol=1e-12)


def test_a_wide_network_has_the_layers_of_its_name() -> None:
    with torch.device("meta"):
        network = WideResNet(3)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(layer.kernel_size == (3, 3) for layer in layers) == 28 - 3
    assert [m.weight.shape[0] for m in network.modules() if isinstance(m, BatchNorm)][-1] == 640
    small = WideResNet(3, 10, 1, image_size=16)
    assert small.blocks(small.first(torch.rand(1, 3, 16, 16))).shape == (1, 64, 4, 4)


def test_dropblock_drops_squares_at_its_rate_and_keeps_the_sum() -> None:
    torch.manual_seed(0)
    x, drop = torch.ones(200, 4, 20, 20), DropBlock(0.1, 5)
    z = drop(x)
    gone = z == 0
    assert 0.07 < float(gone.float().mean()) < 0.12
    assert z.mean() == pytest.approx(1, abs=1e-3)
    squares = nn.functional.avg_pool2d(gone.float(), 5, stride=1) == 1
    spread = nn.functional.max_pool2d(nn.functional.pad(squares.float(), [4] * 4), 5, stride=1)
    assert bool((spread.bool() == gone).all()), "each that is gone lies in a whole square"
    assert torch.equal(drop.eval()(x), x)
    assert DropBlock(0.5, 9).train()(torch.ones(1, 1, 2, 2)).shape == (1, 1, 2, 2)


def test_backbones_are_built_by_name() -> None:
    spec = LearnerSpec(learner="protonet", backbone="resnet12", size=20, channels=3, filters=4)
    assert spec.build()(make_task((3, 20, 20), way=2).to(torch.float32)).shape[-1] == 2
    with torch.device("meta"):
        spec = LearnerSpec(learner="r2d2", backbone="wrn-28-10", size=32, channels=3)
        wide = spec._backbone(pretrained=False)
    assert wide.out_features == 640
