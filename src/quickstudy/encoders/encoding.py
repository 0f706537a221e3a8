"""Streams of examples to streams of features."""

import sqlite3
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from quickstudy.encoders.cache import FeatureCache, content_key
from quickstudy.encoders.encoder import Array, Encoder
from quickstudy.encoders.images import PixelEncoder
from quickstudy.encoders.sentences import SentenceEncoder
from quickstudy.encoders.tables import TableEncoder
from quickstudy.examples import Example

__all__ = ["encode"]

_AT_ONCE = 32


def encode(
    encoder: Encoder,
    examples: Iterable[Example],
    *,
    cache: FeatureCache | None = None,
    failed: list[str] | None = None,
    at_once: int = _AT_ONCE,
) -> Iterator[tuple[Example, Array]]:
    """Examples with their numbers, as they come, a few at a time.

    Args:
        encoder: what turns them into numbers.
        examples: may be endless; only a few are held at once.
        cache: where to look first, and to keep what is new. One that fails is done without, and a
            warning says so.
        failed: receives what is wrong with each example that cannot be read; such an example is
            left out. Without it the first one raises.
        at_once: how many are read before they are encoded together, at most 32.

    Raises:
        ValueError: an example cannot be read, and ``failed`` is not given.
    """
    stream, cut = iter(examples), list[str]()
    if isinstance(encoder, PixelEncoder | TableEncoder) or not getattr(encoder, "kept", True):
        cache = None  # pixels are larger than files, and rows soon read
    known = encoder.fingerprint if cache else ""
    while batch := list(islice(stream, min(at_once, _AT_ONCE))):
        keys = [content_key(example) for example in batch] if cache else []
        cached: list[Array | None] = [None] * len(batch)
        try:
            cached = cache.get(known, keys) if cache else cached
        except (OSError, ValueError, sqlite3.Error) as fault:
            cache = None
            _warn_without_cache(fault)
        new = [i for i, z in enumerate(cached) if z is None]
        computed = dict(zip(new, _each([batch[i] for i in new], encoder, failed), strict=True))
        if cache:
            found = [(keys[i], z) for i, z in computed.items() if z is not None]
            try:
                cache.put(known, found)
            except (OSError, ValueError, sqlite3.Error) as fault:
                cache = None
                _warn_without_cache(fault)
        for i, example in enumerate(batch):
            z = cached[i] if cached[i] is not None else computed[i]
            if z is not None:
                if isinstance(encoder, SentenceEncoder) and encoder.cuts(example):
                    cut.append(example.where)
                yield example, z
    if cut:
        warnings.warn(
            f"{len(cut)} texts are too long for {encoder.name}, which reads the first "
            f"{encoder.model.max_seq_length} tokens of each: {textwrap.shorten(cut[0], 80)}"  # type: ignore[attr-defined]
            + (", ..." if len(cut) > 1 else ""),
            stacklevel=2,
        )


def _warn_without_cache(fault: Exception) -> None:
    warnings.warn(f"features are not kept: {fault}", stacklevel=3)


def _each(
    examples: Sequence[Example], encoder: Encoder, failed: list[str] | None
) -> list[Array | None]:
    """Together if possible; one by one if one of them cannot be read."""
    if not examples:
        return []
    try:
        return list(encoder(examples))
    except ValueError:
        if failed is None:
            raise
        each: list[Array | None] = []
        reasons = []
        for example in examples:
            try:
                each.extend(encoder([example]))
            except ValueError as error:
                each.append(None)
                reasons.append(str(error))
        of_all = len(reasons) == len(examples) and len(set(reasons)) == 1
        if of_all and examples[0].where not in reasons[0]:
            raise  # for one reason, which names none of them: that is not their fault
    failed += reasons
    return each
