"""What both estimators share: a learner, the examples it was adapted to, and their file."""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from threading import RLock
from typing import Any, ParamSpec, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from quickstudy.checkpoint import check_finite, load_state, map_tensors, reading, save_state
from quickstudy.columns import Columns, rows_of
from quickstudy.devices import find_device
from quickstudy.estimator.inputs import (
    Array,
    as_floats,
    image_shape,
    inputs_of,
    plain,
    scale_of,
    white_of,
)
from quickstudy.estimator.labels import check_repeated
from quickstudy.heads import rebuild_learner
from quickstudy.learner import MetaLearner, Phi, temporarily
from quickstudy.names import HEAD_NAMES
from quickstudy.summary import FORMAT

__all__ = ["FewShot", "whole"]

_TURN = RLock()  # held while a learner in training is in evaluation mode

P = ParamSpec("P")
R = TypeVar("R")


def whole(method: Callable[P, R]) -> Callable[P, R]:
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


class FewShot:
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
        """Of a table's DataFrame, or array with words in it; anything else is as it was.

        What a mask hides is missing.
        """
        if isinstance(X, Tensor):
            X = (X.float() if X.is_floating_point() and X.itemsize < 4 else X).numpy(force=True)
        if isinstance(X, np.ma.MaskedArray) and X.mask.any():
            X = np.ma.filled(X.astype(np.float64), np.nan)
        if not self._of_tables:
            return X
        rows = rows_of(X)
        x = X if rows is not None or hasattr(X, "dtype") else np.array(X, object)
        if rows is None and x.ndim != 2:
            raise ValueError(f"X has {x.ndim} dimensions; a table has two, rows and columns")
        if rows is None and not reset and self.columns_ is None and x.dtype.kind == "O":
            return as_floats(x)
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
        with self._asking():
            support = self._inputs(x)
            target = torch.from_numpy(y).to(self.device_)
            if n_way is None:
                target = target.to(support.dtype)
            self.phi_ = self.learner_.adapt(support.unsqueeze(0), target.unsqueeze(0), n_way)

    def _as_before(self, x: Array) -> Array:
        """Images in the numbers of those that were fitted: whole ones up to 255, or 0..1."""
        if isinstance(self.learner, MetaLearner) or image_shape(self.learner_) is None:
            return x
        white = white_of(self.learner_, x)
        if (x.dtype.kind in "iu" and white == 1) or white == self.white_:
            return x
        if white == 255:
            return x / 255.0
        return np.rint(x * 255.0).astype(self.support_x_.dtype)

    def _own_scale(self) -> tuple[Array, Array] | None:
        """Of a table's columns; a learner that takes missing values takes any scale, too."""
        scaled = self._of_tables and not self.learner_.takes_missing
        return scale_of(self.support_x_) if scaled else None

    def _inputs(self, x: Array) -> Tensor:
        if self.scale_ is not None:
            x = (x - self.scale_[0]) / self.scale_[1]
            x = np.nan_to_num(3 * np.tanh(x / 3)) / math.sqrt(x.shape[1])
        return inputs_of(self.learner_, x, self.white_, self.device_)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """The learner answers, and does not train; one that is given is left as it was.

        Threads wait while another has changed its mode.
        """
        with torch.no_grad():
            with _TURN:
                if any(module.training for module in self.learner_.modules()):
                    with temporarily(self.learner_, training=False):
                        yield
                    return
            yield

    def _answer(self, X: ArrayLike) -> Array:
        self._check_is_fitted()
        return self._answer_numbers(plain(self._read(X, reset=False)[0]))

    def _answer_numbers(self, x: Array) -> Array:
        x = self._as_before(x)
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; expected at least 1")
        if not self.phi_:
            return np.zeros((len(x), 1))
        with self._asking():
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
        classes = getattr(self, "classes_", None)
        n_way = None if classes is None else len(classes)
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
            check_repeated(self.support_x_, self.support_weight_)
        if not len(self.support_x_) == len(self.support_y_) > 0:
            raise ValueError("support_x and support_y are not of one length")
        self.n_features_in_ = state["n_features"]
        if names := state.get("feature_names"):
            self.feature_names_in_ = np.array(names, dtype=object)
        self.white_ = state.get("white", 1.0)
        if (columns := state.get("columns")) is not None:
            self.columns_ = Columns.of_plain(columns)

    def _build(self, described: dict[str, Any] | None = None, at_most: int | None = None) -> None:
        """Set ``learner_``, on ``device_``.

        ``described_`` is what it can be built from again: by the name that was given, or, of a
        saved one with ``at_most`` so many weights, ``described``.
        """
        self.described_ = described
        if isinstance(self.learner, MetaLearner):
            if self.device is not None:
                raise ValueError("device is for learners given by name; move your own: learner.to")
            self.learner_ = self.learner
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
        self.learner_ = learner.to(self.device_).eval()

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

    return [*HEAD_NAMES, *shipped()]
