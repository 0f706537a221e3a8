"""all-MiniLM-L6-v2 in plain PyTorch: to import sentence-transformers takes longer than to answer.

A BERT of six layers (Devlin et al. 2019), whose last one is averaged over the tokens of a text.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from quickstudy.cores import on_all_cores
from quickstudy.extras import need

__all__ = ["MiniLM"]

_HEADS, _LAYERS, _EPSILON = 12, 6, 1e-12
_AT_ONCE = 8


class MiniLM:
    """Sentences to vectors ``[n,384]`` of length 1, as ``SentenceTransformer.encode`` gives them.

    Args:
        folder: holds ``model.safetensors`` and ``tokenizer.json``.

    Attributes:
        max_seq_length: tokens that it reads of a sentence.
    """

    max_seq_length = 256

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        tokenizers = need("tokenizers", "text")
        self._tokenizer = tokenizers.Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._weights = load_file(Path(folder, "model.safetensors"))

    def to(self, device: torch.device) -> Self:
        """Compute there."""
        self._weights = {name: z.to(device) for name, z in self._weights.items()}
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Its weights, named and ordered as sentence-transformers does: it is known by them."""
        return {f"0.model.{name}": self._weights[name] for name in _names()}

    def tokenizer(self, text: str, **how: object) -> dict[str, list[int]]:
        """All tokens of a text, by the interface of transformers."""
        return {"input_ids": self._tokenizer.encode(text.strip()).ids}

    def encode(self, texts: Sequence[str], **how: object) -> NDArray[np.float32]:
        """Vectors of sentences, by the interface of sentence-transformers."""
        tokens = [torch.tensor(self._first(text)) for text in texts]
        by_length = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        parts = [by_length[k : k + _AT_ONCE] for k in range(0, len(texts), _AT_ONCE)]
        found = on_all_cores(lambda rows: self._vectors([tokens[i] for i in rows]), parts)
        vectors = np.empty((len(texts), 384), np.float32)
        for rows, z in zip(parts, found, strict=True):
            vectors[rows] = z
        return vectors

    def _first(self, text: str) -> list[int]:
        ids = self.tokenizer(text)["input_ids"]
        return ids if len(ids) <= self.max_seq_length else ids[: self.max_seq_length - 1] + ids[-1:]

    @torch.no_grad()
    def _vectors(self, tokens: list[Tensor]) -> NDArray[np.float32]:
        ids = pad_sequence(tokens, batch_first=True)
        there = torch.arange(ids.shape[1]) < torch.tensor([len(each) for each in tokens])[:, None]
        of = self._weights
        words = of["embeddings.word_embeddings.weight"]
        ids, there = ids.to(words.device), there.to(words.device)
        z = F.embedding(ids, words) + of["embeddings.position_embeddings.weight"][: ids.shape[1]]
        z = self._norm("embeddings", z + of["embeddings.token_type_embeddings.weight"][0])
        for layer in range(_LAYERS):
            z = self._layer(f"encoder.layer.{layer}", z, there)
        weight = there.unsqueeze(-1).to(z.dtype)
        vectors: NDArray[np.float32] = (
            F.normalize((z * weight).sum(1) / weight.sum(1), dim=-1).cpu().numpy()
        )
        return vectors

    def _layer(self, name: str, z: Tensor, there: Tensor) -> Tensor:
        n, t, d = z.shape
        q, k, v = (
            self._linear(f"{name}.attention.self.{part}", z).view(n, t, _HEADS, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        seen = seen.transpose(1, 2).reshape(n, t, d)
        seen = self._linear(f"{name}.attention.output.dense", seen)
        z = self._norm(f"{name}.attention.output", z + seen)
        thought = F.gelu(self._linear(f"{name}.intermediate.dense", z))
        return self._norm(f"{name}.output", z + self._linear(f"{name}.output.dense", thought))

    def _linear(self, name: str, z: Tensor) -> Tensor:
        return F.linear(z, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, z: Tensor) -> Tensor:
        weight, bias = (self._weights[f"{name}.LayerNorm.{part}"] for part in ("weight", "bias"))
        return F.layer_norm(z, z.shape[-1:], weight, bias, _EPSILON)


def _names() -> list[str]:
    attention = [f"attention.{part}" for part in ("self.query", "self.key", "self.value")]
    attention += ["attention.output.dense", "attention.output.LayerNorm"]
    rest = ["intermediate.dense", "output.dense", "output.LayerNorm"]
    layers = [f"encoder.layer.{i}.{part}" for i in range(_LAYERS) for part in attention + rest]
    tables = [f"embeddings.{of}_embeddings.weight" for of in ("word", "position", "token_type")]
    both = ["embeddings.LayerNorm", *layers, "pooler.dense"]
    return tables + [f"{name}.{part}" for name in both for part in ("weight", "bias")]
