"""Result cards: what a recipe gave, when, where and from what, written by the run itself."""

import json
import os
from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from quickstudy.checkpoint import write_atomically
from quickstudy.experiments.recipe import Cell, Recipe
from quickstudy.policy import Policy

__all__ = ["Card", "Result", "Verdict", "load_cards", "verdict"]

Verdict = Literal["above", "within", "below", "budget too small to say", "no published figure"]


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
        verdict: against the paper; only the first column is compared.
    """

    cell: Cell
    column: Policy | None
    mean: float
    ci95: float
    tasks: int
    verdict: Verdict

    @property
    def paper(self) -> str:
        """The paper's figure, where this column is to be compared with it."""
        return "" if self.verdict == "no published figure" else self.cell.paper

    @property
    def figure(self) -> str:
        """Mean and interval, as printed."""
        digits = 2 if self.mean >= 1.5 or self.ci95 >= 0.5 else 3
        return f"{self.mean:.{digits}f} ± {self.ci95:.{digits}f}"


class Card(_Model):
    """What running a recipe gave.

    Attributes:
        recipe: its name.
        digest: of its protocol, see `Recipe.digest`.
        command: what was typed.
        seed: of weights, training tasks and test tasks.
        commit: of the code that evaluated; ``+`` if it had uncommitted changes.
        date: of the evaluation.
        data: which split of which data.
        fingerprint: of that split.
        steps: outer steps trained.
        protocol_steps: of the recipe.
        budget_minutes: training time asked for in all sittings, ``None`` for no limit.
        training_minutes: training time spent, validation included.
        best_step: where validation chose the weights, ``None`` for the last step.
        weights: SHA-256 of the weights file evaluated.
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
    budget_minutes: float | None
    training_minutes: float
    best_step: int | None
    weights: str
    versions: dict[str, str]
    machine: str
    results: list[Result]

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
            return cls.model_validate_json(Path(path).read_text())
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise ValueError(f"{path} is not a result card: {place}: {first['msg']}") from error

    def markdown(self, recipe: Recipe) -> str:
        """The card as a page."""
        lines = [f"# {recipe.name}", "", f"{recipe.title}. {recipe.paper}.", ""]
        lines += ["| test | batch norm | paper | ours | verdict |", "|---|---|---|---|---|"]
        for result in self.results:
            test = f"{result.cell.label}, {result.tasks} tasks"
            judgement = result.verdict if result.paper else ""
            row = (test, result.column or "none", result.paper, result.figure, judgement)
            lines.append(f"| {' | '.join(row)} |")
        budget = "none" if self.budget_minutes is None else f"{self.budget_minutes:g} minutes"
        chosen = "the last step" if self.best_step is None else f"step {self.best_step}"
        versions = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        lines += [
            "",
            f"- Trained for {self.steps} of the protocol's {self.protocol_steps} steps in "
            f"{self.training_minutes:.1f} minutes (budget: {budget}); weights of {chosen}.",
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


def verdict(
    cell: Cell, mean: float, ci95: float, *, error: bool, complete: bool, compared: bool = True
) -> Verdict:
    """Ours against the paper's: the same if the two 95% intervals meet.

    Args:
        cell: with the paper's figure.
        mean: ours.
        ci95: of ours.
        error: whether less is better.
        complete: whether the whole protocol was trained; if not, falling short says nothing.
        compared: whether this column is the paper's.
    """
    if cell.published is None or not compared:
        return "no published figure"
    gap = (mean - cell.published) * (-1 if error else 1)
    if abs(gap) <= ci95 + (cell.interval or 0.0):
        return "within"
    if gap > 0:
        return "above"
    return "below" if complete else "budget too small to say"


def load_cards() -> dict[str, Card]:
    """The cards that come with quickstudy, by recipe."""
    folder = resources.files("quickstudy.experiments.recipes") / "cards"
    files = [Path(str(file)) for file in folder.iterdir()] if folder.is_dir() else []
    cards = [Card.load(file) for file in sorted(files) if file.suffix == ".json"]
    return {card.recipe: card for card in cards}
