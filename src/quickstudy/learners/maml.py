"""MAML: learn an initialisation from which a few gradient steps suffice."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quickstudy.functional import example_loss
from quickstudy.learner import MetaLearner, Phi
from quickstudy.nn.norm import Source, batch_norm_policy, statistics_from
from quickstudy.task import check_support

__all__ = ["MAML"]


class MAML(MetaLearner):
    """Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, arXiv:1703.03400, algorithm 2)::

        phi_0     = theta
        phi_{l+1} = phi_l - alpha * grad L(phi_l, D_tr)        l = 0 .. L-1
        loss      = L(phi_L, D_ts), differentiated through all L steps

    ``L`` is the mean over support examples. The authors' code *sums* over the batch and divides
    by K, so its ``inner_lr=0.4`` at 5-way 1-shot is ``inner_lr=2.0`` here.

    Args:
        network: ``f``, a module ``[n,...] -> [n,outputs]`` with one output a class (a task may
            have fewer classes) or the regression output.
        inner_lr: ``alpha``.
        inner_steps: ``L``; may be changed afterwards, for instance to take more at evaluation.
        first_order: drop the second derivative (section 5.2 of the paper): cheaper, a bit worse.

    ``phi``: ``{"network": adapted parameters and statistics by name, each [T,...],
    "classes": [T,N]}``.

    Batch norm: support images are normalised by their own batch. Queries too when the policy is
    ``"transductive"`` (what the paper did); when ``"inductive"``, by the support set's statistics
    under the adapted parameters, so that a query never sees another. Running averages, which
    belong to no task, are not used.

    Differs from the paper: nothing else.

    Example:
        >>> from quickstudy.nn import MLP
        >>> learner = MAML(MLP(1, [40, 40], 1), inner_lr=0.01)  # the paper's sinusoid network
    """

    label_equivariant = False

    def __init__(
        self,
        network: nn.Module,
        *,
        inner_lr: float,
        inner_steps: int = 1,
        first_order: bool = False,
    ) -> None:
        super().__init__()
        if inner_lr <= 0:
            raise ValueError(f"inner_lr is {inner_lr}; expected a positive number")
        if inner_steps < 0:
            raise ValueError(f"inner_steps is {inner_steps}; expected 0 or more")
        self.network = network
        self.inner_lr = inner_lr
        self.inner_steps = inner_steps
        self.first_order = first_order

    @property
    def max_way(self) -> int | None:
        *_, last = self.network.modules()
        outputs = getattr(self.network, "out_features", getattr(last, "out_features", None))
        return outputs if isinstance(outputs, int) else None

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_way(n_way, regression=True)
        check_support(support_x, support_y, n_way)
        if torch.is_inference_mode_enabled():
            raise RuntimeError("MAML adapts by gradients: use torch.no_grad(), not inference_mode")
        states = [self._adapt_one(x, y, n_way) for x, y in zip(support_x, support_y, strict=True)]
        phi: Phi = {"network": {name: torch.stack([s[name] for s in states]) for name in states[0]}}
        if n_way is not None:
            classes = torch.arange(n_way, device=support_y.device)
            phi["classes"] = classes.expand(len(support_y), -1)
        return phi

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        source: Source = "batch" if self.transductive else "stored"
        n_way = phi["classes"].shape[1] if "classes" in phi else None
        states = ({name: p[t] for name, p in phi["network"].items()} for t in range(len(query_x)))
        with statistics_from(self.network, source):
            return torch.stack(
                [
                    functional_call(self.network, state, (x,))[:, :n_way]
                    for state, x in zip(states, query_x, strict=True)
                ]
            )

    def _adapt_one(self, x: Tensor, y: Tensor, n_way: int | None) -> dict[str, Tensor]:
        """The adapted state of one task: ``x [S,...]``, ``y [S]`` or ``[S,d]``."""
        outer = torch.is_grad_enabled()
        fixed: dict[str, Tensor] = dict(self.network.named_buffers())
        phi: dict[str, Tensor] = {}
        for name, p in self.network.named_parameters():
            (phi if p.requires_grad else fixed)[name] = p
        with torch.enable_grad(), statistics_from(self.network, "batch"):
            for _ in range(self.inner_steps):
                if not outer:
                    phi = {k: p.detach().requires_grad_() for k, p in phi.items()}
                output = functional_call(self.network, {**phi, **fixed}, (x,))
                grads = torch.autograd.grad(
                    example_loss(output[:, :n_way], y),
                    list(phi.values()),
                    create_graph=outer and not self.first_order,
                    materialize_grads=True,
                )
                phi = {
                    k: p - self.inner_lr * g for (k, p), g in zip(phi.items(), grads, strict=True)
                }
        if not outer:
            phi = {k: p.detach() for k, p in phi.items()}
        state = {**phi, **fixed}
        if batch_norm_policy(self.network) == "inductive":
            with statistics_from(self.network, "record"):
                functional_call(self.network, state, (x,))
        return state
