"""Synthetic handwriting: an unlimited supply of characters to learn to learn from."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from quickstudy.data.dataset import ClassDataset

__all__ = ["alphabets"]

Array = NDArray[np.float64]

# An alphabet: what its characters have in common.
_CHARACTERS = 32  # characters of one alphabet
_REPERTOIRE = 10  # strokes its characters share, as many share the bar of Devanagari
_SHARED = 0.5  # how often a stroke comes from the repertoire
_SIBLINGS = 0.5  # part of the characters that are another one with a single stroke changed

# A character: strokes in units of its size; y points down, angles in radians from the x axis.
_STROKES = (0.28, 0.3, 0.22, 0.12, 0.08)  # how often a character has 1, 2, ... strokes
_PIECES = (0.45, 0.3, 0.15, 0.1)  # how often a stroke has 1, 2, 3 or 4 lines and arcs
_SPLIT = ((0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 1, 2), (0, 1, 2, 3))  # pieces as four segments
_TURNS = (0.4, 0.5, 0.7, 1.0, 1.0, 1.4, 1.9)  # what an arc turns by, in multiples of pi
_CORNERS = (0.4, 0.5, 0.5, 0.7, 1.0)  # the angle of a corner between pieces, in multiples of pi
_POINTS = 48  # points of a stroke, evenly spaced
_LOOSE = 0.3  # how often a stroke stands apart from the others instead of touching one

# An example: the standard deviations of what changes from drawing to drawing.
_HEADING = 0.12  # direction of a stroke, radians
_TURN = 0.22  # bend of a segment and angle of a corner, radians
_LENGTH = 0.2  # length of a segment, relative
_END = 0.6  # how much of the drift of a stroke's end is corrected by hand and eye
_ATTACH = 0.04  # where a stroke touches another, in character sizes
_GAP = 0.03  # by how much it misses, in character sizes
_AFFINE = 0.1  # rotation (radians), slant and aspect
_SCALE = 0.12  # size, relative
_SHIFT = 0.045  # position, in image sizes
_PEN = 0.021  # half width of the pen (standard deviation of its profile), in image sizes

_S, _G = len(_STROKES), len(_SPLIT[0])
_SHAPE = 1 + 3 * _G  # a stroke's heading, then each segment's turn, corner and length
_NOISE = _S * (_SHAPE + 3) + 8
_BATCH = 128  # images rendered at once


def alphabets(
    n_classes: int,
    n_examples: int = 20,
    *,
    size: int = 28,
    seed: int = 0,
    first_class: int = 0,
    variation: float = 1.0,
) -> ClassDataset:
    """Characters that nobody has written: strokes of lines, arcs, loops, corners and dots.

    A class is a programme of strokes, each placed relative to an earlier one (after Lake et al.
    2015, "Human-level concept learning through probabilistic program induction"); an example is
    the programme carried out again with an unsteady hand. The 32 characters of an alphabet share
    strokes, and half of them differ from another one by a single stroke.

    Class ``i`` depends on ``seed`` and ``first_class + i`` alone, so ``first_class`` asks for
    more of the same: 20 classes are the first 10 and, with ``first_class=10``, the next 10.

    Args:
        n_classes: how many classes to draw.
        n_examples: how many examples of each.
        size: height and width of an image in pixels, at least 8.
        seed: another seed is another world of alphabets.
        first_class: number of the first class; its name is ``synthetic/00042`` for 42.
        variation: how much the examples of a class differ; 0 draws the same image every time.

    Returns:
        uint8 images ``[n_classes*n_examples,1,size,size]``, ink 255 on 0; ``groups`` are the
        alphabets.

    Raises:
        ValueError: a count is below 1, the size below 8, or another number is negative.

    Example:
        >>> alphabets(5, 3)
        ClassDataset(5 classes, 15 examples [1, 28, 28] uint8)
    """
    least = {"n_classes": 1, "n_examples": 1, "size": 8, "seed": 0, "first_class": 0}
    given = (n_classes, n_examples, size, seed, first_class)
    for (name, low), value in zip(least.items(), given, strict=True):
        if value < low:
            raise ValueError(f"{name} is {value}; it must be at least {low}")
    if not (math.isfinite(variation) and variation >= 0):
        raise ValueError(f"variation is {variation}; it must be finite and at least 0")

    numbers = range(first_class, first_class + n_classes)
    owners = range(numbers[0] // _CHARACTERS, numbers[-1] // _CHARACTERS + 1)
    world = [_alphabet(np.random.default_rng([seed, 0, a])) for a in owners]
    start = numbers[0] - owners[0] * _CHARACTERS
    programmes, places, sizes = (
        np.concatenate(part)[start : start + n_classes] for part in zip(*world, strict=True)
    )
    images = np.empty((n_classes, n_examples, size, size), np.uint8)
    step = max(1, 2048 // n_examples)
    for i in range(0, n_classes, step):
        chunk = slice(i, min(i + step, n_classes))
        noise = np.stack(
            [
                np.random.default_rng([seed, 1, c]).standard_normal((n_examples, _NOISE))
                for c in numbers[chunk]
            ]
        )
        points, steps = _draw(programmes[chunk], places[chunk], sizes[chunk], noise * variation)
        images[chunk] = _render(points, steps, size).reshape(images[chunk].shape)
    return ClassDataset.from_sizes(
        torch.from_numpy(images.reshape(-1, 1, size, size)),
        [n_examples] * n_classes,
        [f"synthetic/{c:05d}" for c in numbers],
        [f"synthetic/alphabet-{c // _CHARACTERS:04d}" for c in numbers],
    )


def _alphabet(g: np.random.Generator) -> tuple[Array, Array, Array]:
    """One alphabet: shapes ``[C,S,_SHAPE]``, places ``[C,S,5]`` and sizes ``[C]``.

    A stroke that a character has not got has length 0. A place is the earlier stroke to start
    from, the point on it (0..1), the point of this stroke that stands there, and an offset.
    """
    C = _CHARACTERS
    line = g.uniform(0.1, 0.9)  # how straight the alphabet is
    repertoire = _strokes(g, _REPERTOIRE, line)
    shared = repertoire[g.integers(_REPERTOIRE, size=(C, _S))]
    fresh = _strokes(g, C * _S, line).reshape(C, _S, _SHAPE)
    shapes = np.where(g.random((C, _S, 1)) < _SHARED, shared, fresh)
    counts = 1 + g.choice(_S, size=C, p=_STROKES)
    places = np.empty((C, _S, 5))
    places[..., 0] = np.floor(g.random((C, _S)) * np.maximum(np.arange(_S), 1))
    places[..., 1] = g.choice([0.0, 0.5, 1.0, 0.25, 0.75], size=(C, _S))
    places[..., 2] = g.choice([0.0, 0.5, 1.0], size=(C, _S), p=[0.6, 0.25, 0.15])
    loose = g.random((C, _S, 1)) < _LOOSE
    places[..., 3:] = np.where(loose, g.uniform(-0.7, 0.7, (C, _S, 2)), 0.0)
    originals = C - int(C * _SIBLINGS)
    for c in range(originals, C):
        twin = int(g.integers(originals))
        s = int(g.integers(min(counts[twin] + 1, _S)))  # the stroke to change, or a new one
        own = shapes[c, s].copy(), places[c, s].copy()
        shapes[c], places[c], counts[c] = shapes[twin], places[twin], max(counts[twin], s + 1)
        shapes[c, s], places[c, s] = own
    shapes[..., 1 + 2 * _G :] *= (np.arange(_S) < counts[:, None])[..., None]
    sizes = np.clip(g.uniform(0.5, 0.75) + 0.08 * g.standard_normal(C), 0.25, 0.85)
    return shapes, places, sizes


def _strokes(g: np.random.Generator, n: int, line: float) -> Array:
    """``n`` random strokes ``[n,_SHAPE]``, of whose pieces a part of ``line`` is straight."""
    pieces = g.choice(len(_PIECES), size=n, p=_PIECES)
    straight = g.random((n, _G)) < line
    sign = np.where(g.random((n, _G)) < 0.7, g.choice([-1, 1], (n, 1)), g.choice([-1, 1], (n, _G)))
    turn = np.pi * g.choice(_TURNS, (n, _G)) * np.exp(0.1 * g.standard_normal((n, _G)))
    length = np.where(straight, 0.6, turn * 0.25) * np.exp(0.4 * g.standard_normal((n, _G)))
    turn = np.where(straight, 0.0, sign * turn)
    smooth = g.random((n, _G)) < 0.3
    corner = np.where(smooth, 0.0, np.pi * g.choice(_CORNERS, (n, _G)) * g.choice([-1, 1], (n, _G)))
    length *= np.where(g.random((n, 1)) < 0.08, 0.1, 1.0)  # a dot, or a tick
    heading = np.pi / 4 * g.choice([0, 0, 1, 2, 2, 3, -1], n) + 0.1 * g.standard_normal(n)
    split = np.array(_SPLIT)[pieces]
    share = 1 / (split[:, :, None] == split[:, None, :]).sum(2)
    first = np.diff(split, axis=1, prepend=0) > 0
    take = np.take_along_axis
    return np.concatenate(
        [
            heading[:, None],
            take(turn, split, 1) * share,
            take(corner, split, 1) * first,
            take(length, split, 1) * share,
        ],
        axis=1,
    )


def _trace(shapes: Array) -> tuple[Array, Array]:
    """Follow strokes ``[...,_SHAPE]`` with a turtle: points ``[...,P,2]``, steps ``[...,P]``."""
    turn, corner, length = np.split(shapes[..., 1:], 3, axis=-1)
    end = np.cumsum(length, -1)
    at = end[..., -1:] * (np.arange(_POINTS) + 0.5) / _POINTS
    heading = np.repeat(shapes[..., :1], _POINTS, -1)
    for k in range(_G):
        past = (at - end[..., k, None]) / np.maximum(length[..., k, None], 1e-9) + 1
        heading += turn[..., k, None] * past.clip(0, 1) + corner[..., k, None] * (past > 0)
    steps = np.repeat(end[..., -1:] / _POINTS, _POINTS, -1)
    move = np.stack([np.cos(heading), np.sin(heading)], -1) * steps[..., None]
    return np.cumsum(move, -2), steps


def _draw(shapes: Array, places: Array, sizes: Array, noise: Array) -> tuple[Array, Array]:
    """Redraw each character once for each row of ``noise`` ``[C,E,_NOISE]``.

    Returns points ``[C*E,S*P,2]`` and the length of line at each ``[C*E,S*P]``, in image sizes.
    """
    C, E = noise.shape[:2]
    steady = _trace(shapes)[0][:, None]
    hand = noise[..., : _S * _SHAPE].reshape(C, E, _S, _SHAPE)
    touch = noise[..., _S * _SHAPE : -8].reshape(C, E, _S, 3)
    affine = noise[..., -8:]
    redo = np.repeat(shapes[:, None], E, 1)
    redo[..., 0] += _HEADING * hand[..., 0]
    redo[..., 1 : 1 + 2 * _G] += _TURN * hand[..., 1 : 1 + 2 * _G]
    redo[..., 1 + 2 * _G :] *= np.exp(_LENGTH * hand[..., 1 + 2 * _G :])
    points, steps = _trace(redo)
    P = _POINTS
    drift = points[..., -1:, :] - steady[..., -1:, :]
    points -= _END * np.linspace(0, 1, P)[:, None] * drift
    row = np.arange(C)[:, None], np.arange(E)[None, :]
    for s in range(_S):
        parent, on, at = places[:, s, 0].astype(int)[:, None], places[:, s, 1], places[:, s, 2]
        on = np.clip(on[:, None] + _ATTACH * touch[:, :, s, 0], 0, 1)
        target = points[(*row, parent, np.rint(on * (P - 1)).astype(int))] if s else 0.0
        own = points[np.arange(C), :, s, np.rint(at * (P - 1)).astype(int)]
        offset = places[:, None, s, 3:] + _GAP * touch[:, :, s, 1:]
        points[:, :, s] += (target + offset - own)[:, :, None]

    points, steps = points.reshape(C * E, _S * P, 2), steps.reshape(C * E, _S * P)
    a = affine.reshape(C * E, 8)
    angle, slant, aspect = _AFFINE * a[:, 0], _AFFINE * a[:, 1], np.exp(_AFFINE * a[:, 2])
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos * aspect, cos * slant - sin], [sin * aspect, sin * slant + cos]])
    points = points @ matrix.transpose(2, 1, 0)
    seen = np.where(steps[..., None] > 0, points, points[:, :1])
    low, high = seen.min(1), seen.max(1)
    scale = np.repeat(sizes, E) * np.exp(_SCALE * a[:, 3]) / (high - low).max(1).clip(0.1)
    points = (points - (low + high)[:, None] / 2) * scale[:, None, None]
    return points + 0.47 + _SHIFT * a[:, None, 4:6], steps * scale[:, None]


def _render(points: Array, steps: Array, size: int) -> NDArray[np.uint8]:
    """Ink ``[M,size,size]``: a pen with a round, soft tip drawn through the points."""
    pixels = (np.arange(size) + 0.5) / size
    out = np.empty((len(points), size, size), np.uint8)
    for i in range(0, len(points), _BATCH):
        part = slice(i, i + _BATCH)
        x, y = (np.exp(-0.5 * ((points[part, :, k, None] - pixels) / _PEN) ** 2) for k in (0, 1))
        y *= steps[part, :, None] / (math.sqrt(2 * math.pi) * _PEN)
        ink = y.transpose(0, 2, 1) @ x
        out[part] = np.rint(255 * np.clip(1.5 * ink - 0.1, 0, 1))
    return out
