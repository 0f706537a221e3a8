"""Distorted tasks: the same tasks, every image a little different, and always alike."""

import pytest
import torch

from quickstudy.data import Augmented, EpisodeSampler, SinusoidSampler, alphabets

SAMPLER = EpisodeSampler(alphabets(30), way=5, shot=2, query=3, tasks=2)


def test_only_the_images_change() -> None:
    plain, task = SAMPLER[3], Augmented(SAMPLER)[3]
    for part in ("support_y", "query_y", "classes"):
        assert torch.equal(getattr(plain, part), getattr(task, part))
    for part in ("support_x", "query_x"):
        before, after = getattr(plain, part), getattr(task, part)
        assert before.shape == after.shape
        assert after.min() >= 0
        assert after.max() <= 1
        changed = (before - after).abs().flatten(2).amax(-1) > 0.1
        assert changed.float().mean() > 0.9


def test_it_depends_on_the_seed_and_the_index_alone() -> None:
    first, again = Augmented(SAMPLER)[3], Augmented(SAMPLER)[3]
    assert torch.equal(first.support_x, again.support_x)
    assert not torch.equal(first.support_x, Augmented(SAMPLER, seed=1)[3].support_x)


def test_every_image_has_a_distortion_of_its_own() -> None:
    class Same:
        def __getitem__(self, index: int) -> object:
            task = SAMPLER[index]
            return type(task).trusted(
                task.support_x[:, :1].expand_as(task.support_x),
                task.support_y,
                task.query_x,
                task.query_y,
                n_way=5,
            )

    x = Augmented(Same())[0].support_x.flatten(0, 1)  # type: ignore[arg-type]
    assert len({image.numpy().tobytes() for image in x}) == len(x)


def test_strength_bounds_how_far_an_image_moves() -> None:
    dot = torch.zeros(1, 1, 1, 41, 41)
    dot[..., 20, 20] = 1.0

    class Dots:
        def __getitem__(self, index: int) -> object:
            task = SAMPLER[index][:1]
            return type(task).trusted(
                dot.expand(1, 64, 1, 41, 41),
                torch.zeros(1, 64).long(),
                dot,
                torch.zeros(1, 1).long(),
                n_way=1,
            )

    for strength in (0.5, 1.0):
        x = Augmented(Dots(), strength=strength)[0].support_x.flatten(0, 2)  # type: ignore[arg-type]
        rows, columns = (x.sum(d).argmax(-1) - 20 for d in (2, 1))
        furthest = max(rows.abs().max(), columns.abs().max())
        assert 0.05 * strength * 41 <= furthest <= 0.12 * strength * 41 + 1


def test_pens_are_of_drawings_alone_and_of_as_many_as_is_said() -> None:
    plain = SAMPLER[3].support_x
    for part in (0.0, 0.5, 1.0):
        x = Augmented(SAMPLER, strength=0.0, pens=part)[3].support_x
        assert x.min() >= 0
        assert x.max() <= 1
        changed = ((x - plain).abs().flatten(2).amax(-1) > 0.02).float().mean()
        assert changed <= part * 1.8
        assert changed >= part * 0.8
    broad = [Augmented(SAMPLER, strength=0.0, pens=1.0)[i].support_x.mean() for i in range(9)]
    assert max(broad) > 1.3 * min(SAMPLER[i].support_x.mean() for i in range(9))


@pytest.mark.parametrize(
    ("source", "strength", "message"),
    [
        (SAMPLER, -0.1, "strength is -0.1"),
        (SinusoidSampler(shot=5, query=5, tasks=1), 1.0, "only images"),
    ],
)
def test_bad_input(source: object, strength: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmented(source, strength=strength)[0]  # type: ignore[arg-type]


def test_a_part_of_pens_is_a_part() -> None:
    with pytest.raises(ValueError, match=r"pens is 1\.5; expected 0 to 1"):
        Augmented(SAMPLER, pens=1.5)
