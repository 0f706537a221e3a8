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
_REPERTOIRE = 10  # strokes that its characters share, as those of Devanagari share a bar
_SHARED = 0.5  # how often a character's later strokes come from the repertoire
_SIBLINGS = 0.5  # part of the characters that are another one with a single stroke changed
_TRIES = 3  # sketches of a character, of which the clearest is taken: little ink on ink

# A character: strokes in units of its size. Angles are radians from the x axis; y points down.
_STROKES = (0.15, 0.3, 0.25, 0.15, 0.1, 0.05)  # how often a character has 1, 2, ... strokes
_PIECES = (0.45, 0.3, 0.15, 0.1)  # how often a stroke has 1, 2, 3 or 4 lines and arcs
_SPLIT = ((0, 0, 0, 0), (0, 0, 1, 1), (0, 0, 1, 2), (0, 1, 2, 3))  # the piece of each segment
_TURNS = (0.4, 0.5, 0.7, 1.0, 1.0, 1.4, 1.9)  # what an arc turns by, in multiples of pi
_CORNERS = (0.4, 0.5, 0.5, 0.7, 1.0)  # the angle between two pieces, in multiples of pi
_SMOOTH = 0.3  # how often there is no corner between two pieces
_LOOSE = 0.3  # how often a stroke stands apart from the others instead of touching one
_DOT = 0.06  # length of a dot

# An example: standard deviations of what changes from drawing to drawing.
_HEADING = 0.08  # direction of a stroke
_TURN = 0.16  # bend of each segment and angle of each corner
_LENGTH, _STROKE = 0.15, 0.12  # logarithm of the length of a segment, and of a whole stroke
_STEER = 0.6  # not a deviation: how much of the error of a stroke's end hand and eye correct
_ATTACH, _GAP = 0.04, 0.03  # where a stroke touches another, and by how much it misses
_AFFINE = 0.14  # rotation, slant and logarithm of the aspect ratio
_SCALE, _SHIFT = 0.16, 0.06  # logarithm of the size; position, in image sizes
_BLOB = 1.6  # logarithm of how heavy the dots are: some hands make points, some make blobs

# The pen, in image sizes: the soft edge that Omniglot has at 28x28.
_PEN, _GAIN, _BIAS = 0.021, 1.1, 0.05

