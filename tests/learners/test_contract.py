"""Every learner keeps the public contract."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from quickstudy.inner import SGD, Adam, Parameters, State
from quickstudy.learner import MetaLearner, Phi
from quickstudy.learners import (
    ANIL,
    MAML,
    MANN,
    PMF,
    R2D2,
    Baseline,
    BlackBoxLSTM,
    ConditionalNeuralProcess,
    Ensemble,
    InContextTransformer,
    Logistic,
    MAMLPlusPlus,
    MatchingNetwork,
    MetaSGD,
    NearestNeighbour,
    ProtoMAML,
    ProtoNet,
    Reptile,
    Scratch,
    SimpleShot,
    SoftNearestNeighbour,
    TableKernels,
    TableTransformer,
)
from quickstudy.nn import MLP, Conv4
from quickstudy.testing import CHECKS, Case, check_learner, check_ways_of_working

IMAGE = (1, 16, 16)


def conv(policy: str = "inductive", downsample: str = "pool") -> Conv4:
    return Conv4(1, 6, image_size=16, batch_norm=policy, downsample=downsample)


def classifier(policy: str = "inductive") -> nn.Module:
    return nn.Sequential(conv(policy, "stride"), nn.Linear(6, 3))


class StepSizes(nn.Module):
    """A learned inner optimiser: one number a step."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = nn.Parameter(torch.linspace(0.5, 1.5, 8))

    def direction(self, gradients: Parameters, state: State, step: int) -> tuple[Parameters, State]:
        return {k: self.sizes[step] * g for k, g in gradients.items()}, state


