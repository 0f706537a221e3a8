"""Meta-learners: one paper, one file, one class."""

from quickstudy.learners.lstm import BlackBoxLSTM
from quickstudy.learners.maml import MAML
from quickstudy.learners.nearest import NearestNeighbour
from quickstudy.learners.protonet import ProtoNet

__all__ = ["MAML", "BlackBoxLSTM", "NearestNeighbour", "ProtoNet"]
