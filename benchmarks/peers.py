"""What others would run: MAML steps and a ProtoNet step as each peer's documentation shows them.

Every function takes the network of `plain_network`, which has the weights of ours, and leaves the
gradients on its parameters. learn2learn 0.2.0 does not build on Python 3.11, so its clone-and-adapt
is written out here; easyfsl's ProtoNet likewise, in the shape of its `PrototypicalNetworks`.
"""

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor, nn

from quickstudy.task import Task

with warnings.catch_warnings():  # of its doc strings, where Python compiles them for the first time
    warnings.simplefilter("ignore", SyntaxWarning)
    import higher

INNER_LR = 0.4


def plain_network(
    ours: nn.Module, *, pool: bool, outputs: int | None, size: int = 28
) -> nn.Sequential:
    """The weights of ``Sequential(Conv4(), Linear())``, or of `Conv4`, in layers of `torch.nn`."""
    layers: list[nn.Module] = []
    filters, channels = next(ours.parameters()).shape[:2]
    for block in range(4):
        layers += [
            nn.Conv2d(filters if block else channels, filters, 3, 1 if pool else 2, padding=1),
            nn.BatchNorm2d(filters, track_running_stats=False),
            nn.ReLU(),
            nn.MaxPool2d(2) if pool else nn.Identity(),
        ]
    layers += [nn.Flatten()] if pool else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if outputs is not None:
        layers.append(nn.LazyLinear(outputs))
    network = nn.Sequential(*layers)
    network(torch.zeros(2, channels, size, size))
    for theirs, p in zip(network.parameters(), ours.parameters(), strict=True):
        theirs.data = p.detach().clone(memory_format=torch.contiguous_format)
    return network


def each(task: Task) -> Iterator[tuple[Tensor, ...]]:
    return zip(*task.tensors(), strict=True)


def clone(module: nn.Module) -> nn.Module:
    """A copy whose parameters are differentiable clones, as learn2learn's `clone_module`."""
    other = module.__new__(type(module))
    other.__dict__ = module.__dict__.copy()
    other._parameters = {k: None if p is None else p.clone() for k, p in module._parameters.items()}
    other._modules = {k: None if m is None else clone(m) for k, m in module._modules.items()}
    return other


def update(module: nn.Module, moves: dict[int, Tensor]) -> None:
    for key, p in module._parameters.items():
        if p is not None:
            module._parameters[key] = p - moves[id(p)]
    for child in module._modules.values():
        update(child, moves)


def learn2learn(network: nn.Module, task: Task, steps: int) -> None:
    """``learner = maml.clone()``; ``learner.adapt(loss)``; ``error.backward()``, task by task."""
    for x, y, query_x, query_y in each(task):
        learner = clone(network)
        for _ in range(steps):
            parameters = list(learned(learner))
            loss = F.cross_entropy(learner(x), y)
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            moves = {id(p): INNER_LR * g for p, g in zip(parameters, gradients, strict=True)}
            update(learner, moves)
        (F.cross_entropy(learner(query_x), query_y) / len(task)).backward()


def learned(module: nn.Module) -> list[Tensor]:
    own = [p for p in module._parameters.values() if p is not None]
    return own + [p for child in module._modules.values() for p in learned(child)]


def with_higher(network: nn.Module, task: Task, steps: int) -> None:
    """``with higher.innerloop_ctx(...) as (fnet, diffopt): diffopt.step(loss)``."""
    optimizer = torch.optim.SGD(network.parameters(), lr=INNER_LR)
    for x, y, query_x, query_y in each(task):
        with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (fast, inner):
            for _ in range(steps):
                inner.step(F.cross_entropy(fast(x), y))
            (F.cross_entropy(fast(query_x), query_y) / len(task)).backward()


def with_torchopt(network: nn.Module, task: Task, steps: int) -> None:
    """``inner_opt = torchopt.MetaSGD(net)``; ``inner_opt.step(loss)``; the state put back."""
    inner = torchopt.MetaSGD(network, lr=INNER_LR)
    start = torchopt.extract_state_dict(network, by="reference", detach_buffers=True)
    start_inner = torchopt.extract_state_dict(inner, by="reference")
    total = torch.zeros(())
    for x, y, query_x, query_y in each(task):
        for _ in range(steps):
            inner.step(F.cross_entropy(network(x), y))
        total = total + F.cross_entropy(network(query_x), query_y) / len(task)
        torchopt.recover_state_dict(network, start)
        torchopt.recover_state_dict(inner, start_inner)
    total.backward()


def easyfsl(network: nn.Module, task: Task) -> None:
    """Prototypes label by label, minus the Euclidean distance squared as scores."""
    for x, y, query_x, query_y in each(task):
        features = network(x)
        prototypes = torch.cat(
            [features[torch.nonzero(y == label)].mean(0) for label in range(len(y.unique()))]
        )
        scores = -(torch.cdist(network(query_x), prototypes) ** 2)
        (F.cross_entropy(scores, query_y) / len(task)).backward()


MAML_PEERS: dict[str, Callable[[nn.Module, Task, int], None]] = {
    "clone and adapt (learn2learn)": learn2learn,
    "higher": with_higher,
    "torchopt": with_torchopt,
}
