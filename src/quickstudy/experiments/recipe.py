"""Recipes: a published result as one readable file that says everything about how to get it.

A recipe is TOML. `Recipe` checks it, `load_recipe` finds it by name, `recipe_names` lists those
that come with quickstudy. A file may hold several trainings of one paper (``[runs.5w1s]``, ...):
each is a recipe, named after the file and the run.
"""

import hashlib
import json
import re
import tomllib
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from quickstudy._moved import names_from
from quickstudy.experiments.heeded import check_heeded
from quickstudy.experiments.spec import (
    DataName,
    Experiment,
    Query,
    RateSchedule,
    Rotations,
    Setup,
    Shot,
    SplitName,
    Tasks,
)
from quickstudy.experiments.targets import BASELINES
from quickstudy.plain import read_file, reading
from quickstudy.policy import Policy, company

if TYPE_CHECKING:
    from quickstudy.data import TaskSource

__all__ = [
    "Cell",
    "Recipe",
    "TrainingProtocol",
    "Validation",
    "load_recipe",
    "recipe_names",
    "shipped",
    "weights_file",
]

__getattr__ = names_from(__name__, {"Protocol": "quickstudy.experiments.recipe:TrainingProtocol"})

Kind = Literal["faithful", "adapted", "harder", "beyond", "ours"]
Count = Annotated[int, Field(ge=1)]
# The order of a protocol's fields in a digest, which cards are tied to; newer fields come after.
_DIGESTED = re.findall(
    r"\S+",
    """
    learner data split rotations size channels invert classes backbone filters downsample
    batch_norm way shot most_shot query tasks augment steps optimizer lr schedule halve_every
    average options inner_loss paper_inner_rate
    """,
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingProtocol(Setup):
    """How a recipe trains: the fields of an `Experiment`, which mean the same here.

    A recipe says how many examples, tasks and steps there are. Unless it says otherwise, there are
    no rotations and the rate is constant, as in most papers.

    Attributes:
        options: keywords of the learner's class.
        inner_loss: what the inner rate belongs to: our inner loss is always the ``"mean"`` over
            the support. Required where there is an inner rate.
        paper_inner_rate: the paper's rate, and the reduction that *it* belongs to.
    """

    data: DataName
    split: SplitName | None = None
    rotations: Rotations = False
    shot: Shot
    query: Query
    tasks: Tasks
    steps: Annotated[int, Field(ge=0, description="Outer steps.")]
    schedule: RateSchedule = "constant"
    inner_loss: Literal["mean"] | None = None
    paper_inner_rate: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if ("inner_lr" in self.options) != (self.inner_loss is not None):
            raise ValueError("inner_lr and inner_loss belong together: give both or neither")
        if (self.split is None) != (
            self.data in ("sinusoid", "tables", "alphabets", "miniimagenet")
        ):
            raise ValueError(
                f"data={self.data!r} "
                + ("needs a split" if not self.split else "has its own split")
            )
        return self


class Validation(_Strict):
    """The tasks by which the best weights are chosen; without it the last ones are reported."""

    way: Count = 5
    shot: Count = 1
    query: Count = 15
    tasks: Count = 200
    every: Count = 1000


class Cell(_Strict):
    """One figure of the paper's table: a kind of test task, and what the paper reports.

    Attributes:
        published: accuracy in %, or the mean squared error; ``None`` if the paper has no figure.
        interval: the paper's 95% interval, as half its width.
        columns: batch norm policies to report, the paper's first; empty without batch norm.
        instance: with MANN's offset protocol, accuracy at this example of a class; 1 is the first.
        at_test: what the learner's attributes are in a test, such as ``{"inner_steps": 3}``; of
            a list, the value that does best on the validation tasks.
        within_group: tasks within one alphabet.
        balanced: answers make use of it that all classes have as many queries.
    """

    way: Count = 5
    shot: Count
    query: Count = 15
    tasks: Count = 600
    columns: list[Policy] = []
    at_test: dict[str, int | float | list[int | float]] = {}
    instance: Count | None = None
    within_group: bool = False
    balanced: bool = False
    data: DataName | None = None
    split: SplitName | None = None
    rotations: bool | None = None
    published: float | None = None
    interval: Annotated[float, Field(ge=0)] | None = None

    @property
    def label(self) -> str:
        """Such as ``5w1s``, ``20w1s within alphabets``, ``10 points`` or ``2nd instance``."""
        if self.instance is not None:
            ending = {1: "st", 2: "nd", 3: "rd"}.get(self.instance, "th")
            return f"{self.way}-way, {self.instance}{ending} instance"
        if self.data == "sinusoid":
            return f"{self.shot} points"
        words = " within one alphabet" if self.within_group else ""
        test = f"{self.way}w{self.shot}s{words}"
        return ", ".join(filter(None, (test, company(self.at_test.get("refine"), self.balanced))))

    @property
    def paper(self) -> str:
        """The paper's figure, as printed; empty if it has none."""
        if self.published is None:
            return ""
        return f"{self.published:g}" + ("" if self.interval is None else f" ± {self.interval:g}")


class Recipe(_Strict):
    """One training, and the figures it is for.

    Attributes:
        name: what it is called by: ``quickstudy reproduce NAME``.
        kind: ``"faithful"`` (the paper's protocol; what is left to differ is listed and small),
            ``"adapted"`` (the paper's method and table by another protocol), ``"harder"``
            (another split or task), ``"beyond"`` (changed to do better), or ``"ours"`` (no
            published protocol).
        paper: authors, year, and which table.
        code: the reference implementation, and the place in it that settles what the paper leaves
            open.
        differs: what is known to differ from the paper.
        members: trained learners, by the names that `quickstudy evaluate` takes, that are asked
            together, see `quickstudy.learners.Ensemble`; nothing is trained then, and the protocol
            says on what they are tested.
        ships: its weights come with quickstudy, see `quickstudy.load`.
        digest: of its protocol, validation and cells, and not of words about them; a card of
            another digest is of another recipe.
    """

    name: str
    title: str
    kind: Kind
    paper: str
    code: str | None = None
    differs: list[str] = []
    ships: bool = False
    members: list[str] = []
    protocol: TrainingProtocol
    validation: Validation | None = None
    cells: Annotated[list[Cell], Field(min_length=1)]

    @model_validator(mode="after")
    def _trains(self) -> "Recipe":
        lists = [n for c in self.cells for n, value in c.at_test.items() if isinstance(value, list)]
        if lists and self.validation is None:
            raise ValueError(f"{lists[0]} is to be chosen, but there is no validation")
        if self.members and self.protocol.steps:
            raise ValueError("members have been trained: steps should be 0")
        trains = self.protocol.learner not in BASELINES and not self.members
        if trains and not self.protocol.steps:
            raise ValueError(f"steps is 0, and {self.protocol.learner} has to be trained")
        self._check_refined()
        for cell in self.cells:
            numbers = (cell.data or self.protocol.data) == "sinusoid"
            if cell.balanced and (numbers or cell.instance is not None):
                raise ValueError(f"balanced is of queries of classes; {cell.label} has none")
        given = self.protocol.model_dump(exclude_unset=True, exclude_none=True)
        check_heeded(self.experiment(), given)
        return self

    @property
    def digest(self) -> str:
        words = {"kind", "ships", "title", "paper", "code", "differs"}
        stated = self.model_dump(exclude=words, exclude_defaults=True)
        protocol = stated["protocol"]
        ordered = {name: protocol[name] for name in _DIGESTED if name in protocol}
        stated["protocol"] = ordered | protocol
        text = json.dumps(stated)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _check_refined(self) -> None:
        """A figure of queries together is marked as such, see `Cell.label`."""
        for cell in self.cells:
            steps = cell.at_test.get("refine", self.protocol.options.get("refine", 0))
            if type(steps) is not int or steps < 0:
                raise ValueError(f"refine is {steps!r}; expected a whole number, at least 0")
            if "refine" in self.protocol.options and "refine" not in cell.at_test:
                raise ValueError(
                    "options has refine, so at_test of every cell should have it, too (0 for a "
                    "test without it)"
                )

    def experiment(self, root: str | None = None, seed: int = 0) -> Experiment:
        """The run that the protocol describes, on data in ``root``."""
        settings = self.protocol.model_dump(
            exclude={"inner_loss", "paper_inner_rate", "split", "steps"}, exclude_none=True
        )
        steps = max(self.protocol.steps, 1)
        split = self.protocol.split or "random"
        return Experiment(**settings, split=split, steps=steps, root=root, seed=seed)

    def test_tasks(self, cell: Cell, experiment: Experiment) -> "TaskSource":
        """The tasks that a cell is measured on, one per batch."""
        shape = cell.model_dump(include={"way", "shot", "query", "within_group"})
        tested_on = self.tested_on(cell, experiment)
        return tested_on.sampler("test", **shape, tasks=1, seed=experiment.seed)

    def tested_on(self, cell: Cell, experiment: Experiment) -> Experiment:
        """The experiment on the data of a cell, which may be others."""
        source = cell.model_dump(include={"data", "split", "rotations"}, exclude_none=True)
        return experiment.replace(**source) if source else experiment


def recipe_names() -> list[str]:
    """The recipes that come with quickstudy, by name."""
    return list(_shipped())


def shipped() -> list[str]:
    """The recipes whose weights come with quickstudy: what `quickstudy.load` knows by name."""
    return sorted(file.stem for file in weights_file("").parent.glob("*.safetensors"))


def weights_file(name: str) -> Path:
    """Where the weights of a recipe are, if they come with quickstudy."""
    folder = resources.files("quickstudy.experiments.recipes") / "weights"
    return Path(str(folder), f"{name}.safetensors")


def load_recipe(name: str) -> Recipe:
    """A recipe that comes with quickstudy, by name, or your own, by the path of its file.

    A file with several runs is named together with the run: ``mine.toml:5w1s``.

    Raises:
        FileNotFoundError: there is no such recipe; says which there are.
        ValueError: the file is not a recipe; names the file, the field and what is wrong with it.
    """
    file, _, run = name.partition(":")
    if file.endswith(".toml"):
        if not Path(file).is_file():
            raise FileNotFoundError(f"there is no file {file}")
        with reading(file, "a recipe"):
            written = _read(Path(file).stem, read_file(file).decode("utf-8"), file)
            recipes = {key: _checked(*each) for key, each in written.items()}
        if len(recipes) > 1 or run:
            key = f"{Path(file).stem}-{run}"
            if key not in recipes:
                runs = ", ".join(n.removeprefix(f"{Path(file).stem}-") for n in recipes)
                runs = f"it has: {runs}" if len(recipes) > 1 else f"it has one: name it {file}"
                raise FileNotFoundError(f"{file} has no run {run!r}; {runs}")
            return recipes[key]
        return next(iter(recipes.values()))
    return _one_shipped(name)


@cache
def _one_shipped(name: str) -> Recipe:
    known = _shipped()
    if name not in known:
        near = [other for other in known if name.lower() in other]
        near = near if 0 < len(near) < 10 else get_close_matches(name.lower(), known, 3)
        raise FileNotFoundError(
            f"there is no recipe {name!r}; {'did you mean ' if near else 'see '}"
            + (", ".join(near) + "?" if near else "quickstudy reproduce --list")
        )
    return _checked(*known[name])


@cache
def _shipped() -> dict[str, "_Written"]:
    folder = resources.files("quickstudy.experiments.recipes")
    written: dict[str, _Written] = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.name.endswith(".toml"):
            written |= _read(file.name.removesuffix(".toml"), file.read_text("utf-8"), file.name)
    return written


class _Written(NamedTuple):
    """A recipe as it is written, and where; not checked yet, which takes torch."""

    fields: dict[str, Any]
    where: str


def _read(stem: str, text: str, where: str) -> dict[str, _Written]:
    """The recipes of one file: a run's tables are laid over those that all runs share."""
    try:
        data = tomllib.loads(text)
    except (RecursionError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{where} is not TOML: {error}") from error
    runs = data.pop("runs", {"": {}})
    if not isinstance(runs, dict) or not runs:
        raise ValueError(f"{where}: runs should be a table of trainings")
    written = {}
    for run, changes in runs.items():
        if run and not re.fullmatch(r"\w[\w.+-]*", run):  # it becomes the name of a folder
            raise ValueError(
                f"{where}: a run is called {run!r}; expected letters, digits, and . + - _"
            )
        _check_tables(where, data, changes)
        merged = {**data, **changes, "name": f"{stem}-{run}" if run else stem}
        merged["protocol"] = _laid_over(data.get("protocol", {}), changes.get("protocol", {}))
        written[merged["name"]] = _Written(merged, where + f", run {run}" * bool(run))
    return written


def _checked(fields: dict[str, Any], where: str) -> Recipe:
    try:
        return Recipe(**fields)
    except ValidationError as error:
        errors = error.errors()  # a word that is not known explains another that is missing
        first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
        place = ".".join(map(str, first["loc"])) or "recipe"
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{where}: {place}: {message}") from error


def _check_tables(where: str, *tables: Any) -> None:
    """Raise ``ValueError`` unless what should be a table is one."""
    for table in tables:
        protocol = table.get("protocol", {}) if isinstance(table, dict) else None
        if not isinstance(protocol, dict) or not isinstance(protocol.get("options", {}), dict):
            raise ValueError(f"{where}: runs, protocol and options should be tables")


def _laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    options = {**below.get("options", {}), **above.get("options", {})}
    return {**below, **above, **({"options": options} if options else {})}
