"""quickstudy: train once on many tasks, then learn a new one from a handful of examples."""

import importlib
from typing import TYPE_CHECKING, Any

from quickstudy import _moved

if TYPE_CHECKING:
    from quickstudy.estimator import FewShotClassifier, FewShotRegressor
    from quickstudy.evaluation import compare, evaluate
    from quickstudy.experiments.pretrained import load
    from quickstudy.learner import MetaLearner
    from quickstudy.learners import (
        ANIL,
        MAML,
        MANN,
        PMF,
        R2D2,
        Baseline,
        BlackBoxLSTM,
        ConditionalNeuralProcess,
        InContextTransformer,
        MAMLPlusPlus,
        MatchingNetwork,
        MetaSGD,
        NearestNeighbour,
        ProtoNet,
        Reptile,
        Scratch,
        SimpleShot,
        SoftNearestNeighbour,
    )
    from quickstudy.task import Task
    from quickstudy.training import train

__all__ = [
    "ANIL",
    "MAML",
    "MANN",
    "PMF",
    "R2D2",
    "Baseline",
    "BlackBoxLSTM",
    "ConditionalNeuralProcess",
    "FewShotClassifier",
    "FewShotRegressor",
    "InContextTransformer",
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaLearner",
    "MetaSGD",
    "NearestNeighbour",
    "ProtoNet",
    "Reptile",
    "Scratch",
    "SimpleShot",
    "SoftNearestNeighbour",
    "Task",
    "compare",
    "evaluate",
    "load",
    "train",
]
__version__ = "0.1.0"

_moved.forward()

_FROM = {
    "FewShotClassifier": "estimator",
    "FewShotRegressor": "estimator",
    "MetaLearner": "learner",
    "Task": "task",
    "compare": "evaluation",
    "evaluate": "evaluation",
    "load": "experiments.pretrained",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is first asked for: torch alone takes a second."""
    if name in __all__:
        module = importlib.import_module(f"quickstudy.{_FROM.get(name, 'learners')}")
        return getattr(module, name)
    raise AttributeError(f"module 'quickstudy' has no attribute {name!r}")
