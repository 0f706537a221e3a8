"""Put runs of `quickstudy reproduce` into the package, and everything that cards say into the docs.

    python tools/results.py [--cards] [RUN_FOLDER ...]

copies the card of each run (and its weights, if the recipe ships them), then writes
``docs/results.md``, the pages under it and the measured blocks of the others, unless ``--cards``
says to stop there. A test compares what stands there
with what this would write, so that no figure can be edited by hand.
"""

import json
import math
import re
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from quickstudy.experiments.card import (
    MARGIN,
    RELATIVE_MARGIN,
    Card,
    Result,
    Verdict,
    load_cards,
    load_seeds,
)
from quickstudy.experiments.recipe import Cell, Recipe, load_recipe, recipe_names
from quickstudy.experiments.reproduce import WEIGHTS, validations

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "src" / "quickstudy" / "experiments" / "recipes"
SECTIONS = {
    "faithful": (
        "By the paper's protocol",
        "Recipes that follow their paper as closely as it can be followed; what is known to differ "
        "stands in each recipe and on its card.",
    ),
    "adapted": (
        "By another protocol",
        "The paper's method and table, trained otherwise: on smoothly shrunk images, from "
        "PyTorch's first weights, or as each recipe says. The weights that ship are of these. They "
        "are not judged against the paper.",
    ),
    "ours": (
        "Without a published protocol",
        "Learners and settings of which no paper reports these figures.",
    ),
    "harder": (
        "Alphabets never seen",
        "MAML's split deals characters at random, so that a test character has sisters of its own "
        "alphabet among those trained on, which flatters; that of Vinyals et al. keeps alphabets "
        "together, but for four characters. Here the 30 background alphabets are trained on and "
        "the 20 evaluation ones tested, as Lake et al. (2015) dealt them, and in the rows 'within "
        "one alphabet' all classes of a task are of one, as they had it too.",
    ),
    "beyond": (
        "Beyond the paper",
        "The same learners, changed to do better; never to be mixed with the above.",
    ),
}
SHOWN = 0.1  # of its protocol's steps: what was trained for less stays off the front table
FRONT = ("faithful", "adapted", "ours")  # the kinds of recipe in the front table
OMNIGLOT = ("5w1s", "5w5s", "20w1s", "20w5s")
HEAD = """# Results

Built from the result cards that `quickstudy reproduce` wrote, by `tools/results.py`; nothing here
was typed. A card holds the command, seed, commit, split fingerprint, versions, hardware and time
of its figures (a `+` after a commit: with changes that were in none, be it a card just made). Each
is printed in full below its table, a page for each kind of recipe; the files lie in
`src/quickstudy/experiments/recipes/cards`.

Figures are accuracy in %, or the mean squared error of sinusoids, with 95% intervals over test
tasks (Student's t). *Reproduced* says that our whole interval lies within the paper's figure, plus
or minus the paper's own interval and {margin:g} points of accuracy ({relative:.0%} of an error),
which is what one training may differ by from another; *above* (better, so a smaller error too) and
*below*, that it lies outside; *not settled*, that it lies across the edge; *cut short*, that the
training did not come to its end and has not reproduced the figure yet. Only recipes that follow
their paper are judged. A figure is *inductive* where an answer never depends on other queries,
and *transductive* where batch norm lets it; the column in bold is the paper's, and is compared
with it.

```console
quickstudy reproduce --list
```
"""


REAL = """Heads on the features of frozen encoders, as `quickstudy learn` uses them, beside what is
usual in scikit-learn on the same features, made unit vectors. Each class of a task has as many
examples as the column says, or one class in five has 10 and the rest have 1, or each has 1 to 5.
Accuracy in %, a mean over classes, and after the stroke in classes of one example alone; in
brackets, where it was kept, the difference from the first row on the same tasks, with the p of a
paired t-test where it is 0.01 or more. The few constants of `logistic`, `ridge`, `centroid` and
`proto-maml` were chosen on these data. Those of `photo` and `sentence` were meta-learned on other
classes of Tiny-ImageNet and CLINC150, with one exception: learned, too, how `sentence` treats small
classes did not carry over to SNIPS, so it is as in `logistic`. 200 tasks, 50 of 20 ways (linear
discriminant analysis, which takes seconds each, answers 15).

```
python benchmarks/real.py DATA_FOLDER
```"""
TOGETHER = """`quickstudy predict --together` beside answers to each example alone, by the first
head of each table above, on classes by which its constants were not chosen. To be answered are 10
of each class of a task; or as many in all, of classes as frequent as a Dirichlet distribution of
concentration 2 says, as far as there are so many (Veilleux et al. 2021, arXiv:2204.11181); or 10
that are all of one class; or 10 of each and as many again of classes that it does not have, which
are not counted. Accuracy in %, alone and together, and in brackets what the same tasks gained. Then
the expected calibration error, alone and together, of the first of the four. 200 tasks, 50 of 20
ways.

```
python benchmarks/together.py DATA_FOLDER
```"""
MIXES = ("alike", "Dirichlet", "one class", "half foreign")
SURE = """How sure the first head of each table is: the expected calibration error of its
probabilities; how far its held-out accuracy is from the true one, on average; the area under the
ROC curve with which the largest probability, and `familiarity`, tell known classes from as many
that it was never shown; and with `--unknown 0.05`, what is called unknown of known classes (after
the stroke, of those with one example) and what of foreign ones is not. Empty where nothing, or too
little, can be held out."""


