"""The synthetic characters: reproducible, unlimited, distinct and not too easy."""

import pytest
import torch

from quickstudy.data.alphabets import alphabets


def test_images_names_and_alphabets() -> None:
    data = alphabets(40, 3, first_class=20)
    assert data.n_classes == 40
    assert data.sizes.tolist() == [3] * 40
    assert data.storage.shape == (120, 1, 28, 28)
    assert data.storage.dtype == torch.uint8
    assert data.names[0] == "synthetic/00020"
    assert data.names[-1] == "synthetic/00059"
    assert data.groups is not None
    assert data.groups[11] == "synthetic/alphabet-0000"
    assert data.groups[12] == "synthetic/alphabet-0001"


def test_ink_is_bright_on_black_and_like_a_pen_line() -> None:
    x = alphabets(100, 4).storage.float() / 255
    assert float(x.amax((1, 2, 3)).min()) > 0.9  # every image has ink
    assert 0.05 < float(x.mean()) < 0.13  # Omniglot at 28x28: 0.08
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]], -1)
    assert float(border.mean()) < 0.02


def test_the_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    one = alphabets(12, 4, seed=3)
    assert one.fingerprint == alphabets(12, 4, seed=3).fingerprint
    assert not torch.equal(one.storage, alphabets(12, 4, seed=4).storage)


@pytest.mark.parametrize("first", [0, 25, 1000])
def test_a_class_does_not_depend_on_what_else_is_asked_for(first: int) -> None:
    whole = alphabets(20, 5, first_class=first, seed=1)
    parts = [alphabets(10, 5, first_class=first + k, seed=1) for k in (0, 10)]
    assert torch.equal(whole.storage, torch.cat([part.storage for part in parts]))
    assert whole.names == parts[0].names + parts[1].names
    assert whole.groups == (parts[0].groups or ()) + (parts[1].groups or ())
    fewer = alphabets(20, 2, first_class=first, seed=1)
    assert torch.equal(whole.storage.view(20, 5, 28, 28)[:, :2], fewer.storage.view(20, 2, 28, 28))


def test_more_classes_than_one_chunk_are_the_same_classes() -> None:
    many = alphabets(5, 500, seed=2)  # chunks of 4 classes
    last = alphabets(1, 500, seed=2, first_class=4)
    assert torch.equal(many.storage[2000:], last.storage)


def test_threads_do_not_matter() -> None:
    before = torch.get_num_threads()
    one = alphabets(8, 4)
    try:
        torch.set_num_threads(1 if before > 1 else 2)
        assert torch.equal(one.storage, alphabets(8, 4).storage)
    finally:
        torch.set_num_threads(before)


def test_classes_are_distinct_but_not_by_pixels_alone() -> None:
    x = alphabets(200, 6).storage.view(200, 6, -1).float() / 255
    within = (x[:, 0] - x[:, 1]).square().sum(1).mean()
    between = (x[:, 0] - x[:, 1].roll(77, 0)).square().sum(1).mean()
    assert within < 0.95 * between
    query = x[:, 1:].reshape(40, 5, 5, -1)  # 5-way 1-shot, classes of one alphabet
    distance = torch.cdist(query.flatten(1, 2), x[:, 0].view(40, 5, -1))
    correct = distance.argmin(-1) == torch.arange(5).repeat_interleave(5)
    assert 0.3 < float(correct.float().mean()) < 0.8


def test_no_two_classes_are_the_same_character() -> None:
    x = alphabets(300, 1, variation=0.0).storage.view(300, -1).float() / 255
    distance = torch.cdist(x, x).square() + 1e9 * torch.eye(300)
    assert float(distance.min()) > 0.0


def test_variation_scales_the_difference_between_examples() -> None:
    spread = [
        float(alphabets(50, 4, variation=v).storage.view(50, 4, -1).float().std(1).mean())
        for v in (0.0, 0.5, 1.0)
    ]
    assert spread[0] == 0.0
    assert spread[0] < spread[1] < spread[2]


def test_size_changes_the_resolution_not_the_drawing() -> None:
    small = alphabets(30, 2).storage.float()
    large = torch.nn.functional.avg_pool2d(alphabets(30, 2, size=56).storage.float(), 2)
    assert float((small - large).abs().mean()) < 2.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_classes": 0}, "n_classes is 0"),
        ({"n_examples": 0}, "n_examples is 0"),
        ({"size": 7}, "size is 7; it must be at least 8"),
        ({"seed": -1}, "seed is -1"),
        ({"first_class": -1}, "first_class is -1"),
        ({"variation": -0.1}, "variation is -0.1"),
        ({"variation": float("nan")}, "variation is nan"),
    ],
)
def test_impossible_requests_are_refused(arguments: dict[str, int | float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        alphabets(**{"n_classes": 5, **arguments})  # type: ignore[arg-type]
