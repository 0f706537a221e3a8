"""The commands for models of your own data: learn, predict, add, remove, info and more."""

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quickstudy.cli.named import begun, examples_named, progress, share_of
from quickstudy.cli.opened import (
    CacheOption,
    DeviceOption,
    EncoderOption,
    JsonOption,
    ModelArgument,
    OutOption,
    ShardOption,
    StrictOption,
    TogetherOption,
    cache_of,
    describe,
    is_trained,
    is_utf8,
    loaded_model,
    say_failed,
    trained_encoder,
)
from quickstudy.cli.options import busy, say
from quickstudy.cli.serve import serve
from quickstudy.names import Prior, check_names
from quickstudy.plain import printable, to_json

if TYPE_CHECKING:
    pass

__all__ = ["COMMANDS"]

UNKNOWN = "unknown"
"""What is printed for an example that resembles no class."""


def learn(
    support: Annotated[
        Path,
        typer.Argument(
            help="Folder (or zip) with one folder per class; or .csv or .jsonl with a column of "
            "labels and one of texts or paths; or any table."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the model.")] = Path(
        "model.qs"
    ),
    encoder: Annotated[
        str | None,
        typer.Option(
            help="drawing, efficientnet-lite0, minilm, timm:MODEL, hf:MODEL, sentence:MODEL, or "
            "what you trained: a run folder. Default: by what the examples are."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="photo, sentence, tables, logistic, ridge, centroid, proto-maml, shipped weights, "
            "a run folder, or a file of weights. Default: by the encoder."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Of a table, the column of labels. Default: label, class, intent or category."
        ),
    ] = None,
    unknown: Annotated[
        float,
        typer.Option(help='Rate at which known classes may be called "unknown"; 0: never.'),
    ] = 0.0,
    prior: Annotated[
        Prior,
        typer.Option(
            help="How frequent classes are in what will be predicted: alike, or as among the "
            "examples."
        ),
    ] = "alike",
    strict: StrictOption = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that holds more than a learned model.")
    ] = False,
    cache: CacheOption = True,
    device: DeviceOption = "cpu",
) -> None:
    """Learn classes from a few examples of each: photos, drawings, sentences or rows of a table.

    Then: quickstudy predict model.qs NEW.jpg
    """
    from quickstudy.examples import read_examples

    if not 0 <= unknown < 1:
        raise ValueError(f"--unknown is {unknown:g}; expected a rate from 0 to 1, such as 0.05")
    if out.is_dir():
        raise IsADirectoryError(f"{out} is a folder; give --out the name of a file")
    if out.exists() and not force:
        refuse_to_replace(out)
    check_names(encoder=encoder, head=head, device=device)
    failed: list[str] = []
    examples = begun(read_examples(support, failed, label))
    with busy("starting"):
        from quickstudy.model import Model
    model = Model.learn(
        progress(examples, "learning"),
        encoder=encoder,
        head=head,
        label=label,
        false_reject=unknown,
        prior=prior,
        device=device,
        cache=cache_of(cache),
        failed=failed,
    )
    say_failed(failed, strict)
    if out.exists():
        say(f"{out} is replaced")
    model.save(out)
    about = model.about()
    if model.guess and "columns" not in about:
        say(model.guess)
    describe(about)
    say(f"{out} is ready: quickstudy predict {out} NEW")


