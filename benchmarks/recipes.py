"""How long the recipes take: ``python benchmarks/recipes.py ROOT [RECIPE ...]``.

A few steps of each recipe that has no card yet (or of those named), tasks drawn and all, by one
thread; and what its whole protocol would take at that rate. ``ROOT`` is a folder with Omniglot's
zips. Writes ``benchmarks/results/recipes.json``, from which ``tools/results.py`` says beside each
recipe that has not been run what it would take.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from quickstudy.experiments.card import load_cards
from quickstudy.experiments.recipe import Recipe, load_recipe, recipe_names
from quickstudy.experiments.start import build_started, keep_encoder, look_once, looking_once_pays
from quickstudy.memory import keep_memory
from results_file import keep

OUT = Path(__file__).parent / "results" / "recipes.json"


def seconds_a_step(recipe: Recipe, root: str, steps: int) -> float:
    """The median over so many steps, after one that is not counted.

    Where the encoder is kept, looking at all images once, before the first, is none of them.
    """
    experiment = recipe.experiment(root).with_details()
    start = experiment.start
    learner = build_started(experiment, start) if start else experiment.build_learner()
    tasks = experiment.sampler("train")
    if experiment.keep_encoder:
        encoder = keep_encoder(learner)
        if looking_once_pays(experiment, encoder, tasks):
            look_once(encoder, tasks, say=print)
    optimizer, _ = experiment.build_optimizer(learner)
    took = []
    middle = recipe.protocol.steps // 2  # tasks may grow
    for step in range(steps + 1):
        began = time.perf_counter()
        loss = learner.loss(tasks[middle + step])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        took.append(time.perf_counter() - began)
    return statistics.median(took[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("recipes", nargs="*")
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_memory()
    cards = load_cards()
    found: dict[str, Any] = json.loads(OUT.read_text())["recipes"] if OUT.exists() else {}
    for name in given.recipes or [n for n in recipe_names() if n not in cards]:
        recipe = load_recipe(name)
        if recipe.protocol.data in ("miniimagenet", "folder"):
            continue
        seconds = seconds_a_step(recipe, given.root, given.steps)
        hours = seconds * recipe.protocol.steps / 3600
        found[name] = {
            "digest": recipe.digest,
            "seconds": round(seconds, 4),
            "hours": round(hours, 3),
        }
        print(f"{name}: {seconds:.3f} s a step, {hours:.1f} hours", flush=True)
        keep(OUT, {"command": "python benchmarks/recipes.py ROOT", "recipes": found})


if __name__ == "__main__":
    main()
