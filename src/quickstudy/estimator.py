"""Any learner as an estimator: ``fit`` adapts it to the examples given.

Nothing is meta-trained here: ``fit`` is `MetaLearner.adapt` and takes as long as that. The learner
brings along what it has learned from other tasks.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from quickstudy.calibration import (
    expected_accuracy,
    expected_calibration_error,
    fit_temperature,
    probabilities,
    reject_threshold,
)
from quickstudy.checkpoint import check_finite, load_state, reading, save_state
from quickstudy.columns import Columns, rows_of
from quickstudy.devices import find_device
from quickstudy.heads import (
    HEADS,
    LEARNED_HEADS,
    describe_learner,
    mean_shot,
    rebuild_learner,
    usual_temperature,
)
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import ProtoNet, Scratch
from quickstudy.names import Prior
from quickstudy.nn import MLP
from quickstudy.summary import FORMAT
from quickstudy.together import answer_together

if TYPE_CHECKING:
    from quickstudy.sklearn import FewShotClassifier, FewShotRegressor

__all__ = [
    "Classifier",
    "FewShotClassifier",
    "FewShotRegressor",
    "Regressor",
    "image_shape",
    "map_tensors",
]

_MOST_REPEATED = 1 << 28  # numbers, each as often as its example counts
_CALIBRATION = (
    "temperature_",
    "threshold_",
    "allowance_",
    "held_out_",
    "held_out_accuracy_",
    "calibration_error_",
)
P = ParamSpec("P")
R = TypeVar("R")
Array = NDArray[Any]


def __getattr__(name: str) -> Any:
    if name in ("FewShotClassifier", "FewShotRegressor"):
        from quickstudy import sklearn

        return getattr(sklearn, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _whole(method: Callable[P, R]) -> Callable[P, R]:
    """A method of an estimator that leaves it as it was if it raises."""

    @wraps(method)
    def tried(*args: P.args, **more: P.kwargs) -> R:
        state = args[0].__dict__
        before = dict(state)
        try:
            return method(*args, **more)
        except BaseException:
            state.clear()
            state.update(before)
            raise

    return tried


class _FewShot:
    """What both estimators share: a learner, a support set, and ``phi``."""

    saved_as: str
    n_features_in_: int
    learner: MetaLearner | str | os.PathLike[str] | None
    batch_size: int
    device: str | None
    learner_: MetaLearner
    device_: torch.device
    phi_: Phi
    support_x_: Array
    support_y_: Array
    support_weight_: Array | None = None
    about_: dict[str, Any]
    described_: dict[str, Any] | None
    white_: float = 1.0
    table: bool
    columns_: Columns | None = None
    scale_: tuple[Array, Array] | None = None
    outputs_: int = 0

    @property
    def _of_tables(self) -> bool:
        """Whether ``X`` is a table: of columns with units of their own, and holes."""
        learner: MetaLearner | None = getattr(self, "learner_", None)
        return self.table or (learner is not None and learner.takes_missing)

    def _read(self, X: Any, *y: Any, reset: bool = True) -> tuple[Array, Any]:
        """`_validated`; the columns of tables become numbers before."""
        return self._validated(self._as_numbers(X, reset), *y, reset=reset)

    def _as_numbers(self, X: Any, reset: bool) -> Any:
        """Of a table's DataFrame, or array with words in it; anything else is as it was."""
        if not self._of_tables:
            return X
        rows = rows_of(X)
        if isinstance(X, torch.Tensor):
            X = X.numpy(force=True)
        x = X if rows is not None or hasattr(X, "dtype") else np.array(X, object)
        if rows is None and x.ndim != 2:
            raise ValueError(f"X has {x.ndim} dimensions; a table has two, rows and columns")
        if rows is None and not reset and self.columns_ is None and x.dtype.kind == "O":
            return _as_floats(x)
        words = rows is None and (x.dtype.kind not in "biuf" or not reset)
        if words and (reset or self.columns_ is not None):
            names = [c.name for c in self.columns_.columns] if self.columns_ else []
            if names and len(names) != x.shape[1]:
                raise ValueError(
                    f"X has {x.shape[1]} columns; fitted with {len(names)}: {', '.join(names)}"
                )
            names = names or [f"column {i + 1}" for i in range(x.shape[1])]
            rows = [dict(zip(names, row, strict=True)) for row in x.tolist()]
        if reset:
            self.columns_ = None if rows is None else Columns.fit(rows)
        return X if rows is None or self.columns_ is None else self.columns_.numbers(rows)

    def _validated(self, X: ArrayLike, y: Any = None, *, reset: bool = True) -> tuple[Array, Any]:
        """Examples as an array, a row each, as wide as those before; and what they are."""
        x = np.asarray(X)
        if np.isinf(x).any() or (np.isnan(x).any() and not self._of_tables):
            raise ValueError("the examples have numbers that are infinite or none at all (NaN)")
        if reset:
            self.n_features_in_ = x.shape[1]
        elif x.shape[1] != self.n_features_in_:
            raise ValueError(
                f"these examples have {x.shape[1]} features; fitted with {self.n_features_in_}"
            )
        return x, y

    def _check_is_fitted(self) -> None:
        if not hasattr(self, "phi_"):
            raise ValueError(f"this {type(self).__name__} has not been fitted")

    def _adapt(self, x: Array, y: Array, n_way: int | None) -> None:
        """Take these examples as the support; ``x`` has been validated."""
        self.support_x_, self.support_y_ = x, y
        self.scale_ = self._own_scale()
        if n_way == 1:  # the beginning of a stream: nothing to tell apart
            self.phi_ = {}
            return
        if self.support_weight_ is not None:
            x, y = (np.repeat(each, self.support_weight_, 0) for each in (x, y))
        with torch.no_grad():
            support = self._inputs(x)
            target = torch.from_numpy(y).to(self.device_)
            if n_way is None:
                target = target.to(support.dtype)
            self.phi_ = self.learner_.adapt(support.unsqueeze(0), target.unsqueeze(0), n_way)

    def _as_before(self, x: Array) -> Array:
        """Images in the numbers of those that were fitted: whole ones up to 255, or 0..1."""
        if isinstance(self.learner, MetaLearner) or image_shape(self.learner_) is None:
            return x
        white = _white(self.learner_, x)
        if (x.dtype.kind in "iu" and white == 1) or white == self.white_:
            return x
        if white == 255:
            return x / 255.0
        return np.rint(x * 255.0).astype(self.support_x_.dtype)

    def _own_scale(self) -> tuple[Array, Array] | None:
        """Of a table's columns; a learner that takes missing values takes any scale, too."""
        scaled = self._of_tables and not self.learner_.takes_missing
        return _scale(self.support_x_) if scaled else None

    def _inputs(self, x: Array) -> Tensor:
        if self.scale_ is not None:
            x = (x - self.scale_[0]) / self.scale_[1]
            x = np.nan_to_num(3 * np.tanh(x / 3)) / math.sqrt(x.shape[1])
        return _inputs(self.learner_, x, self.white_, self.device_)

    def _answer(self, X: ArrayLike) -> Array:
        self._check_is_fitted()
        return self._answer_numbers(_plain(self._read(X, reset=False)[0]))

    def _answer_numbers(self, x: Array) -> Array:
        x = self._as_before(x)
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1")
        if not self.phi_:
            return np.zeros((len(x), 1))
        with torch.no_grad():
            parts = [
                self.learner_.predict(self.phi_, part.unsqueeze(0))[0]
                for part in torch.split(self._inputs(x), self.batch_size)
            ]
        answer: Array = torch.cat(parts).cpu().double().numpy()
        if not np.isfinite(answer).all():
            raise ValueError(
                f"numbers up to {np.abs(x).max():.2g} are too large for this "
                f"{type(self.learner_).__name__} to answer; scale the features"
            )
        return answer

    def save(self, path: str | os.PathLike[str], *, about: dict[str, Any] | None = None) -> None:
        """Write the fitted estimator to one safetensors file: the support, ``phi``, the learner.

        A learner given by name or by path is in the file, which needs nothing else to be loaded;
        one given as a module must be given to `load` again.

        Args:
            path: the file.
            about: plain values to keep with it; `load` puts them into ``about_``.
        """
        self._check_is_fitted()
        state = {"estimator": self.saved_as, "about": about or {}, **self._state()}
        save_state(path, state)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        learner: MetaLearner | None = None,
        device: str | None = None,
    ) -> Self:
        """Read what `save` wrote.

        Args:
            path: the file.
            learner: the learner, if it was given as a module, or is not described in the file.
            device: where to compute, whatever it was saved on; as for the class.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file holds something else, or needs ``learner``.
        """
        state = load_state(path)
        if not isinstance(state, dict) or state.get("estimator") != cls.saved_as:
            raise ValueError(f"{path} does not hold a {cls.saved_as}")
        if state.get("module") and learner is None:
            raise ValueError(f"{path} was saved with a learner of your own: give it as learner=...")
        source = state.get("learner") if learner is None else learner
        settings = state.get("settings", {})
        find_device(device)
        of_its_kind: Any = cls
        with reading(path, f"a {cls.saved_as}"):
            fitted: Self = of_its_kind(
                source, batch_size=state["batch_size"], device=device, **settings
            )
            fitted._restore(state)
            fitted.about_ = state["about"]
            described = state.get("described")
            if described is None and isinstance(source, str) and source not in _built_in():
                raise ValueError(
                    f"its learner is {source!r}, which it does not describe: give it as learner=..."
                )
            fitted._build(described, sum(value.numel() for value in state["weights"].values()))
            fitted._check_numbers(state)
            fitted.learner_.load_state_dict(state["weights"])
            fitted.scale_ = fitted._own_scale()
            fitted.phi_ = map_tensors(state["phi"], lambda z: z.to(fitted.device_))
            if state.get("format") != FORMAT:
                fitted._renew()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # scikit-learn's, of names of features
                fitted._answer_numbers(fitted.support_x_[:1])
            if not isinstance(fitted.about_, dict):
                raise ValueError(f"about is {fitted.about_!r}; expected a table")
        return fitted

    def _check_numbers(self, state: dict[str, Any]) -> None:
        """Raise ``ValueError`` for numbers that are none, and shapes that ``adapt`` does not give.

        Of tables, values may be missing, and infinite ones stand for them where they are in order.
        """
        map_tensors(state["weights"], partial(_finite, "weights"))
        if not self._of_tables:
            for part in ("support_x", "phi"):
                map_tensors(state[part], partial(_finite, part))
            return
        map_tensors(state["support_x"].nan_to_num(nan=0.0, posinf=math.inf), partial(_finite, "x"))
        phi = {**state["phi"]}
        if self.learner_.takes_missing and phi:
            for name, expected in self._shapes().items():
                if name not in phi or tuple(phi[name].shape) != expected:
                    raise ValueError(f"phi: {name!r} is not of the shape {[*expected]}")
            phi["sorted"] = phi["sorted"].nan_to_num(nan=math.nan, posinf=0.0)
        map_tensors(phi, partial(_finite, "phi"))

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the tensors in ``phi``: as with the fewest rows there can be, grown to all."""
        weight = self.support_weight_
        rows = len(self.support_x_) if weight is None else int(weight.sum())
        n_way = len(self.classes_) if isinstance(self, Classifier) else None
        least = n_way or 1

        def at(rows: int) -> dict[str, tuple[int, ...]]:
            x = torch.zeros(1, rows, self.n_features_in_, dtype=torch.float64)
            y = torch.arange(rows).unsqueeze(0)
            y = y % n_way if n_way else y.double().unsqueeze(2).expand(1, rows, self.outputs_)
            with torch.no_grad():
                phi = self.learner_.adapt(x.to(self.device_), y.to(self.device_), n_way)
            return {k: tuple(value.shape) for k, value in phi.items() if isinstance(value, Tensor)}

        few, more = at(least), at(least + 1)
        grown = ((few[k], more[k]) for k in few)
        each = (
            tuple(a + (b - a) * (rows - least) for a, b in zip(*two, strict=True)) for two in grown
        )
        return dict(zip(few, each, strict=True))

    def _renew(self) -> None:
        """Learn anew what an earlier version learned."""

    def _state(self) -> dict[str, Any]:
        named = None if isinstance(self.learner, MetaLearner) else self.learner
        return {
            "format": FORMAT,
            "learner": os.fspath(named) if named is not None else None,
            "module": isinstance(self.learner, MetaLearner),
            "described": self.described_,
            "weights": dict(self.learner_.state_dict()),
            "phi": self.phi_,
            "support_x": torch.from_numpy(self.support_x_),
            "support_y": torch.from_numpy(self.support_y_),
            "support_weight": None
            if self.support_weight_ is None
            else torch.from_numpy(self.support_weight_),
            "n_features": self.n_features_in_,
            "feature_names": [*map(str, getattr(self, "feature_names_in_", ()))],
            "white": self.white_,
            "columns": None if self.columns_ is None else self.columns_.plain(),
            "batch_size": self.batch_size,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.support_x_, self.support_y_ = (
            state[name].numpy() for name in ("support_x", "support_y")
        )
        if (weight := state.get("support_weight")) is not None:
            self.support_weight_ = weight.numpy()
            _check_repeated(self.support_x_, self.support_weight_)
        if not len(self.support_x_) == len(self.support_y_) > 0:
            raise ValueError("support_x and support_y are not of one length")
        self.n_features_in_ = state["n_features"]
        if names := state.get("feature_names"):
            self.feature_names_in_ = np.array(names, dtype=object)
        self.white_ = state.get("white", 1.0)
        if (columns := state.get("columns")) is not None:
            self.columns_ = Columns.of_plain(columns)

    def _build(self, described: dict[str, Any] | None = None, at_most: int | None = None) -> None:
        """Set ``learner_`` in evaluation mode, on ``device_``.

        ``described_`` is what it can be built from again: by the name that was given, or, of a
        saved one with ``at_most`` so many weights, ``described``.
        """
        self.described_ = described
        if isinstance(self.learner, MetaLearner):
            if self.device is not None:
                raise ValueError("device is for learners given by name; move your own: learner.to")
            self.learner_ = self.learner.eval()
            tensors = (*self.learner_.parameters(), *self.learner_.buffers())
            self.device_ = next((t.device for t in tensors), torch.device("cpu"))
            return
        self.device_ = find_device(self.device)
        if described is not None:
            learner = rebuild_learner(described, at_most)
        elif self.learner is None:
            learner = self._default()
        else:
            self.described_, learner = self._described(os.fspath(self.learner))
        self.learner_ = learner.to(self.device_)

    def _described(self, name: str) -> tuple[dict[str, Any], MetaLearner]:
        raise NotImplementedError

    def _default(self) -> MetaLearner:
        raise NotImplementedError


def _finite(part: str, z: Tensor) -> Tensor:
    check_finite({part: z}, "the file")
    return z


def _built_in() -> list[str]:
    """Learners that a file may name without describing them."""
    from quickstudy.experiments.pretrained import shipped

    return [*HEADS, *LEARNED_HEADS, *shipped()]


class Classifier(_FewShot):
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

    @_whole
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
        x, y = self._read(X, _labels(y))
        x, y, self.support_weight_ = _weighted(_plain(x), y, sample_weight)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < least:
            (only,) = self.classes_.tolist()
            raise ValueError(f"y has only 1 class, {only!r}; a classifier needs at least 2")
        if not isinstance(self.learner, MetaLearner):  # one's own takes what it likes
            self.white_ = _white(self.learner_, x)
        self._learn(x, labels)
        return self

    @_whole
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
                if rest := {*_labels(y).tolist()} - {*known}:
                    raise ValueError(f"y holds {rest.pop()!r}, which is none of {known}")
            return self._fit(X, y, sample_weight, least=2 if classes is None else 1)
        x, y = self._read(X, _labels(y), reset=False)
        x, y, weight = _weighted(self._as_before(_plain(x)), y, sample_weight)
        if _sort(self.classes_) != _sort(y):
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

    @_whole
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

    @_whole
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
        x = _plain(self._read(X, reset=False)[0])
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
        with torch.no_grad():
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


class Regressor(_FewShot):
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

    @_whole
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
        self._adapt(_plain(x), targets, None)
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
            for pair in ((self.support_x_, _plain(x)), (self.support_y_, targets))
        )
        self._adapt(x, targets, None)
        return self

    def predict(self, X: ArrayLike) -> Array:
        """The targets ``[n]`` or ``[n,d]``, as fitted."""
        answer = self._answer(X)
        return answer[:, 0] if self.flat_ else answer

    def _described(self, name: str) -> tuple[dict[str, Any], MetaLearner]:
        if name in (*HEADS, *LEARNED_HEADS):
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
        }

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.flat_, self.outputs_ = state["flat"], state["outputs"]
        self.random_state = state["random_state"]


def image_shape(learner: nn.Module) -> tuple[int, ...] | None:
    """The shape of the images that a learner was built for; ``None`` if it takes features."""
    shapes = (getattr(module, "input_shape", None) for module in learner.modules())
    return next((tuple(shape) for shape in shapes if shape), None)


def _plain(x: Array) -> Array:
    """Numbers as torch takes them: contiguous, of this machine's byte order, 64 bits at most."""
    if x.dtype.kind == "f" and x.dtype.itemsize > 8:
        x = x.astype(np.float64)
    return np.ascontiguousarray(x, x.dtype.newbyteorder("="))


