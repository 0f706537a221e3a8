"""Matching networks: an answer is an attention-weighted vote of the support."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import embed, feature_size
from quickstudy.functional import class_sizes, vote
from quickstudy.learner import MetaLearner, Phi, class_labels

__all__ = ["MatchingNetwork"]


class MatchingNetwork(MetaLearner):
    """Matching network (Vinyals, Blundell, Lillicrap et al. 2016, arXiv:1606.04080)::

        a(x, x_s)    = softmax_s( scale * cosine(f(x), g(x_s)) )            (section 2.1.1)
        p(y = n | x) = sum of a(x, x_s) over s with y_s = n                 (eq. 1)

    With full-context embeddings (section 2.1.2 and appendix A) the support is read as a whole,
    and a query in its light::

        g(x_s, S) = h>_s + h<_s + g'(x_s)           a bidirectional LSTM over the support
        h^_k, c_k = LSTM(f'(x), [h_{k-1}, r_{k-1}], c_{k-1})                (eq. 3)
        h_k       = h^_k + f'(x)                 h_0 = c_0 = 0              (eq. 4)
        r_{k-1}   = sum_s softmax_s(h_{k-1} . g(x_s)) g(x_s)                (eq. 5 and 6)
        f(x, S)   = h_K

    Args:
        encoder: ``g'``, a module ``[n,...] -> [n,D]``, with ``out_features`` if ``reading_steps``.
        query_encoder: ``f'``. Default: the same as ``g'``, weights shared.
        reading_steps: ``K``; 0 for no full-context embeddings.
        scale: of the cosine. The paper's softmax has none (1), which bounds how sure it can be:
            with 60 classes of one example no answer could exceed 0.112.

    ``phi``: ``{"support": [T,S,D], "labels": [T,S], "classes": [T,N]}``. With full context the
    bidirectional LSTM reads the support in the order given, so that order matters.

    Differs from the paper: ``scale``.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = MatchingNetwork(Conv4(), reading_steps=5)
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        query_encoder: nn.Module | None = None,
        reading_steps: int = 0,
        scale: float = 10.0,
    ) -> None:
        super().__init__()
        if reading_steps < 0:
            raise ValueError(f"reading_steps is {reading_steps}; expected 0 or more")
        if not scale > 0:
            raise ValueError(f"scale is {scale}; expected a positive number")
        self.encoder = encoder
        self.query_encoder = query_encoder
        self.reading_steps = reading_steps
        self.scale = scale
        self.order_invariant = self.class_balanced = not reading_steps
        if reading_steps:
            D = feature_size(encoder)
            self.support_lstm = nn.LSTM(D, D, bidirectional=True, batch_first=True)
            self.query_lstm = nn.LSTMCell(2 * D, D)

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way)
        z = embed(self.encoder, support_x)
        if self.reading_steps:
            forward, backward = self.support_lstm(z)[0].chunk(2, dim=-1)
            z = z + forward + backward
        return {"support": z, "labels": support_y} | class_labels(support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        z = embed(self.query_encoder or self.encoder, query_x)
        g = phi["support"]
        if z.shape[-1] != g.shape[-1]:
            raise ValueError(
                f"query_encoder gives vectors of {z.shape[-1]} features and encoder of "
                f"{g.shape[-1]}: they must agree to be compared"
            )
        if self.reading_steps:
            sizes = class_sizes(phi["labels"], phi["classes"].shape[1]).to(g.dtype)
            z = self._read(z, g, -sizes.log().gather(1, phi["labels"]).unsqueeze(1))
        cosine = F.normalize(z, dim=-1) @ F.normalize(g, dim=-1).mT
        return vote(self.scale * cosine, phi["labels"], phi["classes"].shape[1])

    def _read(self, z: Tensor, g: Tensor, bias: Tensor) -> Tensor:
        """``f(x, S)``: ``[T,Q,D], [T,S,D] -> [T,Q,D]``; ``bias [T,1,S]`` evens out class sizes."""
        h = c = torch.zeros_like(z)
        for _ in range(self.reading_steps):
            r = (h @ g.mT + bias).softmax(-1) @ g
            step = torch.cat([z, r], dim=-1).flatten(0, 1)
            h, c = self.query_lstm(step, (h.flatten(0, 1), c.flatten(0, 1)))
            h, c = h.view_as(z) + z, c.view_as(z)
        return h
