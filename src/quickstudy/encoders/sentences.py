"""Sentences to vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quickstudy.encoders.encoder import Array, Fingerprint, Kind, text_of
from quickstudy.examples import Example
from quickstudy.names import is_built_in

__all__ = ["SentenceEncoder"]


class SentenceEncoder:
    """Sentences to vectors, by a sentence-transformers model.

    Vectors are kept on disk as the features of a `PhotoEncoder` are; not those of a model that
    has no ``state_dict``, of which its name says all that is known.

    Args:
        model: a ``SentenceTransformer``, or what can be asked like one.
        name: what to call it.
    """

    kind: Kind = "text"

    def __init__(self, model: Any, *, name: str) -> None:
        self.model, self.name = model, name
        self._known = Fingerprint(model)

    @property
    def fingerprint(self) -> str:
        """Of its weights as they are now, its layers, and how much it reads of a text."""
        own = not (is_built_in(self.name) or ":" in self.name)
        layers = f" {self.model.max_seq_length}\n{self.model}" if own else ""
        return self._known(self.name + layers)

    @property
    def kept(self) -> bool:
        """Whether its vectors may be kept by its fingerprint."""
        return hasattr(self.model, "state_dict")

    def cuts(self, example: Example) -> bool:
        """Whether the model reads only the beginning of a text."""
        longest = self.model.max_seq_length
        text = example.item
        if not longest or isinstance(text, bytes) or len(text) < longest - 2:
            return False  # a token has a character at least
        tokens = self.model.tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return bool(len(tokens) > longest)

    def __call__(self, examples: Sequence[Example]) -> Array:
        texts = [text_of(e) for e in examples]
        vectors: Array = self.model.encode(texts, show_progress_bar=False, convert_to_numpy=True)
        return vectors.astype(np.float32)
