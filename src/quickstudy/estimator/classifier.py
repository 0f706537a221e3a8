"""A learner as a classifier: of labels of any type, calibrated on examples that it holds out."""

import math
import os
from collections.abc import Iterator
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from quickstudy.calibration import (
    expected_accuracy,
    expected_calibration_error,
    fit_temperature,
    probabilities,
    reject_threshold,
)
from quickstudy.estimator.few_shot import FewShot, whole
from quickstudy.estimator.inputs import Array, plain, white_of
from quickstudy.estimator.labels import labels_of, sort_of, weighted
from quickstudy.heads import describe_learner, mean_shot, usual_temperature
from quickstudy.learner import MetaLearner
from quickstudy.learners import ProtoNet
from quickstudy.names import Prior
from quickstudy.together import answer_together

__all__ = ["Classifier"]

_CALIBRATION = (
    "temperature_",
    "threshold_",
    "allowance_",
    "held_out_",
    "held_out_accuracy_",
    "calibration_error_",
)


class Classifier(FewShot):
    """`FewShotClassifier` without scikit-learn, whose import takes as long as torch's.

    Its examples are arrays ``[n,...]``.
    """

    saved_as = "FewShotClassifier"
    classes_: Array
    temperature_: float
    threshold_: float | None
    allowance_: float
    held_out_: int
    held_out_accuracy_: float | None
    calibration_error_: float | None

    def __init__(
        self,
        learner: MetaLearner | str | os.PathLike[str] | None = None,
        *,
        batch_size: int = 256,
        device: str | None = None,
        table: bool = False,
        penalty: float | None = None,
        prior: Prior = "alike",
    ) -> None:
        self.learner = learner
        self.batch_size = batch_size
        self.device = device
        self.table = table
        self.penalty = penalty
        self.prior = prior

    @whole
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Adapt to examples and their labels, forgetting any before.

        Args:
            X: examples, a row each.
            y: labels of any type ``[n]``; any number of each.
            sample_weight: how often each example counts ``[n]``, in whole numbers; of 0, it is
                left out. Classes count alike, whatever the sums of their weights.

        Raises:
            ValueError: the learner cannot take such examples or so many classes.
        """
        return self._fit(X, y, sample_weight, least=2)

    def _fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, least: int) -> Self:
        if self.prior not in get_args(Prior):
            raise ValueError(f"prior is {self.prior!r}; expected 'alike' or 'examples'")
        self._build()
        x, y = self._read(X, labels_of(y))
        x, y, self.support_weight_ = weighted(plain(x), y, sample_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < least:
            (only,) = self.classes_.tolist()
            raise ValueError(f"y has only 1 class, {only!r}; a classifier needs at least 2")
        if not isinstance(self.learner, MetaLearner):  # one's own takes what it likes
            self.white_ = white_of(self.learner_, x)
        self._learn(x, labels)
        return self

    @whole
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Add examples, of classes known or new, and adapt anew.

        Args:
            X: more examples.
            y: their labels; a label not seen before makes a new class.
            classes: on the first call, that there will be these: examples may then begin with one
                class alone. A class is in ``classes_`` from its first example.
            sample_weight: as for `fit`.

        Raises:
            ValueError: labels of another type than those of ``classes_``, or as for `fit`.
        """
        if not hasattr(self, "phi_"):
            if classes is not None:
                known = np.asarray(classes).tolist()
                if rest := {*labels_of(y).tolist()} - {*known}:
                    raise ValueError(f"y holds {rest.pop()!r}, which is none of {known}")
            return self._fit(X, y, sample_weight, least=2 if classes is None else 1)
        x, y = self._read(X, labels_of(y), reset=False)
        x, y, weight = weighted(self._as_before(plain(x)), y, sample_weight)
        if sort_of(self.classes_) != sort_of(y):
            new, known = y[:1].tolist()[0], self.classes_[:1].tolist()[0]
            raise ValueError(
                f"y holds {new!r}; expected labels of the type of {known!r}, as before"
            )
        if weight is not None or self.support_weight_ is not None:
            before, new = (
                np.ones(len(labels), np.int64) if each is None else each
                for labels, each in ((self.support_y_, self.support_weight_), (y, weight))
            )
            self.support_weight_ = np.concatenate([before, new])
        everything = np.concatenate([self.classes_[self.support_y_], y])
        self.classes_, labels = np.unique(everything, return_inverse=True)
        self._learn(np.concatenate([self.support_x_, x]), labels)
        return self

    @whole
    def forget(self, label: Any) -> Self:
        """Take all examples of a class away, and adapt anew to the others.

        Raises:
            ValueError: there is no such class, or fewer than 2 others.
        """
        self._check_is_fitted()
        labels = self.classes_[self.support_y_]
        keep = labels != label
        if keep.all():
            raise ValueError(
                f"there is no class {label!r}; there are: {', '.join(map(str, self.classes_))}"
            )
        if len(self.classes_) < 3:
            raise ValueError("there are only 2 classes; a classifier needs at least 2")
        self.classes_, rest = np.unique(labels[keep], return_inverse=True)
        if self.support_weight_ is not None:
            self.support_weight_ = self.support_weight_[keep]
        self._learn(self.support_x_[keep], rest)
        return self

    @whole
    def calibrate(self, false_reject: float = 0.0, *, folds: int = 10, seed: int = 0) -> Self:
        """Fit ``temperature_`` and ``threshold_`` to examples of the support, held out in turn.

        In each of at most ``folds`` rounds every class that has two examples or more gives up one
        at once (a tenth of them, of many), so that none is smaller than the others for it, and a
        learner that has not seen them answers them. Adding examples by `partial_fit` undoes this;
        call it again.

        Args:
            false_reject: how many examples of known classes `is_known` may reject, on average; 0
                for none. Needs ``1/false_reject - 1`` examples that can be held out.
            folds: the learner is adapted anew at most this many times.
            seed: of which examples go together.

        Raises:
            ValueError: the rate is not from 0 to 1.
        """
        self._check_is_fitted()
        if not 0 <= false_reject < 1:
            raise ValueError(f"false_reject is {false_reject}; expected at least 0 and below 1")
        if folds < 2:
            raise ValueError(f"folds is {folds}; expected at least 2")
        rounds = list(self._rounds(folds, seed))
        self._uncalibrated()
        if not rounds:
            return self
        logits, scaled, y, shot = (np.concatenate(part) for part in zip(*rounds, strict=True))
        self.held_out_ = len(y)
        fitted = fit_temperature(scaled, y)
        self.temperature_ *= fitted
        right = (scaled + fitted * self.log_prior()).argmax(1) == y
        self.held_out_accuracy_ = expected_accuracy(right, shot, mean_shot(self._sizes()))
        p = []
        for k, (_, own, _, _) in enumerate(rounds):  # each round's temperature is of the others
            others = [(z, labels) for i, (_, z, labels, _) in enumerate(rounds) if i != k]
            known = [np.concatenate(part) for part in zip(*others, strict=True)]
            p.append(self._chances(own, fit_temperature(*known) if known else 1.0))
        self.calibration_error_ = expected_calibration_error(np.concatenate(p), y)
        if false_reject:
            self._set_threshold(false_reject, logits, seed)
        return self

    def _set_threshold(self, rate: float, logits: Array, seed: int) -> None:
        """Of what was held out, whose ``logits`` these are; and for classes of one example.

        Nothing can be held out of those, but classes of more can be cut down to one.
        """
        self.threshold_ = reject_threshold(logits.max(1), rate)
        if self.threshold_ is None or min(self._sizes()) > 1:
            return
        familiar = []
        for rows, out in self._cut(seed):
            part = self._without(out)
            held = part._answer_numbers(self.support_x_[rows])
            familiar.append(held.max(1)[part._one(held.argmax(1))])
        one = reject_threshold(np.concatenate(familiar), rate)
        if one is not None:
            self.allowance_ = self.threshold_ - one

    def _cut(self, seed: int) -> Iterator[tuple[Array, Array]]:
        """Four times, half the classes of several examples cut down to one: whom that takes away.

        As indices, and as a mask of all.
        """
        rng = np.random.default_rng(seed)
        several = rng.permutation(np.flatnonzero(np.array(self._sizes()) > 1))
        halves = [half for half in np.array_split(several, 2) if len(half)]
        for k in range(4):
            out = np.zeros(len(self.support_y_), bool)
            for label in halves[k % len(halves)]:
                rows = rng.permutation(np.flatnonzero(self.support_y_ == label))
                out[rows[1:]] = True
            yield np.flatnonzero(out), out

    def _without(self, out: Array) -> "Classifier":
        """The same, learned without the examples that ``out`` marks."""
        part = Classifier(self.learner_, batch_size=self.batch_size, table=self.table)
        part.n_features_in_, part.learner_ = self.n_features_in_, self.learner_
        part.classes_, part.white_, part.device_ = self.classes_, self.white_, self.device_
        if self.support_weight_ is not None:
            part.support_weight_ = self.support_weight_[~out]
        part._adapt(self.support_x_[~out], self.support_y_[~out], len(self.classes_))
        return part

    def judge(self, X: ArrayLike, *, together: bool = False) -> tuple[Array, Array]:
        """What `predict_proba` and `is_known` say, at the price of one.

        Args:
            X: examples, a row each.
            together: each example shows the others what its class looks like, see
                `quickstudy.together.answer_together`. Then probabilities are right more often, the
                more so the fewer examples were fitted, and depend on what else is asked.

        Raises:
            ValueError: the learner has no encoder to find heaps with.
        """
        self._check_is_fitted()
        if together:
            self.check_compares()
        x = plain(self._read(X, reset=False)[0])
        logits = self._answer_numbers(x)
        known = self._familiarity(logits) >= (
            -np.inf if self.threshold_ is None else self.threshold_
        )
        if not together:
            return self._chances(logits, self.temperature_), known
        scaled, share = logits / self.temperature_, np.exp(self.log_prior())
        weight = np.eye(len(self.classes_))[self.support_y_]
        if self.support_weight_ is not None:
            weight *= self.support_weight_[:, None]
        support, examples = map(self._embedded, (self.support_x_, x))
        share = share / share.sum()
        return answer_together(scaled, support, weight, examples, known, share), known

    @property
    def compares(self) -> bool:
        """Whether the learner has an encoder that is the same for every task, and so can answer
        many together.
        """
        encoder = getattr(self.learner_, "encoder", None)
        return encoder is not None and "network" not in self.phi_

    def check_compares(self) -> None:
        """Refuse with a ``ValueError`` if this cannot answer many together."""
        if not self.compares:
            name = self.learner if isinstance(self.learner, str) else type(self.learner_).__name__
            raise ValueError(
                f"the head {name} has no encoder that is the same for every task, and answers each "
                "example alone; learn with another head, such as logistic, to answer many together"
            )

    def _embedded(self, x: Array) -> Array:
        """Examples as the learner's encoder has them, ``[n,D]``."""
        encoder: Any = self.learner_.encoder
        with self._asking():
            parts = torch.split(self._inputs(self._as_before(x)), self.batch_size)
            z: Array = torch.cat([encoder(part) for part in parts]).cpu().double().numpy()
        return z

    def _chances(self, logits: Array, temperature: float) -> Array:
        """Probabilities ``[n,N]``, by ``prior``."""
        return probabilities(logits + temperature * self.log_prior(), temperature)

    def log_prior(self) -> Array:
        """What is added to each class's logit, divided by the temperature, ``[N]``."""
        if self.prior == "alike":
            return np.zeros(len(self.classes_))
        return np.log(np.maximum(self._sizes(), 1) / np.sum(self._sizes()))  # type: ignore[no-any-return]

    def familiarity(self, X: ArrayLike) -> Array:
        """The largest logit of each example ``[n]``: how much it resembles any class.

        Probabilities say which class an example is of, if it is of any. If that class has one
        example only, ``allowance_`` is added.
        """
        return self._familiarity(self._answer(X))

    def _familiarity(self, logits: Array) -> Array:
        allowance = np.where(self._one(logits.argmax(1)), self.allowance_, 0.0)
        familiar: Array = logits.max(1) + allowance
        return familiar

    def _one(self, classes: Array) -> Array:
        """Whether each of these classes has one example only."""
        one: Array = np.array(self._sizes())[classes] == 1
        return one

    def is_known(self, X: ArrayLike) -> Array:
        """Whether the `familiarity` of each example is that of known classes, ``[n]``."""
        return self.judge(X)[1]

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities ``[n,N]`` in the order of ``classes_``."""
        return self.judge(X)[0]

    def predict(self, X: ArrayLike) -> Array:
        """The most probable label of each example."""
        best = (self._answer(X) + self.temperature_ * self.log_prior()).argmax(1)
        chosen: Array = self.classes_[best]
        return chosen

    def _learn(self, x: Array, labels: Array) -> None:
        self._adapt(x, labels.astype(np.int64), len(self.classes_))
        self._uncalibrated()

    def _uncalibrated(self) -> None:
        self.temperature_ = usual_temperature(self._head(), self._sizes(), table=self.table)
        self.threshold_, self.allowance_, self.held_out_ = None, 0.0, 0
        self.held_out_accuracy_ = self.calibration_error_ = None

    def _head(self) -> str | None:
        named = self.learner if isinstance(self.learner, str) else None
        return (self.described_ or {}).get("head", named)

    def _sizes(self) -> list[int]:
        each = np.bincount(self.support_y_, self.support_weight_, len(self.classes_))
        return each.astype(int).tolist()  # type: ignore[no-any-return]

    def _rounds(self, folds: int, seed: int) -> Iterator[tuple[Array, Array, Array, Array]]:
        """What is held out in each round, ``n`` examples.

        Their logits ``[n,N]``, the same divided by the temperature that is usual, their classes
        ``[n]``, and the shot of those who answered ``[n]``.
        """
        x, y = self.support_x_, self.support_y_
        rng = np.random.default_rng(seed)
        by_class = [rng.permutation(np.flatnonzero(y == n)) for n in range(len(self.classes_))]
        several = [(rows, min(folds, len(rows))) for rows in by_class if len(rows) > 1]
        for k in range(max((parts for _, parts in several), default=0)):
            out, new = np.zeros((2, len(y)), bool)
            for rows, parts in several:
                out[rows[k % parts :: parts]] = True
                new[rows[k % parts :: parts]] = k < parts
            part = self._without(out)
            logits, sizes = part._answer_numbers(x[new]), part._sizes()
            usual = usual_temperature(self._head(), sizes, table=self.table)
            yield logits, logits / usual, y[new], np.full(len(logits), mean_shot(sizes))

    def _renew(self) -> None:
        calibrated = self.held_out_ > 0
        self._learn(self.support_x_, self.support_y_)
        if calibrated:
            self.calibrate(self.about_.get("model", {}).get("false_reject", 0.0))

    def _default(self) -> MetaLearner:
        return ProtoNet(nn.Flatten())

    def _described(self, name: str) -> tuple[dict[str, Any], MetaLearner]:
        return describe_learner(name, self.penalty, unit=not self.table)

    def _state(self) -> dict[str, Any]:
        labels = self.classes_.tolist()
        calibration = {name: getattr(self, name) for name in _CALIBRATION}
        return {
            **super()._state(),
            "classes": labels,
            "dtype": self.classes_.dtype.str,
            "calibration": calibration,
            "settings": {"penalty": self.penalty, "table": self.table, "prior": self.prior},
        }

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        for name in _CALIBRATION:
            value = state["calibration"].get(name, 0.0)
            if type(value) not in (int, float, type(None)) or not math.isfinite(value or 0):
                raise ValueError(f"{name} is {value!r}; expected a number")
            setattr(self, name, value)
        if not self.temperature_ or self.temperature_ <= 0:
            raise ValueError(f"temperature_ is {self.temperature_!r}; expected more than 0")
        text = all(isinstance(label, str) for label in state["classes"])
        if self.prior not in get_args(Prior):
            raise ValueError(f"prior is {self.prior!r}; expected 'alike' or 'examples'")
        self.classes_ = np.array(state["classes"], None if text else np.dtype(state["dtype"]))
        if not np.array_equal(np.unique(self.classes_), self.classes_):
            raise ValueError(f"classes is {state['classes']!r}; expected different ones, sorted")
        present = np.unique(self.support_y_)
        if self.support_y_.dtype.kind != "i" or present.tolist() != [*range(len(self.classes_))]:
            raise ValueError("support_y does not have an example of each class")
