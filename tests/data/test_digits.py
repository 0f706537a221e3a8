import pytest
import torch
from sklearn.datasets import load_digits

from quickstudy.data.digits import digits


def test_digits_are_all_there_in_order() -> None:
    data = digits()
    _, labels = load_digits(return_X_y=True)
    assert data.names == tuple("0123456789")
    assert data.sizes.tolist() == [int((labels == c).sum()) for c in range(10)]
    assert data.storage.dtype == torch.uint8
    assert data.storage.shape == (1797, 1, 28, 28)


def test_digits_keep_the_originals_ink_and_a_margin() -> None:
    data = digits()
    images, labels = load_digits(return_X_y=True)
    order = torch.from_numpy(labels.argsort(kind="stable"))
    original = torch.from_numpy(images)[order].mean(1) / 16 * (20 / 28) ** 2
    ours = data.storage.flatten(1).float().mean(1) / 255
    assert float((ours / original.float() - 1).abs().median()) < 0.15
    assert float(torch.corrcoef(torch.stack([ours, original.float()]))[0, 1]) > 0.9
    border = torch.ones(28, 28, dtype=torch.bool)
    border[3:25, 3:25] = False
    assert int(data.storage[:, 0, border].max()) <= 16
    assert int(data.storage.max()) == 255


@pytest.mark.parametrize("size", [8, 9, 20, 84])
def test_digits_of_any_size_stay_centred(size: int) -> None:
    mean = digits(size=size).storage.float().mean((0, 1))
    assert mean.shape == (size, size)
    rows = torch.arange(size) - (size - 1) / 2
    centre = (mean.sum(1) * rows).sum() / mean.sum()
    assert abs(float(centre)) < 0.05 * size


def test_digits_too_small() -> None:
    with pytest.raises(ValueError, match="size is 7; expected at least 8"):
        digits(size=7)