def publish(run: Path) -> None:
    """Copy what a run ended with."""
    card = Card.load(run / "card.json")
    recipe = load_recipe(card.recipe)
    if card.digest != recipe.digest:
        raise SystemExit(f"{run} was of another version of the recipe {recipe.name}")
    seed = f".seed{card.seed}" if card.seed else ""
    if not card.validation:  # of before cards had it
        found = validations(run, recipe.experiment())
        card = card.model_copy(update={"validation": found})
        card.save(run, recipe)
    shutil.copyfile(run / "card.json", RECIPES / "cards" / f"{card.recipe}{seed}.json")
    if recipe.ships and not card.seed:
        shutil.copyfile(run / WEIGHTS, RECIPES / "weights" / f"{card.recipe}.safetensors")


def pages() -> dict[Path, str]:
    """Every page that shows measured figures, as it should be."""
    cards = load_cards()
    docs = ROOT / "docs"
    found = {docs / "results.md": results(cards), docs / "results" / "real.md": real_use()}
    found |= {docs / "results" / f"{kind}.md": of_kind(kind, cards) for kind in SECTIONS}
    for page in (ROOT / "README.md", *sorted(docs.rglob("*.md"))):
        text = page.read_text()
        fresh = re.sub(
            r"(<!-- measured: (.*?) -->\n).*?(<!-- /measured -->)",
            lambda m: m[1] + block(m[2].split(), cards) + m[3],
            text,
            flags=re.S,
        )
        fresh = re.sub(
            r"(<!-- figure: (.*?) -->).*?(<!-- /figure -->)",
            lambda m: m[1] + figure(*m[2].split(), cards=cards) + m[3],
            fresh,
        )
        if re.search("<!-- (measured|figure): ", text):
            found[page] = fresh
    return found


def results(cards: dict[str, Card]) -> str:
    """docs/results.md: how to read the figures, the best known of them, and where the rest is."""
    head = HEAD.format(margin=MARGIN, relative=RELATIVE_MARGIN)
    lines = [head, "## Omniglot at a glance", ""]
    lines += ["The paper's column where it has one; ours, and the paper's in brackets.", ""]
    lines += [*summary(FRONT, cards), "", counts(cards), ""]
    for kind, (title, said) in SECTIONS.items():
        own = _of(kind)
        run = sum(recipe.name in cards for recipe in own)
        link = f"[{run} of {len(own)} recipes run](results/{kind}.md)"
        lines += [f"## {title}", "", f"{said} {link}.", ""]
    said = "[Photos and sentences](results/real.md), beside scikit-learn on the same features."
    return "\n".join([*lines, "## Real use", "", said]) + "\n"


def of_kind(kind: str, cards: dict[str, Card]) -> str:
    """A page of docs/results: the recipes of a kind in one table, and their cards."""
    title, said = SECTIONS[kind]
    own = _of(kind)
    run = [recipe for recipe in own if recipe.name in cards]
    rest = [recipe for recipe in own if recipe.name not in cards]
    lines = [f"# {title}", "", f"{said} What the columns mean: [results](../results.md).", ""]
    lines += [*table(run, cards), ""] if run else []
    lines += _costs([r for r in rest if r.protocol.data not in ("miniimagenet", "folder")])
    if names := ", ".join(f"`{r.name}`" for r in rest if r.protocol.data == "folder"):
        lines += [f"Not run, being for photos of your own: {names}.", ""]
    if names := ", ".join(f"`{r.name}`" for r in rest if r.protocol.data == "miniimagenet"):
        lines += [
            "Not run for want of mini-ImageNet's images, which its licence lets nobody pass on: "
            f"{names}.",
            "",
        ]
    seeds = {name: several for name, several in load_seeds().items() if load_recipe(name) in own}
    lines += by_seed(seeds) if seeds else []
    lines += ["## Cards", ""] if run else []
    lines += [cards[recipe.name].markdown(recipe).replace("# ", "### ", 1) for recipe in run]
    return "\n".join(lines).rstrip() + "\n"


