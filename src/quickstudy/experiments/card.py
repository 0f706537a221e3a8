"""Result cards: what a recipe gave, when, where and from what, written by the run itself."""

import json
import math
import os
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from quickstudy._moved import refused_from
from quickstudy.experiments.recipe import Cell, Recipe
from quickstudy.plain import read_file, reading, write_atomically
from quickstudy.policy import Policy

__all__ = ["Card", "Result", "Verdict", "load_cards", "load_seeds"]

__getattr__ = refused_from(__name__, {"verdict": "Card.verdict"})

Verdict = Literal["reproduced", "above", "below", "not settled", "cut short"]
MARGIN, RELATIVE_MARGIN = 0.5, 0.1
"""What a training may differ by from the paper's: points of accuracy, or a part of an error."""
_SHOWN = 10  # validations on a card


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Result(_Model):
    """One figure, measured.

    Attributes:
        cell: the kind of test task, with what the paper reports.
        column: the batch norm policy, ``None`` without batch norm.
        mean: accuracy in %, or the mean squared error.
        ci95: half of its 95% confidence interval over test tasks.
        tasks: how many.
    """

    cell: Cell
    column: Policy | None
    mean: float
    ci95: float
    tasks: int

    @model_validator(mode="before")
    @classmethod
    def _without_verdict(cls, values: Any) -> Any:
        return _without(values, "verdict")  # as cards once had it

    @property
    def paper(self) -> str:
        """The paper's figure, where this column is to be compared with it: the first is."""
        return self.cell.paper if self.column in (None, *self.cell.columns[:1]) else ""

    @property
    def difference(self) -> str:
        """Ours minus the paper's, and half its 95% interval as far as both give one."""
        if not self.paper or self.cell.published is None:
            return ""
        digits = self._digits
        half = math.hypot(self.ci95, self.cell.interval or 0.0)
        return f"{self.mean - self.cell.published:+.{digits}f} ± {half:.{digits}f}"

    @property
    def figure(self) -> str:
        """Mean and interval, as printed."""
        return f"{self.mean:.{self._digits}f} ± {self.ci95:.{self._digits}f}"

    @property
    def _digits(self) -> int:
        return 2 if self.mean >= 1.5 or self.ci95 >= 0.5 else 3


