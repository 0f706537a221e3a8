"""When a learner's answer is "unknown": where the task has examples enough to find out."""

from dataclasses import dataclass

from torch import Tensor, nn

from quickstudy.embedding import embed
from quickstudy.estimator import Classifier
from quickstudy.learner import MetaLearner
from quickstudy.learners import R2D2, Logistic, ProtoNet

__all__ = ["FALSE_REJECT", "Unknown"]

FALSE_REJECT = 0.1
"""How many new examples of known classes may be called unknown, on average."""


@dataclass(frozen=True)
class Unknown:
    """A threshold of familiarity, see `quickstudy.estimator.FewShotClassifier.calibrate`.

    Attributes:
        threshold: of the largest logit, below which an example is of none of the classes.
        allowance: added to the largest logit, by its class ``[N]``.
        held_out: how many examples the threshold was fitted to.
    """

    threshold: float
    allowance: Tensor
    held_out: int

    @staticmethod
    def possible(learner: MetaLearner) -> bool:
        """Whether the largest logit of a learner is a measure of familiarity."""
        return isinstance(learner, ProtoNet | Logistic | R2D2)

    @classmethod
    def of(cls, learner: MetaLearner, support_x: Tensor, support_y: Tensor) -> "Unknown | None":
        """Fitted to a task ``[1,S,...]``, ``[1,S]``.

        ``None`` where it is not `possible`, and where fewer than ``1 / FALSE_REJECT - 1`` examples
        can be held out.
        """
        if not cls.possible(learner):
            return None
        x, y = support_x[0], support_y[0]
        if isinstance(learner, ProtoNet):  # the encoder, once for all rounds
            x, learner = embed(learner.encoder, support_x)[0], ProtoNet(nn.Flatten())
        classifier = Classifier(learner).fit(x.cpu().numpy(), y.cpu().numpy())
        classifier.calibrate(FALSE_REJECT)
        if classifier.threshold_ is None:
            return None
        alone = (y.bincount() == 1).to(x.dtype)
        return cls(classifier.threshold_, alone * classifier.allowance_, classifier.held_out_)

    def __call__(self, logits: Tensor) -> Tensor:
        """Which of some answers ``[Q,N]`` are "unknown", ``[Q]``."""
        largest, best = logits.max(-1)
        unknown: Tensor = largest + self.allowance[best] < self.threshold
        return unknown

    @property
    def shown(self) -> dict[str, float]:
        """What a page should say of it."""
        return {"false_reject": FALSE_REJECT, "held_out": self.held_out}
