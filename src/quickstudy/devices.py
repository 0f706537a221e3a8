"""Which device computes."""

import torch

__all__ = ["find_device"]


def find_device(name: str | torch.device | None) -> torch.device:
    """A device that is there.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, or ``"auto"`` for the fastest;
            ``None`` for the CPU.

    Raises:
        ValueError: there is no such device; says which there are.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    wanted = "cpu" if name is None else str(name)
    if wanted == "auto":
        wanted = next((fast for fast in ("cuda", "mps") if fast in there), "cpu")
    if wanted not in there:
        raise ValueError(f"there is no device {wanted!r} here; there are: auto, {', '.join(there)}")
    return torch.device(wanted)
