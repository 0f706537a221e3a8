"""Several processes: how they begin, and how all end when one is lost."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from subprocess import Popen
from typing import Any, get_args

import torch
from torch import Tensor

from quickstudy.devices import find_device
from quickstudy.policy import Precision

__all__ = [
    "LostProcessError",
    "first_goes",
    "launch",
    "mean_over_processes",
    "noticing_loss",
    "processes",
]

PRECISIONS = get_args(Precision)
GRACE = 30.0
PATIENCE = timedelta(days=7)


class LostProcessError(RuntimeError):
    """Another process of this training has ended or no longer answers."""


def processes() -> int:
    """How many share this work, this one included."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size()
    return 1


def mean_over_processes(x: Tensor) -> Tensor:
    """``x`` averaged over all processes of a distributed training; itself if there is but one."""
    if processes() == 1:
        return x
    total = x.clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def launch(accelerator: str, devices: int, precision: str) -> Any:
    """A `lightning_fabric.Fabric` whose processes all run.

    Args:
        accelerator: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        devices: processes to start on this machine, one per device. Ignored in a process that
            torchrun (or ``fabric run``, which calls it) has started: the number of processes and
            machines is then what torchrun says.
        precision: of `PRECISIONS`; ``"16-mixed"`` is for GPUs.

    Raises:
        ValueError: the accelerator or the precision is another, or is not to be had here.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}; expected one of: {', '.join(PRECISIONS)}")
    device = find_device(accelerator)
    if ":" in accelerator:
        raise ValueError(
            f"accelerator is {accelerator!r}, one device; expected auto, cpu, cuda or mps, and how "
            "many (CUDA_VISIBLE_DEVICES says which)"
        )
    if precision == "16-mixed" and device.type != "cuda":
        raise ValueError("precision 16-mixed is for GPUs of NVIDIA; a CPU has bf16-mixed")
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    nodes = 1
    if TorchElasticEnvironment.detect():
        devices, nodes = (int(os.environ[f"{of}_WORLD_SIZE"]) for of in ("LOCAL", "GROUP"))
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=precision,  # type: ignore[arg-type]
    )
    if os.environ.get("LT_CLI_USED") != "1":  # under ``fabric run`` making it has launched it
        fabric.launch()
    children: list[Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    if children:
        # Fabric's own watch kills this process at once and without a word.
        threading.Thread(target=_watch, args=(children[:],), daemon=True).start()
        children.clear()
    return fabric


def _watch(children: Sequence[Popen[bytes]]) -> None:
    """End this process, too, if a child has failed and nothing here has noticed for `GRACE`."""
    while not any(codes := [child.poll() for child in children]):
        time.sleep(0.5)
    time.sleep(GRACE)
    print(f"error: {_lost(f'exit codes {codes}')}", file=sys.stderr, flush=True)
    for child in children:
        child.kill()
    os._exit(1)


@contextmanager
def noticing_loss() -> Iterator[None]:
    """A block in which processes speak with each other.

    Raises:
        LostProcessError: one did not answer.
    """
    try:
        yield
    except RuntimeError as error:
        message = str(error)
        if not (isinstance(error, torch.distributed.DistError) or "gloo/" in message):
            raise
        raise LostProcessError(_lost(message.split("] ", 1)[-1].split(". ")[0])) from error


def _lost(reason: str) -> str:
    return (
        f"a process of this training is gone ({reason}); start as many again to go on from the "
        "last checkpoint"
    )


@contextmanager
def first_goes() -> Iterator[bool]:
    """Whether this is the first of the processes; the others wait for it at the end of the block.

    Raises:
        LostProcessError: the first did not get there.
    """
    if processes() == 1:
        yield True
        return
    with noticing_loss():
        group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield torch.distributed.get_rank() == 0
    finally:
        with noticing_loss():
            torch.distributed.barrier(group)