def by_seed(seeds: dict[str, list[Card]]) -> list[str]:
    """What other first weights and other tasks change, beside the interval over test tasks."""
    lines = [
        "## Other seeds",
        "",
        "The same protocol from other first weights, on other tasks of training and testing: the "
        "standard deviation over seeds is what the interval over test tasks does not know of. "
        "Those marked bf16 were trained in mixed precision.",
        "",
        "| recipe | test | paper | each seed, with its interval over tasks | mean over seeds "
        "| standard deviation |",
        "|---|---|---|---|---|---|",
    ]
    for name, cards in seeds.items():
        for each in zip(*(main_results(card) for card in cards), strict=True):
            means = [result.mean for result in each]
            figures = ", ".join(
                result.figure + " (bf16)" * ("bf16" in card.machine)
                for result, card in zip(each, cards, strict=True)
            )
            lines.append(
                f"| {name} | {each[0].cell.label} | {each[0].paper} | {figures} "
                f"| {statistics.mean(means):.2f} | {statistics.stdev(means):.2f} |"
            )
    return [*lines, ""]


def _of(kind: str) -> list[Recipe]:
    return [r for r in (load_recipe(name) for name in recipe_names()) if r.kind == kind]


def _costs(recipes: list[Recipe]) -> list[str]:
    """What recipes that have not been run would take, as ``benchmarks/recipes.py`` found."""
    if not recipes:
        return []
    found = _measured("recipes")
    if found is None:
        raise SystemExit("first: python benchmarks/recipes.py ROOT")
    lines = [
        "Not run to their end yet: there were only so many hours. What their steps take on one "
        "core that has nothing else to do, validations and tests not counted "
        f"(`{found['command']}`, commit `{found['commit']}`, {found['date']}, {found['machine']}):",
        "",
        "| recipe | steps | seconds a step | hours |",
        "|---|---|---|---|",
    ]
    for recipe in recipes:
        cost = found["recipes"].get(recipe.name, {})
        known = cost.get("digest") == recipe.digest
        figures = f"{cost['seconds']:.2g} | {cost['hours']:.2g}" if known else "not measured |"
        lines.append(f"| `{recipe.name}` | {recipe.protocol.steps:,} | {figures} |")
    return [*lines, ""]


def real_use() -> str:
    """docs/results/real.md: what ``benchmarks/real.py`` measured, two tables a kind of task."""
    lines = ["# Real use", "", REAL, "", SURE, ""]
    for kind in (_measured("real") or {}).values():
        said = f"Seed {kind['seed']}, commit `{kind['commit']}`, {kind['date']}."
        tables: dict[str, list[dict[str, Any]]] = {}
        for part in kind["parts"]:
            tables.setdefault(f"{part['data']}, {part['way']}-way", []).append(part)
        for title, parts in tables.items():
            lines += [f"## {title}", "", *_compared(parts), "", *_sure(parts), "", said, ""]
    return "\n".join([*lines, *many_at_once()]).rstrip() + "\n"


def many_at_once() -> list[str]:
    """What ``benchmarks/together.py`` measured: a row for each data set, way and shot."""
    if (found := _measured("together")) is None:
        return []
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for part in found["parts"]:
        title = f"{part['data']}, {part['way']}-way {part['shot']}-shot"
        rows.setdefault(title, {})[part["mix"]] = part
    lines = ["## Many at once", "", TOGETHER, "", *_heads([*MIXES, "calibration error"])]
    for title, parts in rows.items():
        cells = [_gain(parts[mix]) for mix in MIXES]
        errors = [f"{parts[MIXES[0]][how]['ece']:.3f}" for how in ("alone", "together")]
        lines.append(f"| {title} | {' | '.join(cells)} | {', '.join(errors)} |")
    return [*lines, "", f"Seed {found['seed']}, commit `{found['commit']}`, {found['date']}."]


def _gain(part: dict[str, Any]) -> str:
    alone, together = (100 * part[how]["mean"] for how in ("alone", "together"))
    return f"{alone:.1f}, {together:.1f} ({100 * part['gain']:+.1f} ± {100 * part['ci95']:.1f})"


