"""Conditional neural process: a training set becomes the mean of its encoded examples."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import NormedEncoder, embed, feature_size
from quickstudy.functional import class_means
from quickstudy.learner import MetaLearner, Phi, class_labels, ways
from quickstudy.nn import MLP

__all__ = ["ConditionalNeuralProcess"]


class ConditionalNeuralProcess(MetaLearner):
    """Conditional neural process (Garnelo, Rosenbaum, Maddison et al. 2018, arXiv:1807.01613)::

        r_s = h(e(x_s), y_s)                                                      (eq. 1)
        r   = mean of r_s over the support                                        (eq. 2)
        y   = g(e(x), r)                                                          (eq. 3)

    In classification ``r`` is the means of each class, side by side, as in section 4.3: nothing
    for a class the task does not have.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        outputs: most classes of a task, or the size ``d`` of a regression target.
        width: of ``r_s`` and of the hidden layers of ``h`` and ``g``.
        regression: whether it is for regression; the two forms differ in ``h`` and ``r``.

    ``phi``: ``{"r": [T,width], or [T,outputs*width] in classification, "classes": [T,N]}``.

    Differs from the paper: in regression the mean squared error is minimised and no variance
    predicted, so that all learners are measured the same way; embeddings pass a batch norm, as in
    `BlackBoxLSTM`.

    Example:
        >>> from quickstudy.nn import MLP
        >>> learner = ConditionalNeuralProcess(MLP(1, [40], 40), outputs=1, regression=True)
    """

    label_equivariant = False

    def __init__(
        self, encoder: nn.Module, *, outputs: int, width: int = 128, regression: bool = False
    ) -> None:
        super().__init__()
        if min(outputs, width) < 1:
            raise ValueError("outputs and width must each be at least 1")
        D = feature_size(encoder)
        self.encoder = NormedEncoder(encoder)
        self.outputs = outputs
        self.regression = regression
        self.h = MLP(D + outputs if regression else D, [width, width], width)
        self.g = MLP(D + (width if regression else outputs * width), [width, width], outputs)

    @property
    def max_way(self) -> int | None:
        return self.outputs

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        if self.regression and n_way is not None:
            raise ValueError("this ConditionalNeuralProcess was built for regression (n_way=None)")
        self.check_task(support_x, support_y, n_way, regression=self.regression)
        z = embed(self.encoder, support_x)
        if n_way is None:
            return {"r": _each(self.h, torch.cat([z, support_y], dim=-1)).mean(1)}
        means = class_means(_each(self.h, z), support_y, n_way)
        r = F.pad(means, (0, 0, 0, self.outputs - n_way)).flatten(1)
        return {"r": r} | class_labels(support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        z = embed(self.encoder, query_x)
        r = phi["r"].unsqueeze(1).expand(-1, z.shape[1], -1)
        return _each(self.g, torch.cat([z, r], dim=-1))[..., : ways(phi)]


def _each(network: nn.Module, x: Tensor) -> Tensor:
    """Apply a network to every example: ``[T,n,...] -> [T,n,D]``."""
    return network(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # type: ignore[no-any-return]
