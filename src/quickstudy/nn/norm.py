"""Batch normalisation that says whose statistics it uses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.policy import Policy

__all__ = [
    "BatchNorm",
    "Policy",
    "Source",
    "adopt_batch_norm",
    "batch_norm_policies",
    "batch_norm_policy",
    "mixes_examples",
    "norm_parameters",
    "set_batch_norm_policy",
    "statistics_from",
]

Source = Literal["batch", "record", "stored"]


class BatchNorm(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015) over every dimension but the second.

    In few-shot learning the statistics decide what is measured. Normalising all queries of a
    task together lets each one see the others (*transductive*) and raises accuracy; most
    published MAML figures do so without a word. Here the policy is named:

    - ``"inductive"``: a query's answer never depends on other queries. Training uses the batch
      and keeps running averages; evaluation uses those. A learner that adapts the network itself
      (MAML) uses the support set's statistics for queries instead, see `statistics_from`.
    - ``"transductive"``: always the statistics of the batch at hand. Training keeps the averages,
      too, so that the same weights can be evaluated inductively.

    Args:
        channels: size of dimension 1 of the input ``[n, channels, ...]``.
        policy: one of the two above.
        momentum: weight of a new batch in the running averages.
        eps: added to the variance.
        scale: learn a scale beside the shift; without, it stays 1.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        policy: Policy = "inductive",
        momentum: float = 0.1,
        eps: float = 1e-5,
        scale: bool = True,
    ) -> None:
        super().__init__()
        self.policy: Policy = policy
        self.momentum = momentum
        self.eps = eps
        self.source: Source | None = None
        self.weight = nn.Parameter(torch.ones(channels), requires_grad=scale)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.source == "record":
            self.running_mean, self.running_var = self.statistics(x)
        if self.source == "record" or not self.by_batch:
            return self.normalise(x, self.running_mean, self.running_var, self.weight, self.bias)
        self.check(x)
        mean, var = (self.running_mean, self.running_var) if self.averages else (None, None)
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)

    @property
    def by_batch(self) -> bool:
        """Whether the batch at hand normalises."""
        if self.source is None:
            return self.training or self.policy == "transductive"
        return self.source != "stored"

    @property
    def averages(self) -> bool:
        """Whether a batch moves the running averages."""
        return self.source is None and self.training

    def keep(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Do with a batch's statistics, of ``count`` values per channel, what `forward` would."""
        if self.source == "record":
            self.running_mean, self.running_var = mean, var
        elif self.averages:
            unbiased = var.detach() * (count / (count - 1))
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(unbiased, self.momentum)

    def statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each channel of ``x [n,C,...]``."""
        var, mean = torch.var_mean(x, [d for d in range(x.dim()) if d != 1], correction=0)
        return mean, var

    def normalise(
        self, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor, bias: Tensor
    ) -> Tensor:
        """``x [n,C,...]`` by the statistics, scale and shift given, each ``[C]``."""
        scale = weight * torch.rsqrt(var + self.eps)
        shift = bias - mean * scale
        shape = [1, -1] + [1] * (x.dim() - 2)
        return x * scale.view(shape) + shift.view(shape)

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless ``x`` can be normalised by its own batch."""
        if x.numel() == x.shape[1]:
            raise ValueError(
                "one example cannot be normalised by its own batch: give batch norm several "
                "examples, or evaluate with the inductive policy"
            )

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, policy={self.policy!r}"


def _layers(module: nn.Module) -> list[BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm)]


def norm_parameters(module: nn.Module) -> set[str]:
    """The names of the scales and shifts of the `BatchNorm` layers inside ``module``."""
    return {
        f"{name}.{part}" if name else part
        for name, layer in module.named_modules()
        if isinstance(layer, BatchNorm)
        for part, _ in layer.named_parameters()
    }


def batch_norm_policies(module: nn.Module) -> dict[BatchNorm, Policy]:
    """The policy of each `BatchNorm` layer inside ``module``, which may be of several networks."""
    return {layer: layer.policy for layer in _layers(module)}


def batch_norm_policy(module: nn.Module) -> Policy | None:
    """The policy of the `BatchNorm` layers inside ``module``; ``None`` if it has none."""
    policies = {*batch_norm_policies(module).values()}
    if len(policies) > 1:
        raise ValueError("the batch norm layers of one network follow different policies")
    return policies.pop() if policies else None


def mixes_examples(module: nn.Module) -> bool:
    """Whether PyTorch's own batch norm in ``module`` uses the batch at hand in evaluation, too."""
    return any(
        isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None
        for layer in module.modules()
    )


def set_batch_norm_policy(module: nn.Module, policy: Policy) -> None:
    """Give every `BatchNorm` layer inside ``module`` this policy."""
    if policy not in ("inductive", "transductive"):
        raise ValueError(f"batch norm policy {policy!r}; expected 'inductive' or 'transductive'")
    for layer in _layers(module):
        layer.policy = policy


def adopt_batch_norm(module: nn.Module, policy: Policy = "inductive") -> nn.Module:
    """Put `BatchNorm` layers in the place of PyTorch's own inside a network of others, as timm's.

    They share weights and statistics with those that they replace. What a layer does after
    normalising (timm's ``BatchNormAct2d``) is kept.

    Returns:
        The network.

    Raises:
        ValueError: a layer keeps no running averages or has no scale and shift.
    """
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm):
            continue
        if layer.running_mean is None or layer.weight is None:
            raise ValueError(f"{name} has no running averages, or no scale: it stays as it is")
        momentum = 0.1 if layer.momentum is None else layer.momentum
        own = BatchNorm(layer.num_features, policy=policy, momentum=momentum, eps=layer.eps)
        own.weight, own.bias = layer.weight, layer.bias
        own.running_mean, own.running_var = layer.running_mean, layer.running_var  # type: ignore[assignment]
        own.train(layer.training)
        after = [
            part for part in (getattr(layer, "drop", None), getattr(layer, "act", None)) if part
        ]
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Sequential(own, *after) if after else own)
    return module


@contextmanager
def statistics_from(module: nn.Module, source: Source) -> Iterator[None]:
    """Within the block, every `BatchNorm` inside ``module`` normalises by ``source``.

    ``"batch"``: the batch at hand. ``"record"``: the same, and the layer's buffers become exactly
    those statistics, with their gradient. ``"stored"``: what the buffers hold.
    Used with `torch.func.functional_call`, whose dictionary of buffers receives the record.
    """
    layers = _layers(module)
    before = [layer.source for layer in layers]
    for layer in layers:
        layer.source = source
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.source = value