def _compared(parts: list[dict[str, Any]]) -> list[str]:
    """How right the classifiers are."""
    lines = _heads([part["sizes"] for part in parts])
    for name in dict.fromkeys(row["learner"] for part in parts for row in part["rows"]):
        cells = [_accuracy(part["rows"], name) for part in parts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _sure(parts: list[dict[str, Any]]) -> list[str]:
    """How sure the first of them is."""
    lines = _heads([part["sizes"] for part in parts])
    for said, cell in SURENESS.items():
        lines.append(f"| {said} | {' | '.join(cell(part['sure']) for part in parts)} |")
    return lines


def _heads(names: list[str]) -> list[str]:
    return [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]


def _accuracy(rows: list[dict[str, Any]], name: str) -> str:
    row = next((r for r in rows if r["learner"] == name), None)
    if row is None:
        return ""
    cell = f"{100 * row['mean']:.1f} ± {100 * row['ci95']:.1f}"
    if "one" in row:
        cell += f" / {100 * row['one']:.1f}"
    if "difference" in row:
        sure = "" if row["p"] < 0.01 else f", p = {row['p']:.2f}"
        cell += f" ({100 * row['difference']:+.1f}{sure})"
    return cell


def _percent(*names: str) -> Callable[[dict[str, float]], str]:
    return lambda sure: " / ".join(f"{100 * sure[n]:.1f}" for n in names if n in sure)


SURENESS: dict[str, Callable[[dict[str, float]], str]] = {
    "calibration error": lambda sure: f"{sure['ece']:.3f}",
    "held out less true, %": lambda sure: (
        f"{100 * sure['held out']:+.1f}" if "held out" in sure else ""
    ),
    "area, by probability": lambda sure: f"{sure['by largest probability']:.3f}",
    "area, by familiarity": lambda sure: f"{sure['by familiarity']:.3f}",
    "known, called unknown, %": _percent("known rejected", "known of one rejected"),
    "foreign, not called unknown, %": _percent("foreign accepted"),
}


def load(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/load.py`` measured, in a sentence or two."""
    other = found.get("other")
    before = (
        ""
        if other is None
        else (
            f" Right after, on the same machine, the server before it computed requests together: "
            f"{other['requests_a_second']:.0f} a second, {other['p50_ms']:.0f} ms and "
            f"{other['p99_ms']:.0f} ms."
        )
    )
    return [
        f"{found['requests']:,} predictions by {found['clients']} clients at once, each with a "
        f"task of its own: **{found['requests_a_second']:.0f} a second**, half of them within "
        f"{found['p50_ms']:.0f} ms and 99% within {found['p99_ms']:.0f} ms; {found['wrong']} wrong "
        f"answers; memory {found['memory_before_mib']} MiB before and {found['memory_after_mib']} "
        f"MiB after ({found['machine']}, server and clients together; commit `{found['commit']}`, "
        f"{found['date']}).{before}",
        "",
    ]


def soak(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/soak.py`` measured: a table of what was answered, and the rest."""
    health, wrong = found["health"], found["wrong"]
    lines = [
        f"{found['requests']:,} requests by {found['clients']} clients at once in "
        f"{found['seconds']} s; answered otherwise than expected: {sum(wrong.values())}. Meanwhile "
        f"`GET /api/health` was asked {health['asked']:,} times: half of the answers came within "
        f"{health['p50_ms']:.0f} ms, 99% within {health['p99_ms']:.0f} ms, the last within "
        f"{health['max_ms']:.0f} ms. Memory was {found['memory_before_mib']} MiB after a warm-up "
        f"and {found['memory_after_mib']} MiB at the end, at most {found['memory_peak_mib']} MiB "
        f"between ({found['machine']}, server and clients together; commit `{found['commit']}`, "
        f"{found['date']}).",
        "",
        "| | answers |",
        "|---|---|",
    ]
    for name, counts in found["answered"].items():
        said = (f"{n} times {status if int(status) else 'none'}" for status, n in counts.items())
        lines.append(f"| {name} | {', '.join(said)} |")
    return [*lines, ""]


def performance(found: dict[str, Any]) -> list[str]:
    """What ``make bench`` measured: a table a workload."""
    lines = [
        f"`{found['command']}`, commit `{found['commit']}`, {found['date']}, {found['machine']}, "
        f"torch {found['versions']['torch']}; a product of matrices runs at "
        f"{found['matrix_gflops']:.0f} GFLOP/s. Medians of {found['repeats']} steps, from the "
        "fastest to the slowest in brackets.",
        "",
    ]
    for part in found["parts"]:
        lines += [
            f"**{part['workload']}**, {part['gflop']:.2g} GFLOP",
            "",
            "| | threads | ms | tasks/s | MiB | of the product's rate | times the fastest peer |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in part["rows"]:
            times = row["times_the_fastest_peer"]
            lines.append(
                f"| {row['candidate']} | {row['threads']} | {1e3 * row['seconds']:.0f} "
                f"({1e3 * row['fastest']:.0f} to {1e3 * row['slowest']:.0f}) "
                f"| {row['tasks_a_second']:.3g} | {row['memory_mib']:.0f} "
                f"| {row['of_matrix_rate']:.0%} | {'' if times is None else f'{times:.2f}'} |"
            )
        lines.append("")
    lines += [
        "**Episodes sampled, 20-way, 6 images a class**, one thread",
        "",
        "| | episodes/s | times the documented method |",
        "|---|---|---|",
    ]
    lines += [
        f"| {row['candidate']} | {row['episodes_a_second']:.0f} ({row['slowest']:.0f} to "
        f"{row['fastest']:.0f}) | {row['times']:.1f} |"
        for row in found["episodes"]
    ]
    return [*lines, ""]


def other_machine(found: dict[str, Any]) -> list[str]:
    """What ``make bench`` measured elsewhere, in short."""
    lines = [
        f"Commit `{found['commit']}`, {found['date']}, {found['machine']}; a product of matrices "
        f"runs at {found['matrix_gflops']:.0f} GFLOP/s.",
        "",
        "| | ms | times the fastest peer | of the product's rate | ms in bfloat16 | times |",
        "|---|---|---|---|---|---|",
    ]

    def said(row: dict[str, Any]) -> str:
        return f"| {1e3 * row['seconds']:.0f} | {row['times_the_fastest_peer']:.2f} |"

    for part in found["parts"]:
        rows = {row["candidate"]: row for row in part["rows"]}
        ours, mixed = rows["quickstudy"], rows.get("ours in bfloat16")
        if ours["times_the_fastest_peer"] is None:
            continue
        lines.append(
            f"| {part['workload']} {said(ours)} {ours['of_matrix_rate']:.0%} "
            + ("| | |" if mixed is None else said(mixed))
        )
    return [*lines, ""]


def where(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/where.py`` measured: a table a step, and one of memory."""
    lines = [
        f"`{found['command']}`, commit `{found['commit']}`, {found['date']}; medians of "
        f"{found['repeats']} steps on the same machine, a product of matrices at "
        f"{found['matrix_gflops']:.0f} GFLOP/s.",
        "",
    ]
    for part in found["parts"]:
        lines += [
            f"**{part['workload']}**, {1e3 * part['seconds']:.0f} ms",
            "",
            "| | ms | share | GFLOP | GFLOP/s |",
            "|---|---|---|---|---|",
        ]
        for row in part["rows"]:
            rate = f"{row['gflop'] / row['seconds']:.0f}" if row["gflop"] >= 0.1 else ""
            gflop = f"{row['gflop']:.1f}" if row["gflop"] >= 0.1 else ""
            lines.append(
                f"| {row['kind']} | {1e3 * row['seconds']:.0f} "
                f"| {row['seconds'] / part['seconds']:.0%} | {gflop} | {rate} |"
            )
        lines.append("")
    lines += ["| | MiB of tensors at the peak | parameters of all inner steps |", "|---|---|---|"]
    for row in found["memory"]:
        lines.append(
            f"| {row['workload']}, {row['candidate'].removeprefix('ours, ')} "
            f"| {row['held_mib']:.0f} | {row['parameters_mib']:.0f} |"
        )
    return [*lines, ""]


def photos(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/photos.py`` measured."""
    lines = [
        f"`{found['command']}`, commit `{found['commit']}`, {found['date']}, {found['machine']}; "
        "the photos are of 500x375.",
        "",
        "| | photos/s | times the best peer | CPU ms a photo | MiB at the peak |",
        "|---|---|---|---|---|",
    ]
    for name, row in found["rows"].items():
        lines.append(
            f"| {name} | {row['photos_a_second']:,.0f} | {row['times_the_best_peer']:.3g} "
            f"| {row['cpu_ms']:.1f} | {row['peak_mib']} |"
        )
    tenth = (
        f"With a tenth of the photos, quickstudy's peak is at {found['peak_mib_of_a_tenth']} MiB."
    )
    return [*lines, "", tenth, ""]


def commands(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/commands.py`` measured."""
    seconds = found["cpu_and_wall_seconds"]
    first = next(iter(seconds.values()))[0]
    lines = [
        f"`{found['command']}`, commit `{found['commit']}`, {found['date']}, {found['machine']}.",
        "",
        "| | CPU seconds | times `import torch` | seconds |",
        "|---|---|---|---|",
    ]
    for name, (cpu, wall) in seconds.items():
        lines.append(f"| `{name}` | {cpu:.2f} | {cpu / first:.2f} | {wall:.2f} |")
    return [*lines, ""]


def shards(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/shards.py`` measured."""
    rates = found["photos_a_second"]
    lines = [
        f"`{found['command']}`, commit `{found['commit']}`, {found['date']}, {found['machine']}: "
        f"{found['photos']:,} photos of 500x375, one thread a process, medians, in brackets from "
        "the slowest to the fastest.",
        "",
        "| photos/s | 1 process | 2 processes | times |",
        "|---|---|---|---|",
    ]
    for way in dict.fromkeys(name.split(",")[0] for name in rates):
        each = [rates[f"{way}, {n}"] for n in (1, 2)]
        one, two = map(statistics.median, each)
        cells = [f"{statistics.median(r):.0f} ({min(r):.0f} to {max(r):.0f})" for r in each]
        lines.append(f"| {way} | {' | '.join(cells)} | {two / one:.2f} |")
    return [*lines, ""]


def _measured(name: str) -> dict[str, Any] | None:
    """The figures of a benchmark, if it has been run."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


LINKS = {"10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9, "NVLink, 450 GB/s": 450e9}
PROCESSES, FLOPS, HOP = 512, 10e12, 10e-6
CORES = 16


def scaling(found: dict[str, Any]) -> list[str]:
    """What ``benchmarks/scaling.py`` measured, and what its bytes and FLOPs mean elsewhere."""
    lines = [
        f"`{found['command']}`, commit `{found['commit']}`, {found['date']}, {found['machine']}, "
        f"torch {found['torch']}; one thread a process unless it says two, medians of "
        f"{found['repeats']} in turn, in brackets from the slowest to the fastest.",
        "",
        "| step of one process | tasks/s, 1 process | 2 threads | 2 apart | 2 processes | times |",
        "|---|---|---|---|---|---|",
    ]
    for part in found["parts"]:
        cells = [
            f"{part['medians'][how]:.3g} ({min(rates):.3g} to {max(rates):.3g})"
            for how, rates in part["tasks_a_second"].items()
        ]
        times = part["medians"]["two"] / part["medians"]["one"]
        lines.append(f"| {part['step']} | {' | '.join(cells)} | {times:.2f} |")
    lines += [
        "",
        f"And on {CORES} cores, computed from these: a step of one process by Amdahl's law, and "
        "processes that lose at each doubling what they lose at the first.",
        "",
        f"| step | on one core alone | {CORES} threads | {CORES} processes |",
        "|---|---|---|---|",
    ]
    for part in found["parts"]:
        one, threads, two = (part["medians"][how] for how in ("one", "threads", "two"))
        alone = max(0.0, 2 * one / threads - 1)
        by_threads = 1 / (alone + (1 - alone) / CORES)
        by_processes = (two / one) ** math.log2(CORES)
        lines.append(
            f"| {part['step'].split(':')[0]} | {alone:.0%} of its time | {by_threads:.1f} times "
            f"| {by_processes:.1f} times |"
        )
    heads = " | ".join(LINKS)
    lines += [
        "",
        f"The same steps on {PROCESSES} processes, computed and not measured: each computes at "
        f"{FLOPS / 1e12:.0f} TFLOP/s, a hop takes {1e6 * HOP:.0f} us, and the last columns are the "
        "milliseconds of an all-reduce by bandwidth alone.",
        "",
        f"| step | parameters | kB averaged | GFLOP | compute, ms | hops, ms | {heads} |",
        "|---" * (6 + len(LINKS)) + "|",
    ]
    for part in found["parts"]:
        sent = 2 * (PROCESSES - 1) / PROCESSES * part["gradient_bytes"]
        row = [
            part["step"].split(":")[0],
            f"{part['parameters']:,}",
            f"{part['gradient_bytes'] / 1e3:.0f}",
            f"{part['gflop']:.1f}",
            f"{1e12 * part['gflop'] / FLOPS:.2f}",
            f"{1e3 * 2 * math.log2(PROCESSES) * HOP:.2f}",
            *(f"{1e3 * sent / rate:.3f}" for rate in LINKS.values()),
        ]
        lines.append(f"| {' | '.join(row)} |")
    return [*lines, ""]


def table(recipes: list[Recipe], cards: dict[str, Card], *, links: bool = True) -> list[str]:
    """A row a cell, the batch norm columns side by side, the paper's in bold."""
    heads = ("recipe", "test", "paper", "inductive", "transductive", "difference", "verdict")
    lines = [f"| {' | '.join(heads)} | steps, minutes |", "|---" * (len(heads) + 1) + "|"]
    for recipe in recipes:
        card = cards[recipe.name]
        link = f"[{recipe.name}](#{anchor(recipe.name)})" if links else f"`{recipe.name}`"
        trained = f"{card.steps} of {card.protocol_steps}, {card.training_minutes:.0f}"
        trained += ", settled" * card.settled
        for i, cell in enumerate(recipe.cells):
            own = [result for result in card.results if result.cell == cell]
            first = next((r for r in own if r.paper), None)
            judged = (first.difference, card.verdict(first, recipe) or "") if first else ("", "")
            columns = {
                r.column or "inductive": f"**{r.figure}**" if r.paper else r.figure for r in own
            }
            figures = (columns.get(name, "") for name in ("inductive", "transductive"))
            row = (cell.label, cell.paper, *figures, *judged)
            lines.append(f"| {' | '.join((link * (not i), *row, trained * (not i)))} |")
    return lines


def counts(cards: dict[str, Card]) -> str:
    """How many figures were judged, and how."""
    said: Counter[str] = Counter()
    for name in recipe_names():
        for result in cards[name].results if name in cards else ():
            if verdict := cards[name].verdict(result, load_recipe(name)):
                said[verdict] += 1
    parts = [f"{said[verdict]} {verdict}" for verdict in get_args(Verdict) if said[verdict]]
    return f"Of {said.total()} figures judged against their papers: {', '.join(parts)}."


def summary(kinds: tuple[str, ...], cards: dict[str, Card]) -> list[str]:
    """A row a paper, a column a cell of Omniglot's table."""
    rows: dict[str, dict[str, str]] = {}
    for name, recipe in ((n, load_recipe(n)) for n in recipe_names()):
        protocol = recipe.protocol
        if recipe.kind not in kinds or protocol.data != "omniglot" or name not in cards:
            continue
        trained = cards[name].steps / max(protocol.steps, 1)
        if trained < SHOWN and protocol.steps and not cards[name].settled:
            continue
        short = "" if cards[name].complete else f", cut short at {trained:.0%}"
        for result in main_results(cards[name]):
            if result.cell.label in OMNIGLOT:
                column = "" if result.column != "transductive" else ", transductive"
                title = recipe.title.removesuffix(", Omniglot") + column + short
                row = rows.setdefault(title, {})
                row[result.cell.label] = result.figure + _in_brackets(result, recipe)
    lines = [f"| | {' | '.join(OMNIGLOT)} |", "|---|---|---|---|---|"]
    for title, row in rows.items():
        lines.append(f"| {title} | {' | '.join(row.get(cell, '') for cell in OMNIGLOT)} |")
    return lines


def figures(words: list[str], cards: dict[str, Card]) -> list[str]:
    """A row for each recipe, a column for each test (those named, or all), and the commands."""
    wanted = [word for word in words if re.fullmatch(r"\d+w\d+s", word)]
    names = [word for word in words if word not in wanted]
    rows: dict[str, dict[str, str]] = {}
    for name in names:
        card, recipe = cards[name], load_recipe(name)
        title = re.sub(r", (Omniglot|sinusoids)\b.*", "", recipe.title)
        if recipe.protocol.data == "sinusoid":
            title += f", trained on {recipe.protocol.shot} points"
        steps = f"{card.steps:,} of {card.protocol_steps:,}" if card.protocol_steps else "none"
        for result in main_results(card):
            label = result.cell.label
            if wanted and label not in wanted:
                continue
            column = "" if result.column != "transductive" else ", transductive"
            row = rows.setdefault(name + column, {"": title + column, "outer steps": steps})
            test = re.sub(r"^(\d+)w(\d+)s$", r"\1-way \2-shot", label).removeprefix("5-way, ")
            row[test] = result.figure.replace(" ", "&nbsp;") + _in_brackets(result, recipe)
    tests = dict.fromkeys(head for row in rows.values() for head in row if head[-5:] != "steps")
    heads = [*tests, "outer steps"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(row.get(head, '') for head in heads)} |" for row in rows.values()]
    return [*lines, "", f"By {', '.join(_command(cards[name]) for name in names)}."]


def _in_brackets(result: Result, recipe: Recipe) -> str:
    """The paper's figure, where ours is like for like."""
    like = result.paper and recipe.kind == "faithful"
    return f" ({result.cell.published:g})" if like else ""


def _command(card: Card) -> str:
    return f"`quickstudy reproduce {card.recipe}`"


def figure(name: str, test: str, column: str = "", *, cards: dict[str, Card]) -> str:
    """One figure of a card, to stand in a sentence."""
    return next(
        result.figure
        for result in cards[name].results
        if result.cell.label.replace(" ", "-") == test and column in (result.column or "")
    )


def main_results(card: Card) -> Iterator[Result]:
    """The first column of each cell, and every one that the paper has."""
    seen: list[Cell] = []
    for result in card.results:
        if result.cell not in seen:
            seen.append(result.cell)
            yield result


def small_tables(found: dict[str, Any]) -> list[str]:
    """Small public tables, ours beside others."""
    shots = found["shots"]
    head = [f"| | {' | '.join(f'{shot} rows a class' for shot in shots)} |", "|---" * 5 + "|"]
    right, sure = [*head], [*head]
    for name in next(iter(shots.values())):
        shown = "quickstudy" if name == "ours" else name
        each = [methods[name] for methods in shots.values()]
        gaps = (f": {row['gap']:+.1f} ± {row['gap_ci95']:.1f}" for row in each)
        counts = (f" ({row['wins']} / {row['losses']})" for row in each)
        ahead = ["" if name == "ours" else g + c for g, c in zip(gaps, counts, strict=True)]
        cells = (f"{row['accuracy']:.1f}{gap}" for row, gap in zip(each, ahead, strict=True))
        right.append(f"| {shown} | {' | '.join(cells)} |")
        cells = (f"{r['loss']:.3f}, {r['ece']:.3f}, {r['rank']:.1f}" for r in each)
        sure.append(f"| {shown} | {' | '.join(cells)} |")
    lines = [
        "Accuracy in %: how far ours is ahead, with 95% intervals over tables, and on how many "
        "tables it is surely better / worse.",
        "",
        *right,
        "",
        "Log-loss, expected calibration error, mean rank by accuracy.",
        "",
        *sure,
        "",
    ]
    names = ", ".join(found["tables"])
    lines += [
        f"{len(found['tables'])} tables: {names}. {found['draws']} draws of each (those tuned: the "
        f"first {found.get('tuned', 0)}), up to 300 other rows to answer; the same rows for all. "
        f"`{found['command']}`, commit `{found['commit']}`.",
        "",
    ]
    return lines


def time_to_accuracy(found: dict[str, Any]) -> list[str]:
    """How soon each learner reached its target, and what it had reached when."""
    lines = ["| | target | reached after | accuracy at the end, after |", "|---|---|---|---|"]
    names = {"maml": "MAML, transductive", "protonet": "ProtoNet"}
    for name, entrants in found["curves"].items():
        target = found["targets"][name]
        for entrant, curve in entrants.items():
            soon = next((seconds for seconds, _, reached in curve if reached >= target), None)
            seconds, steps, last = curve[-1]
            loop = "" if entrant == "quickstudy" else ", as others write it"
            cells = [f"{names[name]}{loop}", f"{target:.0f}%"]
            cells += ["not" if soon is None else f"{soon:.0f} s"]
            cells += [f"{last:.1f}%, {seconds:.0f} s, {steps:,} steps"]
            lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"`{found['command']}`, commit `{found['commit']}`, {found['cpu']}.", ""]


BENCHMARKS = {
    "performance": performance,
    "performance-other": other_machine,
    "where": where,
    "load": load,
    "soak": soak,
    "scaling": scaling,
    "shards": shards,
    "photos": photos,
    "commands": commands,
    "public-tables": small_tables,
    "everyday-tables": small_tables,
    "time-to-accuracy": time_to_accuracy,
}


def block(words: list[str], cards: dict[str, Card]) -> str:
    """What a page shows: of some learners, of some recipes, or of Omniglot's table."""
    if words[0] == "figures":
        return "\n".join(figures(words[1:], cards)) + "\n"
    if words[0] in BENCHMARKS:
        found = _measured(words[0])
        lines = BENCHMARKS[words[0]](found) if found else ["Not yet measured.", ""]
        return "\n".join(lines)
    if words == ["omniglot"]:
        return "\n".join(summary(FRONT, cards)) + "\n"
    if words == ["counts"]:
        return counts(cards) + "\n"
    recipes = [load_recipe(name) for name in recipe_names() if name in cards]
    own = [recipe for recipe in recipes if _learner(recipe) in words]
    return "\n".join(table(own, cards, links=False)) + "\n" if own else "Not yet run by a recipe.\n"


def _learner(recipe: Recipe) -> str:
    return "ensemble" if recipe.members else recipe.protocol.learner


def anchor(name: str) -> str:
    """Of a heading."""
    return re.sub(r"[^\w-]", "", name.lower())


def main() -> None:
    words = sys.argv[1:]
    for run in words:
        if run != "--cards":
            publish(Path(run))
    if "--cards" in words:
        return
    for page, text in pages().items():
        page.parent.mkdir(exist_ok=True)
        page.write_text(text)


if __name__ == "__main__":
    main()
