"""Tables for people, and the same for programs: what the command line prints."""

import dataclasses
import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from quickstudy._moved import refused_from
from quickstudy.plain import printable, to_json

if TYPE_CHECKING:
    from quickstudy.comparison import Study
    from quickstudy.evaluation import Comparison, Evaluation
    from quickstudy.experiments.card import Card
    from quickstudy.experiments.recipe import Recipe

__all__ = [
    "card_table",
    "figure",
    "instance_table",
    "learner_table",
    "recipe_table",
    "saved_table",
    "study_table",
]

__getattr__ = refused_from(__name__, {"study_rows": "quickstudy.comparison.Study.rows"})


def figure(result: "Evaluation") -> str:
    """Mean and interval, in % if an accuracy, without naming the metric."""
    return result.figure if result.mean < 1e4 else "diverged"


def _words(text: Any) -> Text:
    """What a file says or is called: no markup, and no command to the terminal."""
    return Text(printable(str(text)))


def saved_table(
    names: list[str], pairs: list[tuple["Evaluation", "Comparison"]], as_json: bool
) -> None:
    """Saved evaluations by name, each with its comparison with the first."""
    if as_json:
        rows = [
            {**dataclasses.asdict(difference), **result.as_dict(), "target": name}
            for name, (result, difference) in zip(names, pairs, strict=True)
        ]
        print(to_json(rows))
        return
    table = Table("", pairs[0][0].metric, "batch norm", Column(_words(f"against {names[0]}")))
    for i, (name, (result, difference)) in enumerate(zip(names, pairs, strict=True)):
        norm = _words(", ".join(filter(None, (result.batch_norm, result.company))) or "-")
        table.add_row(_words(name), figure(result), norm, str(difference) if i else "")
    Console().print(table)


def study_table(result: "Study") -> None:
    """A study: by examples, by gradient steps, and its example."""
    first = result.by_shot[result.baseline]
    shots = list(first)
    label = first[shots[0]].metric.label
    print(f"{result.what}, {label} by number of examples:")
    table = Table("", *map(str, shots), f"against {result.baseline}, at {shots[0]}")
    for name, row in result.by_shot.items():
        against = result.against_baseline(name, shots[0])
        figures = (figure(e) for e in row.values())
        table.add_row(name, *figures, "" if name == result.baseline else against.figure)
    console = Console()
    console.print(table)
    if result.by_step:
        steps = list(next(iter(result.by_step.values())))
        print(f"{result.what}, {label} by gradient steps, at {shots[0]}:")
        table = Table("", *map(str, steps))
        for name, curve in result.by_step.items():
            table.add_row(name, *(figure(e) for e in curve.values()))
        console.print(table)
    if result.names is not None:
        classes = " and ".join(result.names)
        print(f"One task of two classes never seen, {classes}, one example each:")
        for name, score in result.example_scores().items():
            n = result.example.query_y.shape[1]
            print(f"  {name}: {round(score * n)} of {n} right")


def instance_table(results: dict[int, "Evaluation"], as_json: bool) -> None:
    """Accuracy at the 1st, 2nd, ... example of a class."""
    if as_json:
        print(to_json({j: result.as_dict() for j, result in results.items()}))
        return
    table = Table("instance of its class", "accuracy, %")
    for j, result in results.items():
        table.add_row(str(j), figure(result))
    Console().print(table)


def learner_table() -> None:
    """Every learner by name, with its class and its own options."""
    from quickstudy import learners
    from quickstudy.experiments.spec import LEARNERS, learner_options

    table = Table("name", "class", "its options, with their defaults", box=None)
    for name, (kind, preset) in LEARNERS.items():
        parameters = inspect.signature(getattr(learners, kind)).parameters
        options = []
        for option, expected in learner_options(name).items():
            value = preset.get(option, parameters[option].default)
            if hasattr(value, "direction"):
                value = type(value).__name__.lower()
            flag = option.replace("_", "-")
            if expected is bool:
                options.append(f"--no-{flag}" if value else f"--{flag}")
            else:
                options.append(f"--{flag}" if value is None else f"--{flag} {value}")
        table.add_row(name, kind, "  ".join(options))
    Console().print(table)


def recipe_table(words: Sequence[str] = ()) -> None:
    """Every recipe and cell: the paper's figure, and that of the card if there is one.

    Raises:
        FileNotFoundError: no recipe has any of the words in its name.
    """
    from quickstudy.experiments.card import load_cards
    from quickstudy.experiments.recipe import load_recipe, recipe_names

    cards = load_cards()
    table = Table(Column("recipe", no_wrap=True), "kind", "test", "batch norm", "paper", "ours")
    table.add_column("steps")
    table.add_column("verdict")
    names = [n for n in recipe_names() if not words or any(w.lower() in n for w in words)]
    if not names:
        raise FileNotFoundError(f"no recipe is called anything with {' or '.join(words)}")
    for name in names:
        recipe, card = load_recipe(name), cards.get(name)
        for i, cell in enumerate(recipe.cells):
            first = (name, recipe.kind) if i == 0 else ("", "")
            if card is None:
                row = (cell.label, "", cell.paper, "", "", "not yet run")
                table.add_row(*first, *row, end_section=cell is recipe.cells[-1])
                continue
            results = [r for r in card.results if r.cell == cell]
            for j, result in enumerate(results):
                table.add_row(
                    *(first if j == 0 else ("", "")),
                    cell.label if j == 0 else "",
                    result.column or "",
                    result.paper,
                    result.figure,
                    f"{card.steps} of {card.protocol_steps}" if (i, j) == (0, 0) else "",
                    card.verdict(result, recipe) or "",
                    end_section=cell is recipe.cells[-1] and result is results[-1],
                )
    Console(width=None if sys.stdout.isatty() else 180).print(table)


def card_table(card: "Card", recipe: "Recipe") -> None:
    """A card's figures beside the paper's."""
    rows = [
        {
            "test": result.cell.label,
            "batch norm": result.column or "",
            "paper": result.paper,
            "ours": result.figure,
            "difference": result.difference,
            "verdict": card.verdict(result, recipe) or "",
        }
        for result in card.results
    ]
    heads = [head for head in rows[0] if any(row[head] for row in rows)]
    table = Table(*(Column(head, no_wrap=True) for head in heads))
    for row in rows:
        table.add_row(*(row[head] for head in heads))
    print(printable(card.recipe))
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    if card.protocol_steps:
        print(
            f"{card.steps} of the protocol's {card.protocol_steps} steps, "
            f"{card.training_minutes:.1f} minutes of training"
        )
