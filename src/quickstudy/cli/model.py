"""The commands for models of your own data: learn, predict, add, remove, info and more."""

import csv
import itertools
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from quickstudy.cli.options import busy
from quickstudy.names import Prior, check_names
from quickstudy.plain import interval_of, printable, read_line, to_json

if TYPE_CHECKING:
    from quickstudy.encoders import FeatureCache, LearnedEncoder
    from quickstudy.examples import Example
    from quickstudy.model import Model

__all__ = ["COMMANDS"]

UNKNOWN = "unknown"
"""What is printed for an example that resembles no class."""

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

_WHAT = {"image": "images", "text": "sentences", "table": "a table"}


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
        _refuse_to_replace(out)
    check_names(encoder=encoder, head=head, device=device)
    failed: list[str] = []
    examples = _begun(read_examples(support, failed, label))
    with busy("starting"):
        from quickstudy.model import Model
    model = Model.learn(
        _progress(examples, "learning"),
        encoder=encoder,
        head=head,
        label=label,
        false_reject=unknown,
        prior=prior,
        device=device,
        cache=_cache(cache),
        failed=failed,
    )
    _say_failed(failed, strict)
    if out.exists():
        _say(f"{out} is replaced")
    model.save(out)
    about = model.about()
    if model.guess and "columns" not in about:
        _say(model.guess)
    _describe(about)
    _say(f"{out} is ready: quickstudy predict {out} NEW")


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
    examples = _examples(model, files or [], text or [], failed, _share(shard))
    live = "-" in (files or [])
    loaded = _loaded(model, encoder, device)
    rows = csv.writer(sys.stdout, lineterminator="\n")
    shown = printable if sys.stdout.isatty() else str
    if as_csv:
        rows.writerow(["example", "label", "probability"])
    answers = loaded.predict(
        examples, cache=_cache(cache), failed=failed, at_once=1 if live else 64, together=together
    )
    some = False
    for answer in answers:
        some = True
        label = UNKNOWN if answer.label is None else answer.label
        if as_json:
            print(to_json({**vars(answer)}, ensure_ascii=not _is_utf8(sys.stdout)))
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
    _say_failed(failed)
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
    examples = _examples(model, files or [], text or [], failed)
    loaded = _loaded(model, encoder, device)
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

    loaded.add(labelled(), cache=_cache(cache), failed=failed)
    _say_failed(failed, strict)
    if others:
        _say(f"{len(others)} examples have another label, such as {others[0]}: all are {name} now")
    loaded.save(out or model)
    _describe(loaded.about())


def remove(
    model: ModelArgument,
    label: Annotated[str, typer.Option("--class", help="The class to forget.")],
    out: OutOption = None,
) -> None:
    """Make a model forget a class and all its examples."""
    loaded = _loaded(model)
    loaded.remove(label)
    loaded.save(out or model)
    _describe(loaded.about())


def info(model: ModelArgument, as_json: JsonOption = False) -> None:
    """What a model has learned, from what, and how sure it is."""
    from quickstudy.summary import read_summary

    about = read_summary(model).about or _loaded(model).about()
    if as_json:
        print(to_json(about, ensure_ascii=not _is_utf8(sys.stdout)))
    else:
        _describe(about, sys.stdout)


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
    loaded = _trained(model) if _is_trained(model) else _loaded(model, encoder)
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
    examples = _begun(read_examples(test, failed, summary.label))
    loaded = _loaded(model, encoder, device)
    from quickstudy.report import Report

    progress = _progress(examples, "testing")
    result = Report.of(loaded, progress, cache=_cache(cache), failed=failed, together=together)
    _say_failed(failed, strict)
    write_atomically(out, result.html(model.name).encode(errors="xmlcharrefreplace"))
    print(f"accuracy {result.accuracy:.1%} on {result.tested} examples")
    _say(f"the full report is in {out}")


