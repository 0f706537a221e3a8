"""Encoders for real data: photos, drawings and sentences to the numbers that learners take.

An encoder is frozen: it was trained elsewhere, on much more. What it says of an image or a text
depends on nothing else, so its answers are kept on disk by content (`FeatureCache`).
"""

from quickstudy.encoders.cache import FeatureCache, content_key
from quickstudy.encoders.encoder import Encoder
from quickstudy.encoders.encoding import encode
from quickstudy.encoders.images import DrawingEncoder, PixelEncoder
from quickstudy.encoders.learned import LearnedEncoder
from quickstudy.encoders.loading import AbsentEncoder, built_in_encoder, load_encoder
from quickstudy.encoders.photos import PhotoEncoder, PhotoNetwork, efficientnet
from quickstudy.encoders.sentences import SentenceEncoder
from quickstudy.encoders.tables import TableEncoder

__all__ = [
    "AbsentEncoder",
    "DrawingEncoder",
    "Encoder",
    "FeatureCache",
    "LearnedEncoder",
    "PhotoEncoder",
    "PhotoNetwork",
    "PixelEncoder",
    "SentenceEncoder",
    "TableEncoder",
    "built_in_encoder",
    "content_key",
    "efficientnet",
    "encode",
    "load_encoder",
]
