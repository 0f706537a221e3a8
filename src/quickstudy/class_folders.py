"""Classes of images as people keep them: a folder for each, at any depth."""

import posixpath
import warnings

from quickstudy.files import Files, parents
from quickstudy.images import is_image, not_read

__all__ = ["class_folders", "class_names", "images_of_classes"]

_PARTS = (
    *("train", "training", "support", "val", "valid", "validation", "dev"),
    *("test", "testing", "query"),
)


def class_folders(files: Files) -> dict[str, list[str]]:
    """The image files of each class, by its name in `quickstudy.data.image_folder`; both sorted.

    Raises:
        ValueError: there are no classes, or one of them is empty; names the folder.
    """
    classes = images_of_classes(files, least=1)
    names, _ = class_names(list(classes))
    return dict(zip(names, classes.values(), strict=True))


def images_of_classes(files: Files, least: int = 2) -> dict[str, list[str]]:
    """The images of each folder that holds some, both sorted; warns of what is left out.

    Raises:
        ValueError: fewer than ``least`` do, or a folder is empty; names it.
    """
    inside: dict[str, list[str]] = {}
    for name in files.names:
        inside.setdefault(name.rpartition("/")[0], []).append(name)
    images = {folder: [*filter(is_image, names)] for folder, names in inside.items()}
    classes = {folder: names for folder, names in images.items() if names}
    left_out = [not_read(files.names)]
    if stray := classes.pop("", []):
        if not classes:
            raise ValueError(
                f"{files.where(stray[0])} lies in no class folder; expected "
                f"{files.path}/CLASS/IMAGE"
            )
        more = f", nor do {len(stray) - 1} more images" if len(stray) > 1 else ""
        left_out.append(f"left out: {files.where(stray[0])} lies in no class folder{more}")
    inner = {parent for folder in files.folders for parent in parents(folder)}
    for folder in files.folders:
        if folder not in classes and folder not in inner:
            content = not_read(inside.get(folder, []))
            if content is None:
                raise ValueError(f"class folder {files.where(folder)} holds no images")
            left_out.append(
                f"left out: the class folder {files.where(folder)} holds no images ({content})"
            )
    if len(classes) < least:
        content = f"only the class {next(iter(classes))!r}" if classes else "no images"
        known = f" ({left_out[0]})" if left_out[0] else ""
        raise ValueError(
            f"{files.path} holds {content}{known}; expected a folder for each of at least 2 classes"
        )
    for folder in classes:
        if around := next((name for name in parents(folder) if name in classes), None):
            left_out.append(
                f"{folder} lies inside the class {around}, and is taken for a class of its own"
            )
            break
    for line in filter(None, [*left_out, files.doubt, _keep_one_part(classes)]):
        warnings.warn(f"{files.path}: {line}", stacklevel=4)
    return dict(sorted(classes.items()))


def _keep_one_part(classes: dict[str, list[str]]) -> str | None:
    """Of classes that stand in ``train`` and again in ``test``, keep the former; says so."""
    parts: dict[str, dict[str, str]] = {}
    for folder, name in zip(classes, class_names(list(classes))[0], strict=True):
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = folder
    several = [part for part in parts if part.lower() in _PARTS]
    if len(several) < 2:
        return None
    first, *others = sorted(several, key=lambda part: _PARTS.index(part.lower()))
    if not any(parts[first].keys() & parts[other].keys() for other in others):
        return None
    for other in parts.keys() - {first}:
        for folder in parts[other].values():
            del classes[folder]
    more = ", ".join(sorted(parts.keys() - {*several}))
    return f"{first} and {' and '.join(others)} hold the same classes; only {first} is read" + (
        f", and not {more}" if more else ""
    )


def class_names(folders: list[str]) -> tuple[list[str], list[str] | None]:
    """Class names below the deepest folder around them all, and their groups if each has one."""
    around = posixpath.commonpath(["/" + folder.rpartition("/")[0] for folder in folders])
    names = [f"/{folder}".removeprefix(around).lstrip("/") for folder in folders]
    groups = [name.rpartition("/")[0] for name in names]
    return names, groups if all(groups) else None
