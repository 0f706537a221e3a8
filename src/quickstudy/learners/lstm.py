"""The black box: an LSTM reads the training set and then answers."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import NormedEncoder, embed, feature_size
from quickstudy.learner import MetaLearner, Phi, class_labels, ways

__all__ = ["BlackBoxLSTM"]


class BlackBoxLSTM(MetaLearner):
    """Read the support as a sequence, then answer with the queries' labels zeroed.

    The black-box learner of the lecture (after Hochreiter et al. 2001, and the LSTM baseline of
    Santoro et al. 2016)::

        (h, c) = LSTM over [e(x_s), onehot(y_s)],  s = 1..S        phi = [h, c]
        logits = W h',  h' = LSTM step from (h, c) on [e(x_q), 0]  theta_p = everything learned

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        outputs: most classes of a task (the width of the one-hot label), or the size ``d`` of a
            regression target.
        hidden: size of the LSTM's state.
        layers: LSTM layers.
        queries: ``"alone"`` reads every query from the support's state, so that no answer depends
            on another query. ``"sequence"`` reads all queries one after another, as the lecture
            draws it: an answer then depends on the queries before it.

    ``phi``: ``{"h": [T,layers,hidden], "c": [T,layers,hidden], "classes": [T,N]}``.

    Differs from the papers: Santoro et al. give the label of the previous example with each new
    one; here an example comes with its own label and queries follow, as in the lecture. And the
    start is better conditioned: embeddings pass through a batch norm, the label's input weights
    are larger by sqrt(D), so that label and embedding weigh the same, and the forget gate's bias
    is one. Without these it was still at chance after the 800 steps that take it to 89%
    (docs/experiments.md).

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = BlackBoxLSTM(Conv4(), outputs=5)
    """

    order_invariant = False
    label_equivariant = False
    class_balanced = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        outputs: int,
        hidden: int = 256,
        layers: int = 1,
        queries: Literal["alone", "sequence"] = "alone",
    ) -> None:
        super().__init__()
        features = feature_size(encoder)
        if min(outputs, hidden, layers) < 1:
            raise ValueError("outputs, hidden and layers must each be at least 1")
        if queries not in ("alone", "sequence"):
            raise ValueError(f"queries is {queries!r}; expected 'alone' or 'sequence'")
        self.encoder = NormedEncoder(encoder)
        self.lstm = nn.LSTM(features + outputs, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, outputs)
        self.outputs = outputs
        self.queries = queries
        with torch.no_grad():
            for name, p in self.lstm.named_parameters():
                if name == "weight_ih_l0":
                    p[:, features:] *= features**0.5
                if name.startswith("bias_ih"):
                    p[hidden : 2 * hidden] = 1

    @property
    def max_way(self) -> int | None:
        return self.outputs

    @property
    def transductive(self) -> bool:
        return self.queries == "sequence" or super().transductive

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        z = embed(self.encoder, support_x)
        label = support_y if n_way is None else F.one_hot(support_y, self.outputs)
        _, (h, c) = self.lstm(torch.cat([z, label.to(z.dtype)], dim=-1))
        phi = {"h": h.transpose(0, 1), "c": c.transpose(0, 1)}
        return phi | class_labels(support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        z = embed(self.encoder, query_x)
        T, Q, _ = z.shape
        steps = torch.cat([z, z.new_zeros(T, Q, self.outputs)], dim=-1)
        h, c = phi["h"], phi["c"]
        if self.queries == "alone":
            steps = steps.flatten(0, 1).unsqueeze(1)
            h, c = h.repeat_interleave(Q, 0), c.repeat_interleave(Q, 0)
        state = (h.transpose(0, 1).contiguous(), c.transpose(0, 1).contiguous())
        out, _ = self.lstm(steps, state)
        return self.head(out.reshape(T, Q, -1))[..., : ways(phi)]  # type: ignore[no-any-return]