def _as_floats(x: Array) -> Array:
    """Raise ``ValueError`` for what is no number; ``None`` is one that is missing."""
    try:
        return x.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{error}; this was fitted with numbers alone") from error


def _scale(x: Array) -> tuple[Array, Array]:
    """The mean and standard deviation of each column ``[1,F]``, 1 where all are alike."""
    here = np.isfinite(x)
    count = np.maximum(here.sum(0, keepdims=True), 1)
    largest = np.where(here, np.abs(x), 0).max(0, keepdims=True)
    largest = np.where(largest > 0, largest, 1.0)  # whatever the unit: no square overflows
    z = np.where(here, x / largest, 0.0)
    mean = z.sum(0, keepdims=True) / count
    spread = np.sqrt((np.where(here, z - mean, 0.0) ** 2).sum(0, keepdims=True) / count)
    return mean * largest, np.where(spread > 1e-12, spread, 1.0) * largest


def _white(learner: MetaLearner, x: Array) -> float:
    """What is white in these images: 255 in whole numbers, else 1; 1 for features, too.

    Raises:
        ValueError: the learner takes images, and these go beyond.
    """
    if image_shape(learner) is None:
        return 1.0
    low, high = float(x.min()), float(x.max())
    white = 255.0 if x.dtype.kind in "iu" and high > 1 else 1.0
    if low < 0 or high > white * (1 + 1e-6):
        raise ValueError(
            f"these images go from {low:g} to {high:g}; this {type(learner).__name__} takes 0 to 1 "
            "(or whole numbers from 0 to 255)"
        )
    return white


