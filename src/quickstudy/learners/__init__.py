"""Meta-learners: one paper, one file, one class."""

from quickstudy.learners.anil import ANIL
from quickstudy.learners.baseline import Baseline
from quickstudy.learners.cnp import ConditionalNeuralProcess
from quickstudy.learners.ensemble import Ensemble
from quickstudy.learners.logistic import Logistic
from quickstudy.learners.lstm import BlackBoxLSTM
from quickstudy.learners.maml import MAML
from quickstudy.learners.maml_plus_plus import MAMLPlusPlus
from quickstudy.learners.mann import MANN
from quickstudy.learners.matching import MatchingNetwork
from quickstudy.learners.meta_sgd import MetaSGD
from quickstudy.learners.nearest import NearestNeighbour, SoftNearestNeighbour
from quickstudy.learners.pmf import PMF
from quickstudy.learners.proto_maml import ProtoMAML
from quickstudy.learners.protonet import ProtoNet
from quickstudy.learners.r2d2 import R2D2
from quickstudy.learners.reptile import Reptile
from quickstudy.learners.scratch import Scratch
from quickstudy.learners.simpleshot import SimpleShot
from quickstudy.learners.table_transformer import TableTransformer
from quickstudy.learners.tables import TableKernels
from quickstudy.learners.transformer import InContextTransformer

__all__ = [
    "ANIL",
    "MAML",
    "MANN",
    "PMF",
    "R2D2",
    "Baseline",
    "BlackBoxLSTM",
    "ConditionalNeuralProcess",
    "Ensemble",
    "InContextTransformer",
    "Logistic",
    "MAMLPlusPlus",
    "MatchingNetwork",
    "MetaSGD",
    "NearestNeighbour",
    "ProtoMAML",
    "ProtoNet",
    "Reptile",
    "Scratch",
    "SimpleShot",
    "SoftNearestNeighbour",
    "TableKernels",
    "TableTransformer",
]
