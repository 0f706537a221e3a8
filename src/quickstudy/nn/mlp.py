"""A plain multi-layer perceptron."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Linear layers with ReLU between them; the input is flattened.

    ``MLP(1, [40, 40], 1)`` is the sinusoid network of MAML (Finn et al. 2017, section 5.1).

    Args:
        in_features: size of one flattened example.
        hidden: size of each hidden layer.
        out_features: size of the output; no activation follows it.

    Shapes: ``[n, ...] -> [n, out_features]``.
    """

    def __init__(self, in_features: int, hidden: Sequence[int], out_features: int) -> None:
        super().__init__()
        sizes = [in_features, *hidden, out_features]
        if min(sizes) < 1:
            raise ValueError(f"every layer needs at least one unit; got sizes {sizes}")
        self.layers = nn.Sequential()
        for i, (a, b) in enumerate(pairwise(sizes)):
            if i:
                self.layers.append(nn.ReLU())
            self.layers.append(nn.Linear(a, b))
        self.in_features = in_features
        self.out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        return self.layers(x.flatten(1))  # type: ignore[no-any-return]

    def check(self, x: Tensor) -> None:
        """Raise ``ValueError`` unless ``x`` holds examples of the size this was built for."""
        if x.shape[1:].numel() != self.in_features:
            raise ValueError(
                f"MLP was built for {self.in_features} input features but got "
                f"{x.shape[1:].numel()} (an example of shape {list(x.shape[1:])})"
            )