def predict(
    model: ModelArgument,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images, folders or tables; for sentences, text files with one per line, or -."
        ),
    ] = None,
    text: Annotated[list[str] | None, typer.Option(help="A sentence; may be repeated.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated, with a header.")] = False,
    together: TogetherOption = False,
    shard: ShardOption = None,
    cache: CacheOption = True,
    encoder: EncoderOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Predict the classes of new examples."""
    if as_json and as_csv:
        raise ValueError("give one of --json and --csv")
    if together and shard is not None:
        raise ValueError("--together answers by all examples, and --shard reads some: give one")
    failed: list[str] = []
    examples = examples_named(model, files or [], text or [], failed, share_of(shard))
    live = "-" in (files or [])
    loaded = loaded_model(model, encoder, device)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    shown = printable if sys.stdout.isatty() else str
    if as_csv:
        rows.writerow(["example", "label", "probability"])
    answers = loaded.predict(
        examples, cache=cache_of(cache), failed=failed, at_once=1 if live else 64, together=together
    )
    some = False
    for answer in answers:
        some = True
        label = UNKNOWN if answer.label is None else answer.label
        if as_json:
            print(to_json({**vars(answer)}, ensure_ascii=not is_utf8(sys.stdout)))
        elif as_csv:
            rows.writerow(
                [shown(answer.where), shown(answer.label or ""), f"{answer.probability:.4f}"]
            )
        else:
            print(f"{printable(answer.where)}: {printable(label)} ({answer.probability:.0%})")
        if live:
            sys.stdout.flush()
    if failed and not some and shard is None:
        raise ValueError(f"nothing can be answered: {failed[0]}")
    say_failed(failed)
    if failed:
        raise typer.Exit(1)


def add(
    model: ModelArgument,
    files: Annotated[
        list[str] | None, typer.Argument(help="As `quickstudy predict` takes.")
    ] = None,
    label: Annotated[str, typer.Option("--class", help="Of all of these, known or new.")] = ...,  # type: ignore[assignment]
    text: Annotated[list[str] | None, typer.Option(help="A sentence; may be repeated.")] = None,
    out: OutOption = None,
    strict: StrictOption = False,
    cache: CacheOption = True,
    encoder: EncoderOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Teach a model more examples of a class, or a new class. Nothing is trained again."""
    import dataclasses

    from quickstudy.examples import Example, label_form

    name = label_form(label, "--class")
    if name == UNKNOWN:
        raise ValueError(
            f"--class is {name}, as predict calls what resembles no class; choose another name"
        )
    failed: list[str] = []
    examples = examples_named(model, files or [], text or [], failed)
    loaded = loaded_model(model, encoder, device)
    others: list[str] = []
    column = str(getattr(loaded.encoder, "label", None)).strip().lower()  # a table's own name of it

    def labelled() -> Iterator[Example]:
        for example in examples:
            own = example.label
            if own is None and isinstance(example.item, Mapping):
                own = example.item.get(column)
            if str("" if own is None else own).strip() not in ("", name):
                others.append(str(own))
            yield dataclasses.replace(example, label=name)

    loaded.add(labelled(), cache=cache_of(cache), failed=failed)
    say_failed(failed, strict)
    if others:
        say(f"{len(others)} examples have another label, such as {others[0]}: all are {name} now")
    loaded.save(out or model)
    describe(loaded.about())


def remove(
    model: ModelArgument,
    label: Annotated[str, typer.Option("--class", help="The class to forget.")],
    out: OutOption = None,
) -> None:
    """Make a model forget a class and all its examples."""
    loaded = loaded_model(model)
    loaded.remove(label)
    loaded.save(out or model)
    describe(loaded.about())


def info(model: ModelArgument, as_json: JsonOption = False) -> None:
    """What a model has learned, from what, and how sure it is."""
    from quickstudy.summary import read_summary

    about = read_summary(model).about or loaded_model(model).about()
    if as_json:
        print(to_json(about, ensure_ascii=not is_utf8(sys.stdout)))
    else:
        describe(about, sys.stdout)


def export(
    model: Annotated[
        Path,
        typer.Argument(help="A file that `quickstudy learn` wrote; or a run: its encoder."),
    ],
    onnx: Annotated[bool, typer.Option("--onnx", help="For ONNX Runtime.")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="A torch.export program.")] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Default: the model's name with .onnx or .pt2."),
    ] = None,
    encoder: EncoderOption = None,
) -> None:
    """Write a model as one graph, from pixels (of sentences: features) to probabilities."""
    if onnx == torch:
        raise ValueError("give one of --onnx and --torch")
    path = out or model.with_suffix(".onnx" if onnx else ".pt2")
    loaded = trained_encoder(model) if is_trained(model) else loaded_model(model, encoder)
    with busy(f"writing {path}"):
        from quickstudy.export import export_onnx, export_torch

        (export_onnx if onnx else export_torch)(loaded, path)
    print(path)


def report(
    model: ModelArgument,
    test: Annotated[Path, typer.Argument(help="Labelled examples, as `quickstudy learn` takes.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    together: TogetherOption = False,
    strict: StrictOption = False,
    cache: CacheOption = True,
    encoder: EncoderOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """Test a model on other examples: one HTML file with figures, confusions and mistakes."""
    from quickstudy.examples import read_examples
    from quickstudy.plain import write_atomically
    from quickstudy.summary import read_summary

    summary = read_summary(model)
    failed: list[str] = []
    examples = begun(read_examples(test, failed, summary.label))
    loaded = loaded_model(model, encoder, device)
    from quickstudy.report import Report

    counted = progress(examples, "testing")
    result = Report.of(loaded, counted, cache=cache_of(cache), failed=failed, together=together)
    say_failed(failed, strict)
    write_atomically(out, result.html(model.name).encode(errors="xmlcharrefreplace"))
    print(f"accuracy {result.accuracy:.1%} on {result.tested} examples")
    say(f"the full report is in {out}")


COMMANDS = (learn, predict, add, remove, info, report, export, serve)


def refuse_to_replace(out: Path) -> None:
    """Unless there is a model that learning the same again would give again."""
    from quickstudy.summary import read_summary

    try:
        by_hand = read_summary(out).by_hand
    except (ValueError, OSError):
        raise FileExistsError(f"{out} exists and is no model; --force replaces it") from None
    if by_hand:
        raise FileExistsError(
            f"{out} exists, with {by_hand} examples added to it or removed by hand; --force "
            "replaces it, --out writes elsewhere"
        )