def serve(
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Yours: models that `quickstudy learn` wrote, to be asked over REST; and learners "
            "that you trained (run folders, files of weights), to be shown beside the others."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; default: this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8000,
    name: Annotated[
        list[str] | None, typer.Option(help="Name the server is called by, if not by its address.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads that decode and predict.")] = 2,
    waiting: Annotated[int, typer.Option(min=0, help="Requests that may wait for them.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.1, help="For a request, at most.")] = 30.0,
    rate: Annotated[
        float, typer.Option(min=0.1, help="Requests a second, or megapixels, of each client.")
    ] = 50.0,
    most_connections: Annotated[int, typer.Option("--connections", min=1, help="At once.")] = 200,
    memory: Annotated[int, typer.Option(min=1, help="MiB of examples, of all tasks.")] = 1024,
    proxy: Annotated[
        str | None, typer.Option(help="Address of the proxy whose X-Forwarded-For is believed.")
    ] = None,
    encoder: EncoderOption = None,
    device: DeviceOption = "cpu",
) -> None:
    """A page to draw, drop photos and type on, and its REST API; stop it with Ctrl-C.

    Elsewhere than on this machine it asks for a token, which is printed at the start.
    """
    import gc
    import os
    import secrets
    from urllib.parse import quote

    from quickstudy.extras import need
    from quickstudy.summary import read_summary

    for module in ("fastapi", "prometheus_client"):
        need(module, "app")
    uvicorn = need("uvicorn", "app")
    learners = [str(file) for file in files or [] if _is_trained(file)]
    learned = [file for file in files or [] if not _is_trained(file)]
    for file in learned:
        read_summary(file)
    check_names(encoder=encoder, device=device)
    with busy("starting"):
        import torch

        from quickstudy.app import Limits, Models, Workbench, create_app
        from quickstudy.app.connections import connections
        from quickstudy.memory import return_memory

        return_memory()
        torch.set_num_threads(1)
        limits = Limits(megabytes=memory)
        bench = Workbench(limits, device=device, learners=learners)
        models = Models(learned, encoder=encoder, device=device, limits=limits)
    sys.setswitchinterval(0.0005)  # whoever computes lets the event loop answer soon
    local = host in ("127.0.0.1", "localhost", "::1")
    token = os.environ.get("QUICKSTUDY_TOKEN") or (None if local else secrets.token_urlsafe(16))
    app = create_app(
        bench,
        models=models,
        token=token,
        hosts=None if local else [*(name or ["*"])],
        requests_a_second=rate,
        workers=workers,
        waiting=waiting,
        seconds=seconds,
    )
    bench.warm_up()
    gc.collect()
    gc.freeze()  # looking through torch's own objects again and again would hold up every answer
    shown = f"[{host}]" if ":" in host else host
    _say(f"http://{shown}:{port}/" + (f"#token={quote(token, safe='')}" if token else ""))
    _say(f"the API is described at http://{shown}:{port}/openapi.json")
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        http=connections(most_connections, 10),
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy,
        timeout_graceful_shutdown=3,
    )


COMMANDS = (learn, predict, add, remove, info, report, export, serve)


def _is_trained(path: Path) -> bool:
    """Whether it is a learner that was trained, and not a model that was learned."""
    return path.is_dir() or path.suffix == ".safetensors"


def _loaded(model: Path, encoder: str | None = None, device: str | None = None) -> "Model":
    """A model, with a sign while it is being loaded; what is no model is refused at once."""
    from quickstudy.summary import read_summary

    read_summary(model)
    check_names(encoder=encoder, device=device)
    with busy(f"loading {model}"):
        from quickstudy.model import Model

        return Model.load(model, encoder=encoder, device=device)


def _trained(run: Path) -> "LearnedEncoder":
    if not run.exists():
        raise FileNotFoundError(f"there is no file {run}")
    with busy(f"loading {run}"):
        from quickstudy.encoders import LearnedEncoder

        return LearnedEncoder.of(str(run))


def _begun(examples: Iterator["Example"]) -> Iterator["Example"]:
    """The same examples, of which the first is read at once: what is wrong is said before work."""
    return itertools.chain([*itertools.islice(examples, 1)], examples)


def _share(shard: str | None) -> tuple[int, int]:
    """Which of how many shares: ``"3/16"`` is ``(2, 16)``, and nothing the only one."""
    part, _, parts = ("1/1" if shard is None else shard).partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise ValueError(f"--shard is {shard!r}; expected one of so many, such as 3/16")
    return int(part) - 1, int(parts)


def _examples(
    model: Path,
    files: list[str],
    texts: list[str],
    failed: list[str],
    share: tuple[int, int] = (0, 1),
) -> Iterator["Example"]:
    """What the arguments name, one by one; ``failed`` receives what cannot be read.

    Of several shares each takes its turn, by the order of the examples, and a file that is
    another's is not read.

    The first is looked at before anything heavy is loaded, unless it is still to be typed.
    """
    from quickstudy.examples import Example, as_example, is_table, read_item, read_table
    from quickstudy.files import Files
    from quickstudy.images import is_image, not_read
    from quickstudy.summary import read_summary

    kind = read_summary(model).kind
    if not files and not texts:
        raise ValueError("name something to look at: files, folders, or --text")
    if texts and kind != "text":
        raise ValueError(f"this model was learned from {_WHAT[kind]}; --text is for sentences")

    place, (own, shares) = itertools.count(), share

    def mine(_: object) -> bool:
        return next(place) % shares == own

    def each() -> Iterator[Example]:
        for text in filter(mine, texts):
            try:
                if not text.strip():
                    raise ValueError("a --text is empty")
                yield as_example(text, text)
            except ValueError as fault:
                failed.append(str(fault))
        for file in files:
            try:
                yield from of(file)
            except (OSError, ValueError) as fault:
                if len(files) == 1:
                    raise
                failed.append(str(fault))

    def of(file: str) -> Iterator[Example]:
        if is_table(file):
            faults: list[str] = []
            for example in turns(read_table(file, faults), faults):
                shown = example.item if isinstance(example.item, str) else example.where
                yield Example(example.item, example.label, shown)
        elif kind == "text":
            faults = []
            yield from turns(_lines(file, faults), faults)
        elif file == "-":
            raise ValueError(f"this model was learned from {_WHAT[kind]}; - is for sentences")
        elif kind == "table":
            raise ValueError(f"{file} is no table; this model takes .csv, .tsv, .jsonl or .json")
        elif Path(file).is_dir() or Path(file).suffix.lower() == ".zip":
            with Files(file) as inside:
                if other := not_read(inside.names):
                    _say(f"{file}: {other}")
                for name in filter(mine, filter(is_image, inside.names)):
                    try:
                        yield Example(inside.read(name), None, inside.where(name))
                    except ValueError as fault:
                        failed.append(str(fault))
        elif mine(file):
            yield read_item(file)
        elif not is_image(file) and not Path(file).exists():  # a folder, which all would share
            raise FileNotFoundError(f"no such file: {file}")

    def turns(examples: Iterator[Example], faults: list[str]) -> Iterator[Example]:
        """Those of a file that is read whole; what cannot be read has its turn, too."""
        for example in itertools.chain(examples, [None]):
            failed.extend(filter(mine, faults))
            faults.clear()
            if example is not None and mine(example):
                yield example

    return each() if "-" in files else _begun(each())


def _lines(file: str, failed: list[str]) -> Iterator["Example"]:
    """A sentence a line, of a text file or, for ``-``, of what is being typed or piped in."""
    from quickstudy.examples import Example

    name = "standard input" if file == "-" else file
    if file != "-" and not Path(file).exists():
        raise FileNotFoundError(f"no such file: {file}")
    if file != "-" and not Path(file).is_file():
        raise ValueError(f"{file} is no text file; this model takes sentences")
    with sys.stdin.buffer if file == "-" else Path(file).open("rb") as lines:
        for number, line in enumerate(iter(partial(read_line, lines), b""), 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                failed.append(f"{name}, line {number} is not a text in UTF-8")
                continue
            if text:
                yield Example(text, None, text)


def _progress(examples: Iterator["Example"], label: str) -> Iterator["Example"]:
    """The same examples, counted on standard error while they pass."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}: {task.completed} examples"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=None)
        for example in examples:
            yield example
            progress.advance(task)


def _cache(wanted: bool) -> "FeatureCache | None":
    from quickstudy.encoders import FeatureCache

    return FeatureCache() if wanted else None


def _describe(about: dict[str, Any], file: Any = None) -> None:
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


def _is_utf8(stream: Any) -> bool:
    return str(getattr(stream, "encoding", "")).lower().replace("-", "") == "utf8"


def _refuse_to_replace(out: Path) -> None:
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


def _say_failed(failed: list[str], strict: bool = False) -> None:
    for reason in failed[:_SHOWN]:
        _say(f"left out: {reason}")
    if len(failed) > _SHOWN:
        _say(f"left out: {len(failed) - _SHOWN} more")
    if strict and failed:
        raise ValueError(f"{len(failed)} examples cannot be read, and --strict was given")


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr)
