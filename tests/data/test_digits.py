import pytest
import torch
from sklearn.datasets import load_digits

from quickstudy.data import ClassDataset, alphabets
from quickstudy.data.digits import digits, scanned


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


def test_scanned_drawings_look_like_digits() -> None:
    drawn = alphabets(30, 5, size=40)
    look = {"size": 16, "margin": 0.0, "crisp": False}
    ours, theirs = scanned(drawn, **look), digits(**look)
    assert ours.names == drawn.names
    assert ours.groups == drawn.groups
    assert ours.storage.shape == (150, 1, 16, 16)
    means = [float(d.storage.float().mean()) for d in (ours, theirs)]
    assert means[0] == pytest.approx(means[1], rel=0.4)
    spans = (ours.storage[:, 0] > 60).any(2).float().argmax(1)
    assert float(spans.float().mean()) < 3, "drawings are fitted to the frame"


def test_scanning_does_not_depend_on_place() -> None:
    image = torch.zeros(2, 1, 40, 40, dtype=torch.uint8)
    image[0, 0, 2:18, 5:13] = 255
    image[1, 0, 20:36, 30:38] = 255
    a, b = scanned(ClassDataset.from_sizes(image, [1, 1], ["a", "b"])).storage
    assert torch.equal(a, b)


def test_scanning_refuses_what_it_cannot_scan() -> None:
    with pytest.raises(ValueError, match="only grey uint8 images"):
        scanned(ClassDataset.from_sizes(torch.rand(2, 1, 8, 8), [1, 1], ["a", "b"]))
    with pytest.raises(ValueError, match="before they are rotated"):
        scanned(alphabets(2, 2).rotated())
