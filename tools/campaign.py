"""Train recipes to their end, one after another, over as many sittings as it takes.

    python tools/campaign.py --root DATA [--minutes 60] [--workers 2] [--precision P] [RECIPE ...]

takes the recipes of `QUEUE` (or those named) in order, each by `quickstudy reproduce` with one
thread, so that each worker keeps a core busy. What an earlier sitting began goes on where it
stopped, and what is finished is passed over. A finished recipe's card (and weights, if it ships
them) goes into the package at once; `python tools/results.py` then renews the pages.

``RECIPE@1`` is the recipe from seed 1, in ``runs/seed1``.

    python tools/campaign.py --keep checkpoints     copies what unfinished runs need into a folder
    python tools/campaign.py --restore checkpoints  and from there into the runs, on another machine
"""

import argparse
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from quickstudy.experiments.card import Card
from quickstudy.experiments.recipe import load_recipe
from quickstudy.training import BEST, CHECKPOINT

ROOT = Path(__file__).parents[1]
SEVERAL = (
    *("protonet-omniglot-paper-1shot", "matching-omniglot"),
    *("maml-omniglot-paper-5w1s", "maml-omniglot-paper-20w1s"),
)
"""Recipes that are trained from three seeds."""
QUEUE = (
    "nearest-omniglot",
    "maml-sinusoid-5shot",
    "maml-sinusoid-10shot",
    "maml-sinusoid-20shot",
    "meta-sgd-sinusoid-5shot",
    "meta-sgd-sinusoid-10shot",
    "meta-sgd-sinusoid-20shot",
    "fomaml-omniglot-paper-5w1s",
    "tables",
    "r2d2-omniglot-paper",
    "protonet-omniglot-paper-1shot",
    "maml-omniglot-paper-5w1s",
    "reptile-omniglot-paper-5way",
    "protonet-omniglot-paper-5shot",
    "maml-omniglot-paper-5w5s",
    "lstm-omniglot-5w1s",
    "transformer-omniglot-5way",
    "mann-omniglot",
    "mann-support-omniglot-5w1s",
    "cnp-omniglot-5way",
    "anil-omniglot-paper-20w1s",
    "maml++-omniglot-5w1s",
    "baseline-omniglot",
    "simpleshot-omniglot",
    "fomaml-omniglot-paper-5w5s",
    "matching-fce-omniglot",
    "maml-omniglot-paper-20w1s",
    "maml-omniglot-paper-20w5s",
    "fomaml-omniglot-paper-20w1s",
    "fomaml-omniglot-paper-20w5s",
    "reptile-omniglot-paper-20way",
    "protonet-omniglot-trainval",
    "meta-sgd-omniglot-paper-5way",
    "meta-sgd-omniglot-paper-20way",
    "anil-omniglot-paper-20w5s",
    "maml-unseen-alphabets",
    "protonet-unseen-alphabets",
    "matching-unseen-alphabets",
    "r2d2-unseen-alphabets",
    "maml-omniglot-beyond-5w1s",
    "maml-omniglot-beyond-5w5s",
    "maml-omniglot-beyond-20w1s",
    "maml-omniglot-beyond-20w5s",
    "protonet-omniglot-beyond",
    "protonet-maml-split-beyond-1shot",
    "protonet-maml-split-beyond-upto5shot",
    "matching-omniglot-beyond",
    "r2d2-omniglot-beyond",
    "ensemble-omniglot-beyond",
    "ensemble-maml-split-beyond",
    "cnp-aided-omniglot-5way",
    "soft-nearest-omniglot",
    "matching-omniglot",
    "transformer-omniglot-20way",
    "lstm-omniglot-5w5s",
    "lstm-omniglot-20w1s",
    "lstm-omniglot-20w5s",
    "lstm-unaided-omniglot",
    "mann-support-omniglot-5w5s",
    "mann-support-omniglot-20w1s",
    "mann-support-omniglot-20w5s",
    "maml++-omniglot-5w5s",
    "maml++-omniglot-20w1s",
    "maml++-omniglot-20w5s",
    "lstm-sinusoid-5shot",
    "lstm-sinusoid-10shot",
    "transformer-sinusoid-5shot",
    "transformer-sinusoid-10shot",
    "table-transformer",
    *(f"{name}@{seed}" for name in SEVERAL for seed in (1, 2)),
)
NEEDED = ("run.json", "metrics.csv", CHECKPOINT, BEST)


def folder_of(name: str, runs: Path) -> Path:
    """Of the run of ``RECIPE`` or ``RECIPE@SEED``."""
    recipe, _, seed = name.partition("@")
    return runs / f"seed{seed}" / recipe if seed else runs / recipe


def name_of(folder: Path) -> str:
    """What `folder_of` has put there."""
    above = folder.parent.name
    return f"{folder.name}@{above[4:]}" if re.fullmatch(r"seed\d+", above) else folder.name


def finished(name: str, runs: Path) -> bool:
    """Whether a run, or the package, has the card of this recipe's whole training."""
    recipe = load_recipe(name.partition("@")[0])
    package = ROOT / "src/quickstudy/experiments/recipes/cards" / name.replace("@", ".seed")
    for path in (folder_of(name, runs) / "card.json", package.with_name(f"{package.name}.json")):
        if path.is_file():
            card = Card.load(path)
            if card.digest == recipe.digest and card.complete:
                return True
    return False


def work(name: str, root: str, runs: Path, until: float, precision: str) -> None:
    """Train one recipe as far as time allows; nothing if another worker has it or it is done."""
    folder, (recipe, _, seed) = folder_of(name, runs), name.partition("@")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".campaign").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        minutes = (until - time.time()) / 60
        if minutes < 1 or finished(name, runs):
            return
        print(f"{time.strftime('%H:%M')} {name}: {minutes:.0f} minutes", flush=True)
        command = [sys.executable, "-m", "quickstudy", "reproduce", recipe, "--threads", "1"]
        command += ["--seed", seed] if seed else []
        command += [
            "--root",
            root,
            "--out",
            str(folder.parent),
            "--budget",
            f"{minutes:.1f}",
            "--quiet",
        ]
        command += [] if precision == "32-true" else ["--precision", precision]
        with (folder / "campaign.log").open("a") as log:
            done = subprocess.run(
                command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
        if done.returncode:
            print(f"{time.strftime('%H:%M')} {name}: failed, see {folder / 'campaign.log'}")
        elif finished(name, runs):
            publish = [sys.executable, str(ROOT / "tools" / "results.py"), "--cards", str(folder)]
            subprocess.run(publish, check=True)
            print(f"{time.strftime('%H:%M')} {name}: finished", flush=True)


def copy(source: Path, target: Path) -> None:
    """What unfinished runs need to go on."""
    for folder in sorted(path.parent for path in source.rglob(CHECKPOINT)):
        name = name_of(folder)
        if not finished(name, source):
            kept = folder_of(name, target)
            kept.mkdir(parents=True, exist_ok=True)
            for file in NEEDED:
                if (folder / file).is_file():
                    shutil.copyfile(folder / file, kept / file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", default=QUEUE)
    parser.add_argument("--root", help="folder with the data")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--precision", default="32-true", help="a run keeps the one it began with")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--restore", type=Path)
    given = parser.parse_args()
    if given.keep or given.restore:
        copy(*((given.runs, given.keep) if given.keep else (given.restore, given.runs)))
        return
    until = time.time() + 60 * given.minutes
    with ThreadPoolExecutor(given.workers) as pool:
        for name in given.recipes:
            pool.submit(work, name, given.root, given.runs, until, given.precision)


if __name__ == "__main__":
    main()
