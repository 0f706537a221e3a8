"""SimpleShot: pretrain on all training classes, then nearest centroid of normalised features."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import check_vectors, embed, feature_size, pretraining_loss
from quickstudy.functional import class_means, size_offsets, squared_distances
from quickstudy.learner import MetaLearner, Phi
from quickstudy.task import Task

__all__ = ["SimpleShot"]


class SimpleShot(MetaLearner):
    """SimpleShot with CL2N features (Wang, Chao, Weinberger & van der Maaten 2019).

    arXiv:1911.04623. Trained as `Baseline`, by cross-entropy over all training classes; a new
    task is answered by the nearest centroid of centred, normalised features (section 3)::

        z   = (e(x) - m) / ||e(x) - m||,    m = mean feature of the training classes
        c_n = mean of z_s over the support examples of class n
        logits[n] = -||z - c_n||^2

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        classes: how many training classes there are in all.
        momentum: weight of a new batch in the running average ``m``.

    ``phi``: ``{"centroids": [T,N,D], "offset": [T,N]}``, the latter for classes of unequal size, as
    in `ProtoNet`.

    Training needs to know which class each label stands for: `Task.classes`, which the samplers
    fill in.

    Differs from the paper: ``m`` is a running average kept in training, not a pass over all
    training images afterwards.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = SimpleShot(Conv4(), classes=964)
    """

    mean: Tensor

    def __init__(self, encoder: nn.Module, *, classes: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(feature_size(encoder), classes)
        if classes < 2 or not 0 < momentum <= 1:
            raise ValueError(
                f"classes is {classes} and momentum {momentum}; expected at least 2 classes and a "
                "momentum above 0, at most 1"
            )
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(feature_size(encoder)))

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        z = self._features(support_x)
        return {
            "centroids": class_means(z, support_y, n_way or 0),
            "offset": size_offsets(z, support_y, n_way or 0),
        }

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        distances = squared_distances(self._features(query_x), phi["centroids"])
        offset: Tensor = phi["offset"]
        return offset.unsqueeze(1) - distances

    def loss(self, task: Task) -> Tensor:
        """Cross-entropy over all training classes, a scalar; in training it also moves ``m``."""

        def encode(x: Tensor) -> Tensor:
            z: Tensor = check_vectors(self.encoder(x), x)
            if self.training:
                self.mean.lerp_(z.detach().mean(0).to(self.mean.dtype), self.momentum)
            return z

        return pretraining_loss(encode, self.classifier, task)

    def _features(self, x: Tensor) -> Tensor:
        return F.normalize(embed(self.encoder, x) - self.mean, dim=-1)
