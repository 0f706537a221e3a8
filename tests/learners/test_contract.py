"""Every learner keeps the public contract."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import MAML, BlackBoxLSTM, NearestNeighbour, ProtoNet
from quickstudy.nn import MLP, Conv4
from quickstudy.testing import CHECKS, Case, check_learner

IMAGE = (1, 16, 16)


def conv(policy: str = "inductive", downsample: str = "pool") -> Conv4:
    return Conv4(1, 6, image_size=16, batch_norm=policy, downsample=downsample)


def classifier(policy: str = "inductive") -> nn.Module:
    return nn.Sequential(conv(policy, "stride"), nn.Linear(6, 3))


CASES = {
    "nearest-pixels": Case(NearestNeighbour, IMAGE),
    "nearest-embedded": Case(lambda: NearestNeighbour(conv()), IMAGE),
    "protonet": Case(lambda: ProtoNet(conv()), IMAGE),
    "protonet-mlp": Case(lambda: ProtoNet(MLP(8, [16], 5)), (8,)),
    "protonet-transductive": Case(lambda: ProtoNet(conv("transductive")), IMAGE),
    "maml": Case(lambda: MAML(classifier(), inner_lr=0.1, inner_steps=2), IMAGE),
    "maml-first-order": Case(lambda: MAML(classifier(), inner_lr=0.1, first_order=True), IMAGE),
    "maml-transductive": Case(lambda: MAML(classifier("transductive"), inner_lr=0.1), IMAGE),
    "maml-regression": Case(lambda: MAML(MLP(1, [20, 20], 1), inner_lr=0.01), (1,), None),
    "lstm": Case(lambda: BlackBoxLSTM(conv(), outputs=3, hidden=16), IMAGE),
    "lstm-two-layers": Case(lambda: BlackBoxLSTM(conv(), outputs=4, hidden=9, layers=2), IMAGE),
    "lstm-sequence": Case(
        lambda: BlackBoxLSTM(conv(), outputs=3, hidden=16, queries="sequence"), IMAGE
    ),
    "lstm-regression": Case(lambda: BlackBoxLSTM(MLP(1, [8], 8), outputs=1), (1,), None),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_contract(case: Case, check: Callable[[Case], None]) -> None:
    check(case)


class _Forgetful(MetaLearner):
    """Breaks the contract: the support is kept on the module, as easyfsl does."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = MLP(8, [], 4)

    def adapt(self, support_x: torch.Tensor, support_y: torch.Tensor, n_way: int | None) -> Phi:
        self.means = torch.stack(
            [support_x[support_y == n].flatten(1).mean(0) for n in range(n_way or 0)]
        )
        return {}

    def predict(self, phi: Phi, query_x: torch.Tensor) -> torch.Tensor:
        z, c = self.encoder(query_x.flatten(0, 1)), self.encoder(self.means)
        return -torch.cdist(z, c).unflatten(0, query_x.shape[:2])


def test_contract_catches_stored_support() -> None:
    with pytest.raises(AssertionError):
        check_learner(Case(_Forgetful, (8,)))


def test_contract_catches_false_declaration() -> None:
    class Untrue(ProtoNet):
        order_invariant = False

    with pytest.raises(AssertionError, match="declared sensitive to order"):
        check_learner(Case(lambda: Untrue(MLP(8, [], 4)), (8,)))
