"""Features on disk: what an encoder has said of a content before."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from quickstudy.data.omniglot import cache_dir
from quickstudy.encoders.encoder import Array
from quickstudy.examples import Example

__all__ = ["FeatureCache", "content_key"]


class FeatureCache:
    """Features on disk, by the content of the example and the fingerprint of the encoder.

    One SQLite file, which several processes may use at once.

    Args:
        path: the file; default ``features.sqlite`` in quickstudy's cache folder.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else cache_dir() / "features.sqlite"

    def get(self, fingerprint: str, keys: Sequence[str]) -> list[Array | None]:
        """The features kept under each key, ``None`` where there are none."""
        with closing(self._open()) as db:
            rows = [
                db.execute(
                    "SELECT shape, value FROM features WHERE encoder = ? AND key = ?",
                    (fingerprint, key),
                ).fetchone()
                for key in keys
            ]
        return [None if row is None else _unpacked(*row) for row in rows]

    def put(self, fingerprint: str, features: Iterable[tuple[str, Array]]) -> None:
        """Keep features, all of them or, if interrupted, none."""
        rows = [
            (fingerprint, key, ",".join(map(str, z.shape)), z.astype("<f4").tobytes())
            for key, z in features
        ]
        with closing(self._open()) as db, db:
            db.executemany("INSERT OR REPLACE INTO features VALUES (?, ?, ?, ?)", rows)

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = sqlite3.connect(self.path, timeout=60)
            db.execute(
                "CREATE TABLE IF NOT EXISTS features "
                "(encoder TEXT, key TEXT, shape TEXT, value BLOB, PRIMARY KEY (encoder, key))"
            )
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{self.path} is not a feature cache ({error}); delete it") from error
        return db


def content_key(example: Example) -> str:
    """SHA-256 of an example's content."""
    item = example.item
    if isinstance(item, Mapping):
        item = json.dumps({**item}, sort_keys=True, default=str)
    return hashlib.sha256(item.encode() if isinstance(item, str) else item).hexdigest()


def _unpacked(shape: str, value: bytes) -> Array:
    return np.frombuffer(value, "<f4").reshape([int(n) for n in shape.split(",")])