def _labels(y: Any) -> Array:
    """Labels of one type: texts stay texts among numbers, which NumPy would make them.

    Raises:
        ValueError: they are of several types; names two.
    """
    given = np.asarray(y)
    if given.ndim != 1 or (given.dtype.kind not in "OUS" and not isinstance(y, list | tuple)):
        return given
    first: dict[str, Any] = {}
    for value in given.tolist() if given.dtype.kind == "O" else list(y):
        kind = "number" if isinstance(value, int | float | np.number) else type(value).__name__
        kind = "truth value" if isinstance(value, bool | np.bool_) else kind
        first.setdefault("text" if isinstance(value, str) else kind, value)
    if len(first) > 1:
        one, other, *_ = first.values()
        raise ValueError(f"y holds {one!r} and {other!r}; expected labels of one type")
    if given.dtype.kind == "O" and first.keys() <= {"text", "number", "truth value"}:
        return np.array(given.tolist())
    return given


def _sort(labels: Array) -> str:
    """Of what type labels are: texts, truth values, or numbers."""
    return {"S": "text", "U": "text", "O": "text", "b": "truth"}.get(labels.dtype.kind, "number")


def _weighted(x: Array, y: Any, weight: ArrayLike | None) -> tuple[Array, Array, Array | None]:
    """The examples that count, their labels, and how often each does.

    Raises:
        ValueError: the weights are no whole numbers, or none is positive.
    """
    if weight is None:
        return x, y, None
    from sklearn.utils.validation import _check_sample_weight

    given = _check_sample_weight(weight, x, dtype=np.float64, ensure_non_negative=True)
    whole = given.astype(np.int64)
    if (whole != given).any():
        raise ValueError(
            f"sample_weight has {given[whole != given][0]:g}; expected whole numbers: how often "
            "each example counts"
        )
    if not whole.any():
        raise ValueError("sample_weight has only zeros; expected examples that count")
    counts = whole > 0
    _check_repeated(x, whole)
    return x[counts], y[counts], whole[counts]


