"""The plain baseline: pretrain on all training classes, then fit a linear layer to the support."""

import torch
from torch import Tensor, nn

from quickstudy.embedding import embed, feature_size, pretraining_loss
from quickstudy.functional import class_weights, example_loss, linear_logits
from quickstudy.inner import SGD, Parameters, State, StepLoss, check_inner, grad, unroll
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import Task

__all__ = ["Baseline"]


class Baseline(MetaLearner):
    """Baseline of "A closer look at few-shot classification" (Chen et al. 2019, arXiv:1904.04232).

    No episode matters in training: a classifier over *all* training classes is learned by ordinary
    cross-entropy. A new task keeps the encoder and gets a new linear layer (section 3.2)::

        training    L = -log softmax(W_b e(x))[class of x]
        phi         argmin over (W, b) of the support's cross-entropy, by gradient descent from 0

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        classes: how many training classes there are in all.
        inner_lr: of the new layer's gradient descent, with momentum 0.9.
        inner_steps: how many steps of it; may be changed afterwards.

    ``phi``: ``{"weight": [T,N,D], "bias": [T,N]}``.

    Training needs to know which class each label stands for: `Task.classes`, which the samplers
    fill in.

    Differs from the paper: the new layer starts at zero and sees the whole support at each of 100
    steps, where the paper draws mini-batches of 4 and decays weights. Its rate of 0.01 is kept.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = Baseline(Conv4(), classes=964)
    """

    def __init__(
        self, encoder: nn.Module, *, classes: int, inner_lr: float = 0.01, inner_steps: int = 100
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps)
        if classes < 2:
            raise ValueError(f"classes is {classes}; expected at least 2")
        self.encoder = encoder
        self.classifier = nn.Linear(feature_size(encoder), classes)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """A step of gradient descent with momentum on the support's cross-entropy."""
        direction, state = SGD(momentum=0.9).direction(grad(support_loss, phi), state, step)
        return {k: p.sub(direction[k], alpha=self.inner_lr) for k, p in phi.items()}, state

    @torch.no_grad()
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        z = embed(self.encoder, support_x)
        T, _, D = z.shape
        weight = class_weights(support_y, n_way)

        def support_loss(phi: Parameters, step: int) -> Tensor:
            return T * example_loss(linear_logits(phi, z), support_y, weight)

        start = {"weight": z.new_zeros(T, n_way or 0, D), "bias": z.new_zeros(T, n_way or 0)}
        phi, _ = unroll(self.inner_step, support_loss, start, steps=self.inner_steps)
        return phi

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return linear_logits(phi, embed(self.encoder, query_x))

    def loss(self, task: Task) -> Tensor:
        """Cross-entropy over all training classes, a scalar: support and query alike."""
        return pretraining_loss(self.encoder, self.classifier, task)
