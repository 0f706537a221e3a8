"""P>M>F: pretrain elsewhere, meta-train as ProtoNet, fine-tune the encoder to each new task."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import check_vectors
from quickstudy.functional import class_means, class_weights, example_loss
from quickstudy.inner import Adam, Parameters, State, StepLoss, grad, unroll
from quickstudy.inner.networks import call_with, in_turn
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import Task

__all__ = ["PMF"]


class PMF(MetaLearner):
    """Pretrain, meta-train, fine-tune (Hu, Li, Stühmer, Kim & Hospedales 2022, arXiv:2204.07305).

    The encoder comes pretrained (P). Training is that of a prototypical network with the cosine
    (M). A new task fine-tunes the whole encoder, to classify changed pictures of the support by
    the prototypes of the unchanged ones (F; the paper's section 3)::

        c_n       = mean of e(x_s) over the support examples of class n
        logits[n] = a * cos(e(x), c_n)
        phi       = inner_steps of Adam on the cross-entropy of change(x_s), over the weights of e

    ``change`` moves all pictures by up to an eighth of their side and changes their brightness,
    colour and contrast, differently at each step. Examples that are no pictures stay unchanged.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]``. What requires no gradient in it stays.
        inner_lr: Adam's; depends on the tasks, so let `evaluation.choose` find it on validation
            tasks. 0 means no fine-tuning.
        inner_steps: of fine-tuning; the paper takes 50. The default, none, is a prototypical
            network, which is what validation during the training should see.
        scale: where ``a``, which is learned, starts.

    ``phi``: ``{"network": fine-tuned weights by name, each [T,...], "prototypes": [T,N,D]}``.

    Differs from the paper: in one step all pictures change in the same way, so that their order
    and the other tasks do not matter. The paper chooses the rate on a few validation tasks or, in
    its authors' later code, on the support.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = PMF(Conv4(), inner_steps=50)
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        inner_lr: float = 1e-3,
        inner_steps: int = 0,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        if inner_lr < 0 or inner_steps < 0 or not 0 < scale < math.inf:
            raise ValueError(
                f"inner_lr is {inner_lr}, inner_steps {inner_steps} and scale {scale}; expected "
                "neither of the first two below 0, and a positive scale"
            )
        self.encoder = encoder
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.scale = nn.Parameter(torch.tensor(scale))

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """A step of Adam on the cross-entropy of changed pictures, of the whole encoder."""
        direction, state = Adam().direction(grad(support_loss, phi), state, step)
        return {k: p.sub(direction[k], alpha=self.inner_lr) for k, p in phi.items()}, state

    @in_turn
    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        n_way = n_way or 0
        each = zip(support_x, support_y, strict=True)
        networks = [self._fine_tune(x, y, n_way) for x, y in each]
        return self._phi(networks, support_x, support_y, n_way)

    @in_turn
    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return self._logits(self._embed(phi["network"], query_x), phi["prototypes"])

    def loss(self, task: Task) -> Tensor:
        """The cross-entropy of the queries, a scalar, without fine-tuning: meta-training's."""
        self.check_task(task.support_x, task.support_y, task.n_way)
        networks = [_trainable(self.encoder)] * len(task)
        phi = self._phi(networks, task.support_x, task.support_y, task.n_way or 0)
        return example_loss(self.predict(phi, task.query_x), task.query_y)

    def _phi(
        self, networks: list[Parameters], support_x: Tensor, support_y: Tensor, n_way: int
    ) -> Phi:
        network = {name: torch.stack([n[name] for n in networks]) for name in networks[0]}
        z = self._embed(network, support_x)
        return {"network": network, "prototypes": class_means(z, support_y, n_way)}

    @torch.no_grad()
    def _fine_tune(self, x: Tensor, y: Tensor, n_way: int) -> Parameters:
        """The weights for one task ``[S,...]``, ``[S]``."""
        start = {name: p.detach() for name, p in _trainable(self.encoder).items()}
        if not (self.inner_steps and self.inner_lr):
            return start
        if not start:
            raise ValueError("the encoder has no weights to fine-tune: none, or all of them frozen")
        encoder = copy.deepcopy(self.encoder).eval()
        weight = class_weights(y.unsqueeze(0), n_way)

        def support_loss(phi: Parameters, step: int) -> Tensor:
            images = torch.cat([x, _changed(x, step)])
            z = torch.unflatten(call_with(encoder, {**phi}, images), 0, (2, len(x)))
            means = class_means(z[:1], y.unsqueeze(0), n_way)
            return example_loss(self._logits(z[1:], means)[0], y, weight)

        phi, _ = unroll(self.inner_step, support_loss, start, steps=self.inner_steps)
        return phi

    def _embed(self, network: Parameters, x: Tensor) -> Tensor:
        """Each task's examples ``[T,n,...]``, encoded with its weights: ``[T,n,D]``."""
        return torch.stack(
            [
                check_vectors(
                    call_with(self.encoder, {k: p[t] for k, p in network.items()}, task),
                    task,
                )
                for t, task in enumerate(x)
            ]
        )

    def _logits(self, z: Tensor, means: Tensor) -> Tensor:
        return self.scale * F.normalize(z, dim=-1) @ F.normalize(means, dim=-1).mT


def _trainable(encoder: nn.Module) -> Parameters:
    return {name: p for name, p in encoder.named_parameters() if p.requires_grad}


def _changed(x: Tensor, step: int) -> Tensor:
    """Pictures ``[S,C,H,W]`` all moved and recoloured in the same way; anything else unchanged."""
    if x.dim() != 4:
        return x
    change = torch.rand(5, generator=torch.Generator().manual_seed(step)) * 2 - 1
    down, right, brightness, colour, contrast = change.tolist()
    x = x + brightness / 2
    grey = x.mean(1, keepdim=True)
    x = grey + (1 + colour) * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (1 + contrast / 2) * (x - mean)
    height, width = x.shape[2:]
    top, left = height // 8, width // 8
    padded = F.pad(x, (left, left, top, top))
    first, start = top + round(top * down), left + round(left * right)
    return padded[..., first : first + height, start : start + width]