def _check_repeated(x: Array, weight: Array) -> None:
    times = float(weight.sum(dtype=np.float64))
    if times * x[0].size > _MOST_REPEATED:
        raise ValueError(
            f"the weights of examples add up to {times:g}, and each is held as often as it counts: "
            f"more than {_MOST_REPEATED / x[0].size:g} is too much; divide them"
        )


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A nesting of dicts, lists and tuples with each of its tensors changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: map_tensors(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_tensors(each, change) for each in value)
    return value


def _inputs(learner: MetaLearner, x: Array, white: float, device: torch.device) -> Tensor:
    """Examples as the learner takes them: its type of number, and the shape of its images."""
    exact = torch.float32 if device.type == "mps" else torch.float64  # mps has no other
    numbers = next((p.dtype for p in learner.parameters() if p.is_floating_point()), exact)
    if learner.takes_missing:  # values as they are, in any unit
        numbers = exact
    inputs = torch.tensor(x, dtype=numbers).div_(white).to(device)
    shape = image_shape(learner)
    if shape is not None and tuple(x.shape[1:]) != tuple(shape):
        if int(np.prod(x.shape[1:])) != int(np.prod(shape)):
            raise ValueError(
                f"this {type(learner).__name__} takes images of shape {list(shape)} (channels, "
                f"height, width), or flat; these examples are {list(x.shape[1:])}"
            )
        inputs = inputs.reshape(len(x), *shape)
    return inputs
