"""The inner loop, and the engine under it: gradient steps on one task that are differentiated.

A learner writes its step (`GradientLearner.inner_step`) from a gradient (`grad`) and, if it likes,
an inner optimiser (`SGD`, `Adam`) and learned rates; `unroll` takes the steps. What makes them fast
is in `quickstudy.inner.repeated`, ``parts``, ``networks``, ``stacked`` and ``operations``, with one
switch for all of it in `quickstudy.execution`. See `quickstudy.learners.MAML` for the algorithm.
"""

from quickstudy._moved import refused_from
from quickstudy.inner.gradient_learner import (
    GradientLearner,
    InnerStep,
    StepLoss,
    SupportLoss,
    grad,
    trajectory,
    unroll,
)
from quickstudy.inner.optimizers import (
    SGD,
    Adam,
    InnerOptimizer,
    LearnedRates,
    Parameters,
    State,
    check_inner,
)

__all__ = [
    "SGD",
    "Adam",
    "GradientLearner",
    "InnerOptimizer",
    "InnerStep",
    "LearnedRates",
    "Parameters",
    "State",
    "StepLoss",
    "SupportLoss",
    "check_inner",
    "grad",
    "trajectory",
    "unroll",
]

__getattr__ = refused_from(
    __name__,
    {
        "adapt_network": "GradientLearner.adapt",
        "descend": "unroll, or trajectory for the whole path",
        "fit_network": "trajectory",
        "over_tasks": "quickstudy.inner.parts.part_by_part",
        "record_statistics": "GradientLearner.network_state",
        "run_network": "GradientLearner.answer",
        "split_parameters": "GradientLearner.start",
        "stack_states": "GradientLearner.adapt",
        "tasks_together": "quickstudy.inner.parts.tasks_at_once",
    },
)
