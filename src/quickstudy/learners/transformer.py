"""In-context learning: a transformer reads the support, and queries attend to it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import NormedEncoder, embed, feature_size
from quickstudy.functional import class_sizes
from quickstudy.learner import MetaLearner, Phi, class_labels, ways

__all__ = ["InContextTransformer"]


class InContextTransformer(MetaLearner):
    """A transformer whose context is the training set.

    The black box of today (as in GPICL, Kirsch et al. 2022, arXiv:2212.04458, and prior-fitted
    networks, Mueller et al. 2022, arXiv:2112.10510); blocks as Vaswani et al. (2017), normalised
    before each part::

        token_s = W_x e(x_s) + W_y onehot(y_s)        support tokens attend to each other
        token_q = W_x e(x_q)                          query tokens attend to the support alone
        logits  = W_o norm(token_q after the last block)

    Without positions and with full attention, the support is a *set*: its order does not matter.
    A query never sees another query. ``causal=True`` lets a support example attend to itself and
    those before it only: the sequence model, which can read on as examples arrive.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        outputs: most classes of a task, or the size ``d`` of a regression target.
        width: of a token; divisible by ``heads``.
        layers: blocks.
        heads: of each attention.
        causal: attend to earlier support examples only.

    ``phi``: the keys and values of the support in each block,
    ``{"keys": [T,layers,heads,S,width/heads], "values": the same, "bias": [T,1,1,S], "classes":
    [T,N]}``. The bias divides attention by the size of an example's class, so that a large class
    gets no more of it.

    Differs from the papers: embeddings pass a batch norm, as in `BlackBoxLSTM`; there are no
    position embeddings, and a query does not attend to itself (its residual path carries it).

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = InContextTransformer(Conv4(), outputs=5)
    """

    label_equivariant = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        outputs: int,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if min(outputs, width, layers, heads) < 1:
            raise ValueError("outputs, width, layers and heads must each be at least 1")
        if width % heads:
            raise ValueError(f"width is {width}; expected a multiple of heads, {heads}")
        features = feature_size(encoder)
        self.encoder = NormedEncoder(encoder)
        self.embed_x = nn.Linear(features, width)
        self.embed_y = nn.Linear(outputs, width, bias=False)
        if not self.embed_y.weight.is_meta:
            nn.init.normal_(self.embed_y.weight)  # a one-hot column then weighs what an image does
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        self.outputs = outputs
        self.causal = causal
        self.order_invariant = not causal

    @property
    def max_way(self) -> int | None:
        return self.outputs

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        z = embed(self.encoder, support_x)
        label = support_y if n_way is None else F.one_hot(support_y, self.outputs)
        tokens = self.embed_x(z) + self.embed_y(label.to(z.dtype))
        bias = _share(support_y, n_way, tokens.dtype)
        mask = bias + _before(bias) if self.causal else bias
        keys, values = [], []
        for block in self.blocks:
            assert isinstance(block, _Block)
            key, value = block.keys_values(tokens)
            keys.append(key)
            values.append(value)
            tokens = block(tokens, key, value, mask)
        phi: Phi = {"keys": torch.stack(keys, dim=1), "values": torch.stack(values, dim=1)}
        return phi | {"bias": bias} | class_labels(support_y, n_way)

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        tokens = self.embed_x(embed(self.encoder, query_x))
        for layer, block in enumerate(self.blocks):
            tokens = block(tokens, phi["keys"][:, layer], phi["values"][:, layer], phi["bias"])
        return self.head(self.norm(tokens))[..., : ways(phi)]  # type: ignore[no-any-return]


class _Block(nn.Module):
    """Attention to given keys and values, then a multi-layer perceptron; both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """``[T,n,width] -> 2 x [T,heads,n,width/heads]``."""
        key, value = self.key_value(self.norm_attention(tokens)).chunk(2, dim=-1)
        return self._split(key), self._split(value)

    def forward(self, tokens: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        query = self._split(self.query(self.norm_attention(tokens)))
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        tokens = tokens + self.out(attended.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm_mlp(tokens))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        T, n, width = x.shape
        return x.view(T, n, self.heads, width // self.heads).transpose(1, 2)


def _share(support_y: Tensor, n_way: int | None, dtype: torch.dtype) -> Tensor:
    """``[T,1,1,S]``, added to attention: each class gets the same share, whatever its size."""
    T, S = support_y.shape[:2]
    if n_way is None:
        return torch.zeros(T, 1, 1, S, dtype=dtype, device=support_y.device)
    own = class_sizes(support_y, n_way).gather(1, support_y)
    return -own.to(dtype).log().view(T, 1, 1, S)


def _before(bias: Tensor) -> Tensor:
    """``[S,S]``, added to attention: an example sees itself and those before it."""
    S = bias.shape[-1]
    return bias.new_full((S, S), -torch.inf).triu(1)
