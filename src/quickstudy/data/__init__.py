"""Where tasks come from: classes of examples, leak-proof splits, task samplers."""

from quickstudy.data.alphabets import alphabets
from quickstudy.data.augment import Augmented
from quickstudy.data.dataset import ClassDataset
from quickstudy.data.digits import digits, scanned
from quickstudy.data.embedded import embedded
from quickstudy.data.folder import image_folder, read_image
from quickstudy.data.miniimagenet import mini_imagenet
from quickstudy.data.omniglot import omniglot
from quickstudy.data.sampler import EpisodeSampler, TaskSource, prefetch, to_float
from quickstudy.data.sinusoid import SinusoidSampler
from quickstudy.data.splits import (
    Split,
    by_group,
    by_lists,
    maml,
    published,
    random_split,
    vinyals,
)
from quickstudy.data.tables import TableSampler

__all__ = [
    "Augmented",
    "ClassDataset",
    "EpisodeSampler",
    "SinusoidSampler",
    "Split",
    "TableSampler",
    "TaskSource",
    "alphabets",
    "by_group",
    "by_lists",
    "digits",
    "embedded",
    "image_folder",
    "maml",
    "mini_imagenet",
    "omniglot",
    "prefetch",
    "published",
    "random_split",
    "read_image",
    "scanned",
    "to_float",
    "vinyals",
]