class Card(_Model):
    """What running a recipe gave.

    Attributes:
        recipe: its name.
        digest: of its protocol, see `Recipe.digest`.
        command: what was typed, without what belongs to a sitting.
        seed: of weights, training tasks and test tasks.
        commit: of the code that evaluated; ``+`` if it had uncommitted changes.
        date: of the evaluation.
        data: which split of which data.
        fingerprint: of that split.
        steps: outer steps trained.
        protocol_steps: of the recipe.
        training_minutes: training time spent in all sittings, validation included.
        settled: training ended before the protocol because validation had long brought nothing new.
        best_step: where validation chose the weights, ``None`` for the last step.
        validation: what it gave, by step: accuracy in %, or the mean squared error.
        weights: SHA-256 of the weights file evaluated.
        members: of a recipe that asks several together, what the weights of each were: SHA-256 (16
            hex digits) of their numbers.
        versions: of Python and the libraries.
        machine: what it ran on.
        results: a figure for each cell and column.
    """

    recipe: str
    digest: str
    command: str
    seed: int
    commit: str
    date: str
    data: str
    fingerprint: str | None
    steps: int
    protocol_steps: int
    training_minutes: float
    settled: bool = False
    best_step: int | None
    validation: dict[int, float] = {}
    weights: str
    members: dict[str, str] = {}
    versions: dict[str, str]
    machine: str
    results: list[Result]

    @model_validator(mode="before")
    @classmethod
    def _without_budget(cls, values: Any) -> Any:
        return _without(values, "budget_minutes")  # as cards once had it

    @property
    def complete(self) -> bool:
        """Whether training came to its end."""
        return self.settled or self.steps >= self.protocol_steps

    def verdict(self, result: Result, recipe: Recipe) -> Verdict | None:
        """What one of the results says about the paper's figure; ``None`` if it cannot say.

        ``"reproduced"``: our whole 95% interval lies within the paper's figure, plus or minus the
        paper's own interval and what one training may differ by from another (half a point of
        accuracy, a tenth of an error). ``"above"`` (better) or ``"below"``: the whole of it lies
        outside. ``"not settled"``: it lies across the edge, and more test tasks would tell.
        ``"cut short"``: not reproduced, by a training that did not come to its end. Only recipes
        that follow their paper are judged.
        """
        published = result.cell.published
        if published is None or not result.paper or recipe.kind != "faithful":
            return None
        error = recipe.protocol.data == "sinusoid"
        margin = RELATIVE_MARGIN * published if error else MARGIN
        margin += result.cell.interval or 0.0
        gap = (result.mean - published) * (-1 if error else 1)
        if abs(gap) + result.ci95 <= margin:
            return "reproduced"
        if gap - result.ci95 > margin:
            return "above"
        if not self.complete:
            return "cut short"
        return "below" if gap + result.ci95 < -margin else "not settled"

    def save(self, folder: str | os.PathLike[str], recipe: Recipe) -> None:
        """Write ``card.json`` and ``card.md``."""
        data = self.model_dump(exclude_defaults=True)
        write_atomically(Path(folder) / "card.json", json.dumps(data, indent=1) + "\n")
        write_atomically(Path(folder) / "card.md", self.markdown(recipe))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Card":
        """Read a ``card.json``.

        Raises:
            ValueError: it is not a card; names the field.
        """
        try:
            with reading(path, "a result card"):
                text = read_file(path).decode("utf-8")
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path} is not a result card: {place}: {first['msg']}") from error

    def markdown(self, recipe: Recipe) -> str:
        """The card as a page."""
        lines = [f"# {recipe.name}", "", f"{recipe.title}. {recipe.paper}.", ""]
        heads = ("test", "batch norm", "paper", "ours", "difference", "verdict")
        lines += [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for result in self.results:
            test = f"{result.cell.label}, {result.tasks} tasks"
            said = (result.difference, self.verdict(result, recipe) or "")
            row = (test, result.column or "none", result.paper, result.figure, *said)
            lines.append(f"| {' | '.join(row)} |")
        versions = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        lines += [
            "",
            f"- {self._training(recipe)}.",
            *([f"- Validation: {self._curve()}."] if self.validation else []),
            f"- Data: {self.data}"
            + (f", fingerprint `{self.fingerprint}`." * bool(self.fingerprint)),
            f"- Seed {self.seed}, commit `{self.commit}`, {self.date}.",
            f"- {self.machine}; {versions}.",
            f"- Weights: SHA-256 `{self.weights}`.",
            *(f"- Differs from the paper: {line}" for line in recipe.differs),
            "",
            "```",
            self.command,
            "```",
        ]
        return "\n".join(lines) + "\n"

    def _training(self, recipe: Recipe) -> str:
        """How it came to its weights, in a sentence."""
        if recipe.members:
            said = (f"{name} (`{self.members.get(name, '')}`)" for name in recipe.members)
            return f"Asked together, and not trained any more: {', '.join(said)}"
        if not self.protocol_steps:
            return "Nothing is trained"
        chosen = "the last step" if self.best_step is None else f"step {self.best_step}"
        early = ", ended when validation had long brought nothing new" * self.settled
        return (
            f"Trained for {self.steps} of the protocol's {self.protocol_steps} steps in "
            f"{self.training_minutes:.1f} minutes{early}; weights of {chosen}"
        )

    def _curve(self) -> str:
        """Where it was heading: validation at some of its steps, the last one among them."""
        steps = sorted(self.validation)
        some = steps[:: -math.ceil(len(steps) / _SHOWN)][::-1]
        return ", ".join(f"{self.validation[step]:.4g} at step {step}" for step in some)


def _without(values: Any, name: str) -> Any:
    if isinstance(values, dict):
        return {key: value for key, value in values.items() if key != name}
    return values


def load_cards() -> dict[str, Card]:
    """The cards that come with quickstudy, by recipe: those of seed 0."""
    return {card.recipe: card for card in _shipped() if card.seed == 0}


def load_seeds() -> dict[str, list[Card]]:
    """All cards of the recipes that were trained from several seeds, by recipe, by seed."""
    cards: dict[str, list[Card]] = {}
    for card in sorted(_shipped(), key=lambda card: card.seed):
        cards.setdefault(card.recipe, []).append(card)
    return {recipe: own for recipe, own in cards.items() if len(own) > 1}


def _shipped() -> list[Card]:
    folder = resources.files("quickstudy.experiments.recipes") / "cards"
    files = [Path(str(file)) for file in folder.iterdir()] if folder.is_dir() else []
    return [Card.load(file) for file in sorted(files) if file.suffix == ".json"]
