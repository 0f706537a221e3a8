"""Photos, drawings and sentences as a step of a scikit-learn pipeline."""

from collections.abc import Iterable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin

from quickstudy.encoders import Encoder, FeatureCache, encode, load_encoder
from quickstudy.examples import Item, as_example

__all__ = ["Features"]


class Features(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What an encoder makes of examples, for estimators that take numbers; it learns nothing.

    Args:
        encoder: an encoder, or its name (`quickstudy.encoders.load_encoder`).
        device: where it computes, if given by name.
        cache: keep features on disk, so that a search or a cross-validation works them out once.

    Attributes:
        encoder_: the encoder.

    Example:
        >>> from quickstudy.estimator import FewShotClassifier
        >>> from sklearn.pipeline import make_pipeline
        >>> red, blue = np.tile([[1.0, 0, 0]], (8, 8, 1)), np.tile([[0, 0, 1.0]], (8, 8, 1))
        >>> model = make_pipeline(Features("pixels:4", cache=False), FewShotClassifier("ridge"))
        >>> model.fit([red, blue], ["red", "blue"]).predict([red * 0.7]).tolist()
        ['red']
    """

    encoder_: Encoder

    def __init__(
        self, encoder: Encoder | str = "minilm", *, device: str | None = None, cache: bool = True
    ) -> None:
        self.encoder = encoder
        self.device = device
        self.cache = cache

    def __getstate__(self) -> dict[str, Any]:
        state = {**super().__getstate__()}
        if isinstance(self.encoder, str):
            state.pop("encoder_", None)  # loaded by its name again
        return state

    def fit(self, X: Iterable[Item], y: Any = None) -> Self:
        """Load the encoder."""
        encoder = self.encoder
        self.encoder_ = load_encoder(encoder, self.device) if isinstance(encoder, str) else encoder
        return self

    def transform(self, X: Iterable[Item]) -> NDArray[np.float32]:
        """Features ``[n,D]`` of texts, paths, images or arrays (`as_example`).

        Raises:
            ValueError: one of them cannot be read, or they are a table of several columns.
        """
        if not hasattr(self, "encoder_"):
            self.fit(X)
        columns = getattr(X, "columns", None)
        if columns is not None and len(columns) != 1:
            raise ValueError(
                f"X is a table of {len(columns)} columns; expected the one with the examples"
            )
        X = X if columns is None else X[columns[0]]  # type: ignore[index]
        examples = (as_example(item, f"example {i + 1}") for i, item in enumerate(X))
        cache = FeatureCache() if self.cache else None
        rows = [z.reshape(-1) for _, z in encode(self.encoder_, examples, cache=cache)]
        if not rows:
            raise ValueError("there are no examples")
        return np.stack(rows)
