"""quickstudy: train once on many tasks, then learn a new one from a handful of examples."""

__version__ = "0.1.0"
