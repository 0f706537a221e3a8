"""The outer loop, plain PyTorch, with what a long run needs around it.

`loop` has the loop, `session` what follows each of its steps.
"""

from quickstudy.training.folder import BEST, CHECKPOINT, FINAL, check_free, save_untrained
from quickstudy.training.loop import train
from quickstudy.training.session import TrainResult

__all__ = ["BEST", "CHECKPOINT", "FINAL", "TrainResult", "check_free", "save_untrained", "train"]
