"""Classes whose examples are the vectors that an encoder makes of them, worked out once."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from quickstudy.data.dataset import ClassDataset
from quickstudy.data.sampler import to_float
from quickstudy.embedding import check_vectors
from quickstudy.learner import temporarily
from quickstudy.nn.norm import batch_norm_policy, mixes_examples

__all__ = ["embedded"]

_AT_ONCE = 64


def embedded(dataset: ClassDataset, encoder: nn.Module) -> ClassDataset:
    """The same classes, with what an encoder makes of each example in its place.

    To train what stands above an encoder that stays as it is, be it another library's: a step then
    takes no images. The encoder answers as in evaluation, on the device it is on; memory holds the
    vectors of all examples.

    Args:
        dataset: of images, or of whatever the encoder takes.
        encoder: ``[n,...] -> [n,D]``.

    Raises:
        ValueError: it gives no vectors, or what it makes of an example depends on those beside it.

    Example:
        >>> pixels = ClassDataset.from_arrays(torch.rand(6, 1, 8, 8), [0, 0, 0, 1, 1, 1])
        >>> embedded(pixels, nn.Flatten())
        ClassDataset(2 classes, 6 examples [64] float32)
    """
    if batch_norm_policy(encoder) == "transductive" or mixes_examples(encoder):
        raise ValueError(
            "the encoder's batch norm is transductive: what it makes of an example depends on "
            "those beside it"
        )
    own = next((t for t in (*encoder.parameters(), *encoder.buffers())), torch.empty(0))
    vectors = list[Tensor]()
    with temporarily(encoder, training=False), torch.no_grad():
        for c, size in enumerate(dataset.sizes.tolist()):
            for rows in torch.split(torch.arange(size), _AT_ONCE):
                x = to_float(dataset.read(torch.full_like(rows, c), rows)).to(own.device)
                vectors.append(check_vectors(encoder(x), x).float().cpu())
    first = dataset.sizes.cumsum(0) - dataset.sizes
    return replace(dataset, storage=torch.cat(vectors), first=first, turns=None)