_S, _G = len(_STROKES), len(_SPLIT[0])  # strokes of a character, segments of a stroke
_P = 48  # points of a stroke, evenly spaced
_SHAPE = 1 + 3 * _G  # a stroke: heading; turn of each segment; corner before it; its length
_LENGTHS = slice(1 + 2 * _G, None)
_NOISE = _S * (_SHAPE + 4) + 8  # random numbers of an example
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
    the programme carried out again by an unsteady hand. The 32 characters of an alphabet share
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
    values = (n_classes, n_examples, size, seed, first_class)
    for (name, low), value in zip(least.items(), values, strict=True):
        if value < low:
            raise ValueError(f"{name} is {value}; it must be at least {low}")
    if not (math.isfinite(variation) and variation >= 0):
        raise ValueError(f"variation is {variation}; it must be finite and at least 0")

    numbers = range(first_class, first_class + n_classes)
    owners = range(numbers[0] // _CHARACTERS, numbers[-1] // _CHARACTERS + 1)
    world = [_alphabet(np.random.default_rng([seed, 0, a])) for a in owners]
    start = numbers[0] - owners[0] * _CHARACTERS
    shapes, places, sizes = (
        np.concatenate(part)[start : start + n_classes] for part in zip(*world, strict=True)
    )
    images = np.empty((n_classes, n_examples, size, size), np.uint8)
    step = max(1, 1024 // n_examples)
    for i in range(0, n_classes, step):
        chunk = slice(i, i + step)
        hands = [np.random.default_rng([seed, 1, c]) for c in numbers[chunk]]
        noise = np.stack([hand.standard_normal((n_examples, _NOISE)) for hand in hands])
        drawing = _draw(shapes[chunk], places[chunk], sizes[chunk], noise * variation)
        images[chunk] = _render(*drawing, size).reshape(images[chunk].shape)
    return ClassDataset.from_sizes(
        torch.from_numpy(images.reshape(-1, 1, size, size)),
        [n_examples] * n_classes,
        [f"synthetic/{c:05d}" for c in numbers],
        [f"synthetic/alphabet-{c // _CHARACTERS:04d}" for c in numbers],
    )


def _alphabet(g: np.random.Generator) -> tuple[Array, Array, Array]:
    """One alphabet: shapes ``[C,S,_SHAPE]``, places ``[C,S,5]`` and sizes ``[C]``.

    A place is the earlier stroke to start from, the point of it (0..1), the point of this stroke
    that stands there (0..1), and an offset. Strokes that a character does not have are of length 0.
    """
    C, n = _CHARACTERS, _CHARACTERS * _TRIES
    line = g.uniform(0.1, 0.9)  # how straight the alphabet is
    dots = g.random() ** 6  # how often its strokes are dots: hardly ever, or nearly always
    repertoire = _strokes(g, _REPERTOIRE, line, dots)
    shared = repertoire[g.integers(_REPERTOIRE, size=(n, _S))]
    fresh = _strokes(g, n * _S, line, dots).reshape(n, _S, _SHAPE)
    unshared = (g.random((n, _S)) >= _SHARED) | (np.arange(_S) == 0)
    shapes = np.where(unshared[..., None], fresh, shared)
    loose = (g.random((n, _S, 1)) < _LOOSE) | _is_dot(shapes)[..., None]
    parent = np.floor(g.random((n, _S, 1)) * np.maximum(np.arange(_S), 1)[:, None])
    parent_point = g.choice([0.0, 0.25, 0.5, 0.75, 1.0], (n, _S, 1))
    point = g.choice([0.0, 0.5, 1.0], (n, _S, 1), p=[0.6, 0.25, 0.15])
    offset = np.where(loose, g.uniform(-0.7, 0.7, (n, _S, 2)), 0.0)
    places = np.concatenate([parent, parent_point, point, offset], -1)
    counts = 1 + g.choice(_S, size=C, p=_STROKES)

    tries = _first(shapes, counts.repeat(_TRIES))
    points, steps = _draw(tries, places, np.full(n, 0.6), np.zeros((n, 1, _NOISE)))
    ink = _render(points, steps, 14).sum((1, 2), dtype=np.float64)
    clear = (ink**2 / steps.sum(1)).reshape(C, _TRIES)
    best = clear.argmax(1) + _TRIES * np.arange(C)
    shapes, places = shapes[best], places[best]

    originals = C - int(C * _SIBLINGS)
    for c in range(originals, C):
        twin = int(g.integers(originals))
        s = int(g.integers(min(counts[twin] + 1, _S)))  # the stroke to change, or a new one
        change = shapes[c, s].copy(), places[c, s].copy()
        shapes[c], places[c], counts[c] = shapes[twin], places[twin], max(counts[twin], s + 1)
        shapes[c, s], places[c, s] = change
    sizes = g.uniform(0.5, 0.75) + 0.08 * g.standard_normal(C)
    return _first(shapes, counts), places, sizes.clip(0.25, 0.85)


def _strokes(g: np.random.Generator, n: int, line: float, dots: float) -> Array:
    """``n`` strokes ``[n,_SHAPE]``; ``line`` is the part of straight pieces, ``dots`` of dots."""
    shape = n, _G
    straight = g.random(shape) < line
    sign = np.where(g.random(shape) < 0.7, g.choice([-1, 1], (n, 1)), g.choice([-1, 1], shape))
    turn = np.pi * g.choice(_TURNS, shape) * np.exp(0.1 * g.standard_normal(shape))
    length = np.where(straight, 0.6, 0.25 * turn) * np.exp(0.4 * g.standard_normal(shape))
    corner = np.pi * g.choice(_CORNERS, shape) * g.choice([-1, 1], shape)
    corner = np.where(g.random(shape) < _SMOOTH, 0.0, corner)
    heading = np.pi / 4 * g.choice([0, 0, 1, 2, 2, 3, -1], n) + 0.1 * g.standard_normal(n)

    piece = np.array(_SPLIT)[g.choice(len(_PIECES), size=n, p=_PIECES)]
    share = 1 / (piece[:, :, None] == piece[:, None, :]).sum(2)  # of a segment in its piece
    turn = np.take_along_axis(np.where(straight, 0.0, sign * turn), piece, 1) * share
    corner = np.take_along_axis(corner, piece, 1) * (np.diff(piece, axis=1, prepend=0) > 0)
    length = np.take_along_axis(length, piece, 1) * share
    length = np.where(g.random((n, 1)) < dots, _DOT / _G, length)
    return np.concatenate([heading[:, None], turn, corner, length], axis=1)


def _first(shapes: Array, counts: NDArray[np.int64]) -> Array:
    """Characters ``[n,S,_SHAPE]`` of which only the first ``counts`` strokes have a length."""
    present = (np.arange(_S) < counts[:, None])[..., None]
    return np.where(present | (np.arange(_SHAPE) < _LENGTHS.start), shapes, 0.0)


def _is_dot(shapes: Array) -> NDArray[np.bool_]:
    length: Array = shapes[..., _LENGTHS].sum(-1)
    return length < 1.5 * _DOT


def _trace(shapes: Array) -> tuple[Array, Array]:
    """Follow strokes ``[...,_SHAPE]`` with a turtle: points ``[...,P,2]``, steps ``[...,1]``."""
    turn, corner, length = np.split(shapes[..., 1:, None], 3, axis=-2)
    end = length.cumsum(-2)
    steps = end[..., -1, :] / _P
    past = (steps[..., None, :] * (np.arange(_P) + 0.5) - end) / length.clip(1e-9) + 1
    heading = shapes[..., :1] + (turn * past.clip(0, 1) + corner * (past > 0)).sum(-2)
    move = np.stack([np.cos(heading), np.sin(heading)], -1) * steps[..., None]
    return move.cumsum(-2), steps


def _draw(shapes: Array, places: Array, sizes: Array, noise: Array) -> tuple[Array, Array]:
    """Redraw each character once for each row of ``noise`` ``[C,E,_NOISE]``.

    Returns points ``[C*E,S*P,2]`` and the ink at each point ``[C*E,S*P]``, in image sizes.
    """
    C, E = noise.shape[:2]
    hand = noise[..., : _S * _SHAPE].reshape(C, E, _S, _SHAPE)
    touch = noise[..., _S * _SHAPE : -8].reshape(C, E, _S, 4)
    whole = noise[..., -8:].reshape(C * E, 8)
    redo = shapes[:, None] + hand * ([_HEADING] + 2 * _G * [_TURN] + _G * [0])
    redo[..., _LENGTHS] *= np.exp(_LENGTH * hand[..., _LENGTHS] + _STROKE * touch[..., 3:])
    points, steps = _trace(redo)
    drift = points[..., -1:, :] - _trace(shapes)[0][:, None, :, -1:]
    points -= _STEER * np.linspace(0, 1, _P)[:, None] * drift
    c, e = np.arange(C)[:, None], np.arange(E)
    for s in range(_S):
        parent, parent_point, point = (places[:, s, k, None] for k in range(3))
        parent_point = (parent_point + _ATTACH * touch[:, :, s, 0]).clip(0, 1)
        place = places[:, None, s, 3:] + _GAP * touch[:, :, s, 1:3]
        place -= points[c, e, s, np.rint(point * (_P - 1)).astype(int)]
        if s > 0:
            place += points[c, e, parent.astype(int), np.rint(parent_point * (_P - 1)).astype(int)]
        points[:, :, s] += place[:, :, None]

    heavy = 2 * np.exp(_BLOB * np.abs(noise[..., -2, None, None]))
    steps = np.where(_is_dot(shapes)[:, None, :, None], heavy, 1.0) * steps
    steps = steps.repeat(_P, -1).reshape(C * E, _S * _P)
    angle, slant, stretch = _AFFINE * whole[:, :3].T
    cos, sin, aspect = np.cos(angle), np.sin(angle), np.exp(stretch)
    matrix = np.array([[cos * aspect, cos * slant - sin], [sin * aspect, sin * slant + cos]])
    points = points.reshape(C * E, _S * _P, 2) @ matrix.transpose(2, 1, 0)
    seen = np.where(steps[..., None] > 0, points, points[:, :1])
    low, high = seen.min(1), seen.max(1)
    scale = sizes.repeat(E) * np.exp(_SCALE * whole[:, 3]) / (high - low).max(1).clip(0.4)
    points = (points - (low + high)[:, None] / 2) * scale[:, None, None]
    return points + 0.47 + _SHIFT * whole[:, None, 4:6], steps * scale[:, None]


def _render(points: Array, steps: Array, size: int) -> NDArray[np.uint8]:
    """Ink ``[M,size,size]``: a pen with a round, soft tip drawn through the points."""
    pixels = (np.arange(size) + 0.5) / size
    images = np.empty((len(points), size, size), np.uint8)
    for i in range(0, len(points), _BATCH):
        part = slice(i, i + _BATCH)
        x, y = (np.exp(-0.5 * ((points[part, :, k, None] - pixels) / _PEN) ** 2) for k in (0, 1))
        y *= steps[part, :, None] / (math.sqrt(2 * math.pi) * _PEN)
        ink = y.transpose(0, 2, 1) @ x
        images[part] = np.rint(255 * np.clip(_GAIN * ink - _BIAS, 0, 1))
    return images