CASES = {
    "nearest-pixels": Case(NearestNeighbour, IMAGE),
    "nearest-embedded": Case(lambda: NearestNeighbour(conv()), IMAGE),
    "protonet": Case(lambda: ProtoNet(conv()), IMAGE),
    "protonet-mlp": Case(lambda: ProtoNet(MLP(8, [16], 5)), (8,)),
    "pmf": Case(lambda: PMF(conv(), inner_steps=3), IMAGE),
    "pmf-vectors": Case(lambda: PMF(MLP(8, [16], 5), inner_steps=2), (8,)),
    "protonet-refined": Case(lambda: ProtoNet(conv(), refine=2), IMAGE),
    "protonet-transductive": Case(lambda: ProtoNet(conv("transductive")), IMAGE),
    "maml": Case(lambda: MAML(classifier(), inner_lr=0.1, inner_steps=2), IMAGE),
    "maml-first-order": Case(lambda: MAML(classifier(), inner_lr=0.1, first_order=True), IMAGE),
    "maml-transductive": Case(lambda: MAML(classifier("transductive"), inner_lr=0.1), IMAGE),
    "maml-regression": Case(lambda: MAML(MLP(1, [20, 20], 1), inner_lr=0.01), (1,), None),
    "maml-momentum": Case(
        lambda: MAML(classifier(), inner_lr=0.05, inner_steps=3, inner_optimizer=SGD(0.9)), IMAGE
    ),
    "maml-adam": Case(
        lambda: MAML(classifier(), inner_lr=0.01, inner_steps=2, inner_optimizer=Adam()), IMAGE
    ),
    "maml-learned-optimizer": Case(
        lambda: MAML(classifier(), inner_lr=0.1, inner_steps=3, inner_optimizer=StepSizes()), IMAGE
    ),
    "meta-sgd": Case(lambda: MetaSGD(classifier(), inner_lr=0.1), IMAGE),
    "meta-sgd-regression": Case(lambda: MetaSGD(MLP(1, [20], 1), inner_lr=0.01), (1,), None),
    "maml++": Case(lambda: MAMLPlusPlus(classifier(), inner_steps=2), IMAGE),
    "maml++-transductive": Case(
        lambda: MAMLPlusPlus(classifier("transductive"), inner_steps=2), IMAGE
    ),
    "maml++-rates-only": Case(
        lambda: MAMLPlusPlus(
            classifier(), inner_steps=2, multi_step_loss=False, per_step_scales=False
        ),
        IMAGE,
    ),
    "maml++-norm-only": Case(
        lambda: MAMLPlusPlus(
            classifier(),
            inner_steps=2,
            multi_step_loss=False,
            learned_rates=False,
            per_step_averages=True,
        ),
        IMAGE,
    ),
    "anil": Case(lambda: ANIL(conv(), outputs=3, inner_steps=3), IMAGE),
    "anil-regression": Case(lambda: ANIL(MLP(1, [20], 9), outputs=1), (1,), None),
    "reptile": Case(lambda: Reptile(classifier(), inner_lr=0.01), IMAGE),
    "reptile-batches": Case(lambda: Reptile(classifier(), inner_lr=0.01, inner_batch=4), IMAGE),
    "reptile-transductive": Case(lambda: Reptile(classifier("transductive")), IMAGE),
    "reptile-regression": Case(
        lambda: Reptile(MLP(1, [20], 1), inner_lr=0.02, inner_optimizer=SGD()), (1,), None
    ),
    "r2d2": Case(lambda: R2D2(conv()), IMAGE),
    "r2d2-regression": Case(lambda: R2D2(MLP(1, [20], 9)), (1,), None),
    "tables": Case(TableKernels, (5,)),
    "tables-regression": Case(TableKernels, (5,), None, 2),
    "table-transformer": Case(lambda: TableTransformer(width=16, layers=2, row_layers=1), (5,)),
    "table-transformer-codes": Case(lambda: TableTransformer(width=16, layers=1, codes=2), (5,)),
    "table-transformer-regression": Case(
        lambda: TableTransformer(width=16, layers=1), (5,), None, 2
    ),
    "matching": Case(lambda: MatchingNetwork(conv()), IMAGE),
    "matching-separate": Case(lambda: MatchingNetwork(conv(), query_encoder=conv()), IMAGE),
    "matching-full-context": Case(lambda: MatchingNetwork(conv(), reading_steps=3), IMAGE),
    "nearest-k": Case(lambda: NearestNeighbour(k=3), IMAGE),
    "soft-nearest": Case(lambda: SoftNearestNeighbour(conv()), IMAGE),
    "scratch": Case(lambda: Scratch(classifier(), inner_steps=3), IMAGE),
    "scratch-regression": Case(lambda: Scratch(MLP(1, [20], 1), inner_steps=3), (1,), None),
    "baseline": Case(lambda: Baseline(conv(), classes=3), IMAGE),
    "proto-maml": Case(lambda: ProtoMAML(conv(), inner_lr=0.1, inner_steps=3), IMAGE),
    "logistic": Case(lambda: Logistic(conv()), IMAGE),
    "simpleshot": Case(lambda: SimpleShot(conv(), classes=3), IMAGE),
    "ensemble": Case(
        lambda: Ensemble([ProtoNet(conv()), MatchingNetwork(conv()), R2D2(conv())]), IMAGE
    ),
    "ensemble-gradient": Case(
        lambda: Ensemble([MAML(classifier(), inner_lr=0.1), ProtoNet(conv())]), IMAGE
    ),
    "ensemble-refined": Case(
        lambda: Ensemble([ProtoNet(conv(), refine=2), SoftNearestNeighbour(conv())]), IMAGE
    ),
    "ensemble-black-boxes": Case(
        lambda: Ensemble(
            [
                BlackBoxLSTM(conv(), outputs=3, hidden=16, layers=1),
                ConditionalNeuralProcess(conv(), outputs=4, width=16),
            ]
        ),
        IMAGE,
    ),
    "ensemble-regression": Case(
        lambda: Ensemble([MAML(MLP(1, [20], 1), inner_lr=0.01), R2D2(MLP(1, [20], 9))]), (1,), None
    ),
    "mann": Case(lambda: MANN(conv(), outputs=3, hidden=16, slots=12, width=6), IMAGE),
    "mann-offset": Case(
        lambda: MANN(conv(), outputs=4, hidden=16, slots=12, width=6, protocol="offset"), IMAGE
    ),
    "mann-feedforward": Case(
        lambda: MANN(conv(), outputs=3, hidden=16, slots=12, controller="feedforward"), IMAGE
    ),
    "mann-regression": Case(lambda: MANN(MLP(1, [8], 8), outputs=1, hidden=16), (1,), None),
    "transformer": Case(lambda: InContextTransformer(conv(), outputs=3, width=16, heads=2), IMAGE),
    "transformer-causal": Case(
        lambda: InContextTransformer(conv(), outputs=4, width=16, heads=2, causal=True), IMAGE
    ),
    "transformer-regression": Case(
        lambda: InContextTransformer(MLP(1, [8], 8), outputs=1, width=16), (1,), None
    ),
    "cnp": Case(lambda: ConditionalNeuralProcess(conv(), outputs=4, width=16), IMAGE),
    "cnp-regression": Case(
        lambda: ConditionalNeuralProcess(MLP(1, [8], 8), outputs=1, width=16, regression=True),
        (1,),
        None,
    ),
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


def test_contract_catches_a_lost_gradient() -> None:
    """What is used in inner steps and hidden from the learner's parameters is found out."""

    class Hidden:
        def __init__(self, sizes: StepSizes) -> None:
            self.direction = sizes.direction

    class Careless(MAML):
        def __init__(self) -> None:
            super().__init__(classifier(), inner_lr=0.1, inner_steps=3)
            self.sizes = StepSizes()
            self.inner_optimizer = Hidden(self.sizes)

        def outer_parameters(self, *support: torch.Tensor) -> list[torch.Tensor]:
            return list(self.network.parameters())

    with pytest.raises(RuntimeError, match="would get none"):
        check_ways_of_working(Case(Careless, IMAGE))
