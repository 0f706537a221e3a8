"""Drawings moved and scaled: what the box of the ink becomes, and what is left alone."""

import pytest
import torch
from torch import Tensor

from quickstudy.experiments.spec import Experiment
from quickstudy.nn import FitInk
from quickstudy.testing import make_task


def box(image: Tensor) -> tuple[list[int], list[int]]:
    at = (image[0] > 0.5).nonzero()
    return at.amin(0).tolist(), (at.amax(0) + 1).tolist()


def drawing(top: int, left: int, high: int, wide: int) -> Tensor:
    x = torch.zeros(1, 1, 28, 28)
    x[..., top : top + high, left : left + wide] = 0.9
    return x


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((4, 4, 20, 20), ([4, 4], [24, 24])),  # it is there already
        ((0, 0, 10, 10), ([4, 4], [24, 24])),
        ((17, 3, 10, 5), ([4, 9], [24, 19])),  # proportions stay
        ((2, 2, 4, 28 - 2), ([12, 4], [15, 24])),
        ((20, 20, 1, 1), ([11, 11], [17, 17])),  # a dot
    ],
)
def test_the_box_of_the_ink_is_in_the_middle(
    given: tuple[int, int, int, int], expected: tuple[list[int], list[int]]
) -> None:
    low, high = box(FitInk()(drawing(*given))[0])
    assert low == pytest.approx(expected[0], abs=1)
    assert high == pytest.approx(expected[1], abs=1)


def test_each_image_is_fitted_for_itself_and_blank_ones_stay() -> None:
    blank = torch.zeros(1, 1, 28, 28)
    x = torch.cat([drawing(0, 0, 10, 10), blank, drawing(9, 2, 4, 8)])
    fitted = FitInk()(x)
    assert torch.equal(fitted[1], blank[0])
    for i in range(3):
        assert torch.equal(FitInk()(x[i : i + 1])[0], fitted[i])
    with pytest.raises(ValueError, match=r"part is 1\.2"):
        FitInk(1.2)


def test_a_learner_with_it_does_not_mind_place_and_size() -> None:
    own = Experiment("protonet", data="alphabets", fit_ink=True, filters=8).build_learner().eval()
    support = torch.stack([drawing(4, 4, 20, 20)[0], drawing(4, 13, 20, 2)[0]]).unsqueeze(0)
    moved = torch.stack([drawing(1, 2, 10, 10)[0], drawing(15, 2, 10, 1)[0]]).unsqueeze(0)
    phi = own.adapt(support, torch.tensor([[0, 1]]), 2)
    assert own.predict(phi, moved).argmax(-1).tolist() == [[0, 1]]
    maml = Experiment("maml", data="alphabets", fit_ink=True, filters=4, way=3).build_learner()
    loss = maml.loss(make_task((1, 28, 28), 3).to(torch.float32))
    assert torch.isfinite(loss)
    with pytest.raises(ValueError, match="fit_ink is for grey drawings; channels is 3"):
        Experiment("protonet", data="folder", root=".", fit_ink=True, channels=3)
