"""What other programs read."""

import json
import math
from typing import Any

__all__ = ["to_json"]


def to_json(value: Any, **how: Any) -> str:
    """JSON that every program reads: a number that is infinite or none becomes ``null``.

    Args:
        value: plain values.
        how: keywords of `json.dumps`.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(value), allow_nan=False, **how)
