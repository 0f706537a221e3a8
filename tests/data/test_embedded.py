"""Examples as the vectors of an encoder, worked out once: the same tasks, and the same classes."""

import pytest
import torch
from torch import Tensor, nn

from quickstudy.data import ClassDataset, EpisodeSampler, alphabets, embedded
from quickstudy.learners import ProtoNet
from quickstudy.nn import Conv4


def moved_encoder(**settings: str) -> Conv4:
    """One whose running averages and weights differ from those of a new one."""
    torch.manual_seed(3)
    encoder = Conv4(channels=4, image_size=16, **settings)  # type: ignore[arg-type]
    for _ in range(3):
        encoder(torch.rand(8, 1, 16, 16))
    return encoder


def test_tasks_of_vectors_are_those_of_images_embedded() -> None:
    """Rotated classes, subsets and classes of unequal size, too, whatever the encoder's mode."""
    data = alphabets(12, n_examples=9, size=16, seed=1).rotated().subset([40, 3, 2, 17, 30, 21, 8])
    sizes = torch.tensor([9, 5, 9, 7, 9, 6, 9])
    data = ClassDataset(
        data.storage, data.first, sizes, data.names, data.groups, data.roots, data.turns
    )
    encoder = moved_encoder()
    vectors = embedded(data, encoder)
    assert encoder.training
    assert (vectors.names, vectors.groups, vectors.roots) == (data.names, data.groups, data.roots)
    assert vectors.shape == (encoder.out_features,)
    settings = {"way": 4, "shot": (1, 3), "query": 2, "tasks": 3, "one_per_root": True}
    encoder.eval()
    for i in range(4):
        of_images = EpisodeSampler(data, **settings)[i]  # type: ignore[arg-type]
        of_vectors = EpisodeSampler(vectors, **settings)[i]  # type: ignore[arg-type]
        for x, z in (
            (of_images.support_x, of_vectors.support_x),
            (of_images.query_x, of_vectors.query_x),
        ):
            torch.testing.assert_close(encoder(x.flatten(0, 1)).view_as(z), z)
        assert of_images.support_y.equal(of_vectors.support_y)
        assert of_images.query_y.equal(of_vectors.query_y)


def test_classes_larger_than_a_batch_and_features_of_any_library() -> None:
    x = torch.randint(256, (300, 3, 4, 4), dtype=torch.uint8)
    data = ClassDataset.from_arrays(x, [0] * 130 + [1] * 170)
    vectors = embedded(data, nn.Flatten())
    torch.testing.assert_close(vectors.storage, x.flatten(1) / 255)
    learner = ProtoNet(nn.Linear(48, 5))
    assert learner(EpisodeSampler(vectors, way=2, shot=2, query=3)[0]).shape == (1, 6, 2)


@pytest.mark.parametrize("own", [True, False])
def test_vectors_that_depend_on_those_beside_them_are_refused(own: bool) -> None:
    data = alphabets(3, n_examples=4, size=16)
    encoder: nn.Module = moved_encoder(batch_norm="transductive")
    if not own:
        encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(256, track_running_stats=False))
    with pytest.raises(ValueError, match="depends on those beside it"):
        embedded(data, encoder)


def test_an_encoder_must_give_vectors() -> None:
    class Maps(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    with pytest.raises(ValueError, match=r"add nn\.Flatten"):
        embedded(alphabets(3, n_examples=4, size=16), Maps())
