"""What the commands for models of your own data share: their options, and the model itself."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.options import busy, say
from quickstudy.names import check_names
from quickstudy.plain import interval_of, printable

if TYPE_CHECKING:
    from quickstudy.encoders import FeatureCache, LearnedEncoder
    from quickstudy.model import Model

__all__ = [
    "CacheOption",
    "DeviceOption",
    "EncoderOption",
    "JsonOption",
    "ModelArgument",
    "OutOption",
    "ShardOption",
    "StrictOption",
    "TogetherOption",
    "cache_of",
    "describe",
    "is_trained",
    "is_utf8",
    "loaded_model",
    "say_failed",
    "trained_encoder",
]

_SHOWN = 10  # faults, one by one

ModelArgument = Annotated[Path, typer.Argument(help="A file that `quickstudy learn` wrote.")]
CacheOption = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Keep the features of examples on disk.")
]
OutOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Where to write it; default: over the model.")
]
DeviceOption = Annotated[
    str, typer.Option(help="Where to compute: cpu, cuda, mps, or auto for the fastest.")
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        help="The model's encoder, if it is no part of quickstudy: no file decides what is loaded."
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(help="3/16: only the third of 16 shares of the examples, for many processes."),
]
TogetherOption = Annotated[
    bool,
    typer.Option(help="Answer when all are read: each shows the others what its class looks like."),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Refuse it all if one example cannot be read.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object per line.")]


def is_trained(path: Path) -> bool:
    """Whether it is a learner that was trained, and not a model that was learned."""
    return path.is_dir() or path.suffix == ".safetensors"


def loaded_model(model: Path, encoder: str | None = None, device: str | None = None) -> "Model":
    """A model, with a sign while it is being loaded; what is no model is refused at once."""
    from quickstudy.summary import read_summary

    read_summary(model)
    check_names(encoder=encoder, device=device)
    with busy(f"loading {model}"):
        from quickstudy.model import Model

        return Model.load(model, encoder=encoder, device=device)


def trained_encoder(run: Path) -> "LearnedEncoder":
    """The encoder of a learner that was trained."""
    if not run.exists():
        raise FileNotFoundError(f"there is no file {run}")
    with busy(f"loading {run}"):
        from quickstudy.encoders import LearnedEncoder

        return LearnedEncoder.of(str(run))


def cache_of(wanted: bool) -> "FeatureCache | None":
    """Where features are kept, if they are to be."""
    from quickstudy.encoders import FeatureCache

    return FeatureCache() if wanted else None


def describe(about: dict[str, Any], file: Any = None) -> None:
    """Print what `quickstudy.model.Model.about` tells, on standard error by default."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("class", "examples")
    for name, count in about["classes"].items():
        table.add_row(Text(printable(name)), str(count))  # no markup: a class may be called [old]
    console = Console(file=file or sys.stderr, markup=False)
    console.print(table)
    console.print(printable(f"{about['encoder']} features, {about['head']}"))
    if about.get("columns"):
        console.print(printable(about["columns"]))
    sizes = about["classes"].values()
    if about.get("prior") == "examples":
        console.print("classes are taken to be as frequent as among the examples")
    elif max(sizes) > 2 * min(sizes):
        console.print(
            "no class is likelier for having more examples (learn --prior examples: as frequent as "
            "here)"
        )
    if n := about["held_out"]:
        right = about["held_out_accuracy"]
        low, high = interval_of(right * n, n)
        console.print(
            f"held-out accuracy {right:.1%} ({low:.0%} to {high:.0%}) on {n} of its examples; "
            f"expected calibration error {about['expected_calibration_error']:.3f}"
        )
    if (rate := about["false_reject"]) and about["threshold"] is None:
        console.print(
            f"with {about['held_out']} examples to hold out, nothing can be called unknown at a "
            f"rate of {rate:g}: {round(1 / rate) - 1} are needed",
            soft_wrap=True,
        )
    if about["threshold"] is not None:
        console.print(
            f'"unknown" below a largest logit of {about["threshold"]:.2f}: at most '
            f"{about['false_reject']:.0%} of known classes"
        )


def is_utf8(stream: Any) -> bool:
    """Whether a stream can be given any character."""
    return str(getattr(stream, "encoding", "")).lower().replace("-", "") == "utf8"


def say_failed(failed: list[str], strict: bool = False) -> None:
    """What was left out, and why; with ``strict``, a ``ValueError`` if anything was."""
    for reason in failed[:_SHOWN]:
        say(f"left out: {reason}")
    if len(failed) > _SHOWN:
        say(f"left out: {len(failed) - _SHOWN} more")
    if strict and failed:
        raise ValueError(f"{len(failed)} examples cannot be read, and --strict was given")
