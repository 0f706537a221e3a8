"""A learner as a regressor."""

import os
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from quickstudy.estimator.few_shot import FewShot, whole
from quickstudy.estimator.inputs import Array, plain
from quickstudy.heads import describe_learner
from quickstudy.learner import MetaLearner
from quickstudy.learners import Scratch
from quickstudy.names import HEAD_NAMES
from quickstudy.nn import MLP

__all__ = ["Regressor"]


class Regressor(FewShot):
    """`FewShotRegressor` without scikit-learn."""

    saved_as = "FewShotRegressor"

    def __init__(
        self,
        learner: MetaLearner | str | os.PathLike[str] | None = None,
        *,
        batch_size: int = 256,
        device: str | None = None,
        table: bool = False,
        random_state: int = 0,
    ) -> None:
        self.learner = learner
        self.batch_size = batch_size
        self.device = device
        self.table = table
        self.random_state = random_state

    @whole
    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Adapt to examples and their targets ``[n]`` or ``[n,d]``, forgetting any before."""
        if self.learner is not None:
            self._build()
        elif hasattr(self, "learner_"):
            del self.learner_
        x, targets = self._read(X, y)
        self.flat_ = targets.ndim == 1
        targets = targets.astype(np.float64).reshape(len(targets), -1)
        self.outputs_ = targets.shape[1]
        if self.learner is None:
            self._build()
        self._adapt(plain(x), targets, None)
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Add examples and adapt anew."""
        if not hasattr(self, "phi_"):
            return self.fit(X, y)
        x, targets = self._read(X, y, reset=False)
        targets = targets.astype(np.float64).reshape(len(targets), -1)
        if targets.shape[1] != self.outputs_:
            raise ValueError(
                f"y has {targets.shape[1]} targets an example; fitted with {self.outputs_}"
            )
        x, targets = (
            np.concatenate(pair)
            for pair in ((self.support_x_, plain(x)), (self.support_y_, targets))
        )
        self._adapt(x, targets, None)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """The targets ``[n]`` or ``[n,d]``, as fitted."""
        answer = self._answer(X)
        return answer[:, 0] if self.flat_ else answer

    def _described(self, name: str) -> tuple[dict[str, Any], MetaLearner]:
        if name in HEAD_NAMES:
            raise ValueError(
                f"{name} is a head of classifiers; a regressor takes what was trained on regression"
            )
        return describe_learner(name)

    def _default(self) -> MetaLearner:
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            network = MLP(self.n_features_in_, [64, 64], self.outputs_).double()
        return Scratch(network, inner_lr=1e-2, inner_steps=300)

    def _state(self) -> dict[str, Any]:
        return {
            **super()._state(),
            "flat": self.flat_,
            "outputs": self.outputs_,
            "random_state": self.random_state,
            "settings": {"table": self.table},
        }

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.flat_, self.outputs_ = state["flat"], state["outputs"]
        self.random_state = state["random_state"]
