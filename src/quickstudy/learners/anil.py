"""ANIL: adapt the last layer only."""

from torch import Tensor, nn

from quickstudy.embedding import embed, feature_size
from quickstudy.functional import class_weights, example_loss, linear_logits
from quickstudy.inner import Parameters, State, StepLoss, check_inner, grad, unroll
from quickstudy.learner import MetaLearner, Phi, class_labels, ways

__all__ = ["ANIL"]


class ANIL(MetaLearner):
    """Almost no inner loop (Raghu, Raghu, Bengio & Vinyals 2020, arXiv:1909.09157, section 4)::

        phi_{l+1} = phi_l - alpha * grad_phi L(phi_l, e(D_tr))      phi: the last layer alone
        loss      = L(phi_L, e(D_ts)), by phi_0 and by the encoder e

    The encoder runs once for each example, however many steps follow, and all tasks take their
    steps together.

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        outputs: most classes of a task, or the size ``d`` of a regression target.
        inner_lr: ``alpha``, on the mean loss over the support.
        inner_steps: ``L``; may be changed afterwards.

    ``phi``: ``{"weight": [T,outputs,D], "bias": [T,outputs], "classes": [T,N]}``.

    Differs from the paper: batch norm in the encoder follows its policy (running averages for
    ``"inductive"``), since the encoder is not adapted. The authors' is transductive.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = ANIL(Conv4(), outputs=5, inner_steps=5)
    """

    label_equivariant = False

    def __init__(
        self, encoder: nn.Module, *, outputs: int, inner_lr: float = 0.1, inner_steps: int = 1
    ) -> None:
        super().__init__()
        check_inner(inner_lr, inner_steps)
        if outputs < 1:
            raise ValueError(f"outputs is {outputs}; expected at least 1")
        self.encoder = encoder
        self.head = nn.Linear(feature_size(encoder), outputs)
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps

    @property
    def max_way(self) -> int | None:
        return self.head.out_features

    def inner_step(
        self, phi: Parameters, state: State, step: int, support_loss: StepLoss
    ) -> tuple[Parameters, State]:
        """``phi_{l+1} = phi_l - alpha * grad L(phi_l, e(D_tr))``, of the last layer alone."""
        gradient = grad(support_loss, phi)
        return {k: p.sub(gradient[k], alpha=self.inner_lr) for k, p in phi.items()}, state

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        z = embed(self.encoder, support_x)
        T = len(z)
        weight = class_weights(support_y, n_way)

        def support_loss(phi: Parameters, step: int) -> Tensor:
            return T * example_loss(linear_logits(phi, z)[..., :n_way], support_y, weight)

        start = {k: p.expand(T, *p.shape) for k, p in self.head.named_parameters()}
        phi, _ = unroll(self.inner_step, support_loss, start, steps=self.inner_steps)
        return {**phi, **class_labels(support_y, n_way)}

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        return linear_logits(phi, embed(self.encoder, query_x))[..., : ways(phi)]
