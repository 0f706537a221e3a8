"""Any learner as an estimator: ``fit`` adapts it to the examples given.

Nothing is meta-trained here: ``fit`` is `MetaLearner.adapt` and takes as long as that. The learner
brings along what it has learned from other tasks.
"""

from typing import TYPE_CHECKING, Any

from quickstudy.estimator.classifier import Classifier
from quickstudy.estimator.inputs import image_shape
from quickstudy.estimator.regressor import Regressor

if TYPE_CHECKING:
    from quickstudy.sklearn import FewShotClassifier, FewShotRegressor

__all__ = ["Classifier", "FewShotClassifier", "FewShotRegressor", "Regressor", "image_shape"]


def __getattr__(name: str) -> Any:
    if name in ("FewShotClassifier", "FewShotRegressor"):
        from quickstudy import sklearn

        return getattr(sklearn, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
