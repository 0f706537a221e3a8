"""Which trainings heed which options: one that would do nothing is refused."""

from collections.abc import Callable, Mapping
from typing import Any

from quickstudy.experiments.spec import Experiment

__all__ = ["HEEDED", "check_heeded"]

Heeds = Callable[[Experiment], bool]
_IMAGES: tuple[str, Heeds] = "images", lambda e: e.has_classes
_CONV4: tuple[str, Heeds] = "Conv4", lambda e: e.has_classes and e.backbone == "conv4"
_OMNIGLOT: tuple[str, Heeds] = "Omniglot", lambda e: e.data == "omniglot"
_TABLES: tuple[str, Heeds] = "tables", lambda e: e.data == "tables"

HEEDED: dict[str, tuple[str, Heeds]] = {
    "root": ("data in files", lambda e: e.data in ("omniglot", "folder", "miniimagenet")),
    "split": ("Omniglot, folders and digits", lambda e: e.data in ("omniglot", "folder", "digits")),
    "validation_groups": (
        "the published split",
        lambda e: e.split == "published" and e.data in ("omniglot", "folder"),
    ),
    "way": ("tasks of classes", lambda e: not e.regression),
    "most_shot": ("tasks of classes", lambda e: not e.regression),
    "one_turn": ("rotated classes", lambda e: e.has_classes and e.rotations),
    **dict.fromkeys(("first_way", "size", "channels", "augment", "pens", "within_group"), _IMAGES),
    "backbone": ("images", lambda e: e.has_classes or e.backbone == "mlp"),
    "filters": (
        "Conv4, ResNet-12 and R2-D2's network",
        lambda e: e.has_classes and e.backbone in ("conv4", "resnet12", "r2d2"),
    ),
    **dict.fromkeys(("downsample", "norm_scale"), _CONV4),
    "fit_ink": _IMAGES,
    "batch_norm": (
        "networks with batch norm",
        lambda e: e.has_classes and e.backbone != "mlp",
    ),
    "invert": ("Omniglot and folders", lambda e: e.data in ("omniglot", "folder")),
    **dict.fromkeys(("resample", "invented"), _OMNIGLOT),
    "classes": ("synthetic alphabets", lambda e: e.data == "alphabets"),
    "skip_corrupt": ("folders", lambda e: e.data == "folder"),
    "frequency_spread": ("sinusoids", lambda e: e.regression),
    **dict.fromkeys(("columns", "numbers"), _TABLES),
    "halve_every": ("the schedule halve", lambda e: e.schedule == "halve"),
}
"""Fields that not every training heeds: what they belong to, and whether this is it."""


def check_heeded(experiment: Experiment, chosen: Mapping[str, Any], *, flags: bool = False) -> None:
    """Check options that were given, by name.

    Args:
        experiment: what they led to.
        chosen: the options.
        flags: say their names as the command line has them.

    Raises:
        ValueError: one asks for something that this training would not do.
    """
    for name, (where, heeds) in HEEDED.items():
        default = Experiment.model_fields[name].default
        if name in chosen and chosen[name] != default and not heeds(experiment):
            said = f"--{name.replace('_', '-')}" if flags else name
            raise ValueError(f"{said} is for {where}, and would do nothing here: leave it out")
