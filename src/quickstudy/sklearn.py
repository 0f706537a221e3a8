"""The estimators by scikit-learn's conventions."""

from typing import Any, ClassVar

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from quickstudy.estimator import Classifier, Regressor
from quickstudy.experiments.spec import OF_TABLES

__all__ = ["FewShotClassifier", "FewShotRegressor"]


class _Checked:
    """Examples of any form that scikit-learn takes, and what it checks of them."""

    _of_targets: ClassVar[dict[str, bool]]
    _of_tables: bool
    table: bool
    learner: Any

    def _validated(
        self, X: ArrayLike, y: Any = "no_validation", *, reset: bool = True
    ) -> tuple[NDArray[Any], Any]:
        checks: dict[str, Any] = {"reset": reset, "allow_nd": True}
        if self._of_tables:
            checks["ensure_all_finite"] = "allow-nan"
        try:
            if isinstance(y, str):
                return validate_data(self, X, **checks), None
            x, y = validate_data(self, X, y, **checks, **self._of_targets)
        except ValueError as error:
            words = any(said in str(error) for said in ("string to float", "bytes/strings"))
            if words and not self._of_tables:
                raise ValueError(f"{error}; of a table, say table=True") from error
            raise
        if not self._of_targets:
            check_classification_targets(y)
        return x, y

    def _check_is_fitted(self) -> None:
        check_is_fitted(self, "phi_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        named = isinstance(self.learner, str) and self.learner in OF_TABLES
        of_tables = named or getattr(self.learner, "takes_missing", False)
        tags.input_tags.allow_nan = self.table or of_tables
        return tags


class FewShotClassifier(ClassifierMixin, _Checked, BaseEstimator, Classifier):  # type: ignore[misc]
    """A learner that `fit` adapts to labelled examples, as a scikit-learn classifier.

    Args:
        learner: the name of shipped weights (``"protonet-omniglot"``) or of a head for
            features (`quickstudy.heads`), a run folder, a file of weights, a trained
            `MetaLearner`, or ``None`` for the nearest class mean of the raw features.
        batch_size: queries to answer at a time.
        device: where to compute: ``"cpu"``, ``"cuda"``, ``"mps"`` or ``"auto"``. A learner given as
            a module computes where it is.
        table: ``X`` is a table, of columns with units of their own, categories and holes: a
            DataFrame, or an array. Columns are scaled as the examples say, and rows are not made
            unit vectors. A learner of tables always takes it so.
        penalty: of the heads ``"photo"``, ``"sentence"``, ``"logistic"`` and ``"ridge"``, if not
            the usual one.
        prior: ``"alike"``: no class is likelier for having more examples. ``"examples"``: classes
            are as frequent in what will be answered as among the examples, whose sizes then say
            how likely each is.

    Attributes:
        classes_: the labels, of any type, sorted.
        temperature_: what logits are divided by; until `calibrate`, what is usual for the head.
        threshold_: of `familiarity`, below which `is_known` says no; ``None`` for never.
        allowance_: what familiarity owes to classes of one example, see `familiarity`.
        held_out_: examples that `calibrate` could hold out.
        held_out_accuracy_: what their answers say of the whole, see
            `quickstudy.calibration.expected_accuracy`; ``None`` without any.
        calibration_error_: expected calibration error on these, under temperatures fitted to
            others.
        phi_: what the learner made of the examples.
        learner_: the learner itself, shared if it was given as a module.
        support_x_: the examples fitted so far.
        support_y_: their classes, as indices into ``classes_``.
        support_weight_: how often each counts; ``None`` for once.
        n_features_in_: the size of the first dimension of an example.

    ``X`` has one row per example: features ``[n,D]``, or images ``[n,C,H,W]``, ``[n,H,W]`` or flat,
    in the numbers that the learner was trained on (0..1 for shipped ones, ink 1).

    Example:
        >>> import numpy as np
        >>> X, y = np.array([[0.0, 0], [0, 1], [5, 5], [6, 5]]), ["low", "low", "high", "high"]
        >>> model = FewShotClassifier().fit(X, y)
        >>> model.predict([[1, 1]]).tolist()
        ['low']
        >>> model.partial_fit([[-9.0, -9.0]], ["far"]).predict([[-8, -8]]).tolist()
        ['far']
    """

    _of_targets: ClassVar[dict[str, bool]] = {}


class FewShotRegressor(RegressorMixin, _Checked, BaseEstimator, Regressor):  # type: ignore[misc]
    """A learner that `fit` adapts to examples with targets, as a scikit-learn regressor.

    Args:
        learner: a run folder, a file of weights, a trained `MetaLearner` for regression, or
            ``None`` for a small network that learns from these examples alone (`Scratch`); scale
            the features and the targets for it.
        batch_size: queries to answer at a time.
        device: as of `FewShotClassifier`.
        table: as of `FewShotClassifier`.
        random_state: of that network's weights.

    Attributes:
        phi_: what the learner made of the examples.
        learner_: the learner itself.
        support_x_: the examples fitted so far.
        support_y_: their targets ``[n,d]``.
        n_features_in_: features of an example.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> model = FewShotRegressor().fit(x, x[:, 0] ** 2)
        >>> round(model.score(x, x[:, 0] ** 2), 1)
        1.0
    """

    _of_targets: ClassVar[dict[str, bool]] = {"multi_output": True, "y_numeric": True}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
