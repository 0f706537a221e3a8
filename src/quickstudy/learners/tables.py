"""Tables: kernel machines solved exactly, whose settings and trust are meta-learned."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.cells import describe, exact, read_columns, unit_of
from quickstudy.learner import MetaLearner, Phi, class_labels, ways
from quickstudy.task import Task

__all__ = ["TableKernels"]

_ABSOLUTE, _SQUARED, _PRODUCT, _BAYES = range(4)
# what compares two rows; how fast likeness falls with distance; the share of ranks, 1 / (1 + e^-r);
# the ridge penalty, or for naive Bayes how many rows all classes together count for
_MACHINES = (
    (_ABSOLUTE, 0.5, -2.0, 0.3),
    (_ABSOLUTE, 1.5, -2.0, 0.1),
    (_ABSOLUTE, 4.0, -2.0, 0.1),
    (_ABSOLUTE, 0.7, 2.0, 0.3),
    (_ABSOLUTE, 2.0, 2.0, 0.1),
    (_ABSOLUTE, 6.0, 2.0, 0.1),
    (_ABSOLUTE, 1.0, 0.0, 1.0),
    (_ABSOLUTE, 12.0, 0.0, 0.3),
    (_SQUARED, 0.3, -2.0, 0.1),
    (_SQUARED, 1.0, -2.0, 0.1),
    (_SQUARED, 3.0, -2.0, 0.1),
    (_SQUARED, 1.0, 2.0, 0.1),
    (_PRODUCT, 1.0, -2.0, 0.1),
    (_PRODUCT, 1.0, -2.0, 1.0),
    (_PRODUCT, 1.0, 2.0, 0.3),
    (_BAYES, 1.0, 0.0, 1.0),
    (_BAYES, 1.0, 0.0, 8.0),
)
_WIDTH, _PENALTY, _TEMPERATURE, _TRUST, _SIZE = range(5)
_LEAST = 0.02  # variance
_MOST_ROWS = 3000  # each is compared with all others
_OWED = 0.4  # to a class of one row, off z: found on the public tables that are there to choose by
_CAUTION = 3.0  # by how much logits fall with the distance to the nearest row


class TableKernels(MetaLearner):
    """Ask many simple machines, and trust each as far as it would have been right.

    Each machine ``k`` is a ridge regression on labels with a kernel of its own, solved in closed
    form as R2-D2's last layer is (Bertinetto et al. 2019, arXiv:1805.08136), and what it would have
    said of each support row without that row follows exactly (Rasmussen and Williams 2006,
    eq. 5.12)::

        K_k(x,x') = exp(-w_k d_k(x,x')) + 0.1     or, of the linear ones,  x.x' / F + 0.1
        R_k       = K_k(S,S) + r_k diag(size of its class / mean size)
        A_k       = R_k^-1 (Y - 1/N)
        s_k(q)    = 1/N + K_k(q,S) A_k
        loo_k(i)  = Y_i - A_k,i / [R_k^-1]_ii
        p_k       = softmax(t_k s_k + z_k log(sizes of the classes))
        trust_k   = softmax over k of (b_k + c S' mean_i log p_k(y_i | loo_k(i)))
        p(n|q)    = sum_k trust_k p_k(n|q)

    ``d_k`` is the mean over columns of absolute or squared differences, of values and of ranks in a
    learned proportion. Two machines more are naive Bayes, whose variances are drawn towards those
    of all classes. Meta-learned are ``z`` and ``w, r, t, b``, each a power law of the numbers of
    rows, classes and columns and of how even the classes are, and ``c``: 730 numbers, which decide
    what to believe of a table of ten rows, for which no cross-validation has rows enough.

    All classes count alike, however many rows each has: in the penalties, in the mean over ``i``
    and in the loss, so that ``z`` learns what a class of few rows is owed (0.4 less, once trained,
    if a class has one row alone: real tables tell less than invented ones). ``S'`` is how many rows
    that mean is worth: ``S`` if classes are of one size, else fewer. Of a class of one row nothing
    is known without that row: ``i`` goes over the others, as does the ``softmax`` there.

    Inputs are ``[T,n,F]``: any number ``F`` of columns of any scale, ``NaN`` where a value is
    missing; it then counts as the mean. Columns in which all rows are alike are not looked at.
    Targets of a regression are ``[T,n,d]``; there a machine's mistake is half the logarithm of its
    squared error, and naive Bayes has no say. All is computed in double precision.

    Logits are ``log p(n|q)``, less 3 times the distance to the nearest row of the support, which
    makes no class likelier than another: the largest logit says how familiar a query is.

    ``phi``: of ``E`` machines of which ``K`` are kernels, ``{"cells": [T,2,S,F], "read": [T],
    "weights": [T,K,S,N], "centre": [T,1,N], "settings": [T,5,E], "trust": [T,E,1]}``, of classes
    also ``"sizes": [T,N]``, ``"means": [T,1,F,N]`` and ``"variances": [T,2,F,N]``, of ``d`` numbers
    ``"unit": [T,1,d]`` and ``"trust": [T,K,d]``; and what is known of each column.

    Example:
        >>> learner = TableKernels()
        >>> x, y = torch.rand(1, 6, 3), torch.tensor([[0, 0, 0, 1, 1, 1]])
        >>> learner.predict(learner.adapt(x, y, 2), torch.rand(1, 4, 3)).shape
        torch.Size([1, 4, 2])
    """

    takes_missing = True

    def __init__(self) -> None:
        super().__init__()
        kinds, widths, shares, penalties = zip(*_MACHINES, strict=True)
        self.kinds = [kinds.count(kind) for kind in range(4)]
        base = torch.zeros(2, 5, len(kinds))
        base[:, _WIDTH] = torch.tensor([math.log(width) for width in widths])
        base[:, _PENALTY] = torch.tensor([math.log(penalty) for penalty in penalties])
        base[:, _TEMPERATURE] = math.log(5)
        base[:, _TEMPERATURE, -self.kinds[_BAYES] :] = math.log(0.3)
        self.base = nn.Parameter(base)
        self.law = nn.Parameter(torch.zeros(2, 4, len(kinds), 4))
        self.shares = nn.Parameter(torch.tensor(shares[: -self.kinds[_BAYES]]))
        self.belief = nn.Parameter(torch.tensor(-1.0))

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        S, number = support_x.shape[1], n_way is None
        if S > _MOST_ROWS:
            raise ValueError(
                f"{type(self).__name__} compares each row with all others and takes at most "
                f"{_MOST_ROWS:,}; here are {S:,}: give it a part, or take another learner"
            )
        support_x = exact(support_x)
        phi: Phi = class_labels(support_y, n_way) | read_columns(support_x, support_y, n_way)
        phi["read"] = (phi["spread"] > 0).sum(1).clamp_min(1).to(support_x.dtype)
        phi["cells"] = self._cells(support_x, phi)
        Y = exact(support_y) if number else F.one_hot(support_y, n_way or 0).to(support_x.dtype)
        if number:
            phi["unit"] = unit_of(Y)
            Y = Y / phi["unit"]
        else:
            phi["sizes"] = Y.sum(1)
        weight = _weights(Y, number=number)
        phi["settings"] = self._settings(weight, n_way, phi["read"])
        if not number and not self.training:
            alone = (phi["sizes"] == 1).any(1).to(weight)
            phi["settings"][:, _SIZE] -= _OWED * alone.unsqueeze(1)
        phi["centre"] = (Y * weight).mean(1, keepdim=True)
        gram = self._gram(phi["cells"], phi)
        penalty = phi["settings"][:, _PENALTY, : gram.shape[1]].exp()
        phi["weights"], missed = _ridge(gram, penalty.unsqueeze(-1) / weight.mT, Y - phi["centre"])
        if number:
            loss = 0.5 * (missed.square().mean(2) + 1e-4).log()
            worth = weight.sum(1)
        else:
            densities = self._densities(phi["cells"][:, 0], Y, phi)
            log_p = self._log_p(torch.cat([Y.unsqueeze(1) - missed, densities], 1), phi)
            several = (phi["sizes"] > 1)[:, None, None]
            among = log_p.masked_fill(~several, -1e9).logsumexp(-1, keepdim=True)
            counted = (Y * weight).unsqueeze(1) * several
            total = counted.sum((2, 3)).clamp_min(1)
            worth = total**2 / counted.square().sum((2, 3)).clamp_min(1)
            loss = ((among - log_p) * counted).sum((2, 3)).unsqueeze(-1) / total.unsqueeze(-1)
        believed = phi["settings"][:, _TRUST, : loss.shape[1]].unsqueeze(-1)
        evidence = self.belief.exp() * worth.unsqueeze(-1) * loss
        phi["trust"] = (believed - evidence).log_softmax(1)
        return phi

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        cells = self._cells(exact(query_x), phi)
        scores = phi["centre"].unsqueeze(1) + self._gram(cells, phi) @ phi["weights"]
        trust: Tensor = phi["trust"].unsqueeze(2)
        if ways(phi) is None:
            answer = (trust.exp() * scores).sum(1) * phi["unit"]
            return answer.to(query_x.dtype)  # type: ignore[no-any-return]
        densities = _log_density(cells[:, 0], phi)
        log_p = self._log_p(torch.cat([scores, densities], 1), phi)
        nearest = torch.cdist(cells[:, 0], phi["cells"][:, 0], p=1).amin(2, keepdim=True)
        far = _CAUTION * nearest / phi["read"][:, None, None]
        return ((log_p + trust).logsumexp(1) - far).to(query_x.dtype)  # type: ignore[no-any-return]

    def loss(self, task: Task) -> Tensor:
        """``-log p(y | x, D_tr)``, its mean over the queries of each class, all alike."""
        if task.n_way is None:
            return super().loss(task)
        log_p = self(task).log_softmax(-1)
        own = F.one_hot(task.query_y, task.n_way).to(log_p.dtype)
        size = own.sum(1)
        by_class = -(log_p * own).sum(1) / size.clamp_min(1)
        return (by_class.sum(1) / (size > 0).sum(1)).mean()  # type: ignore[no-any-return]

    def _settings(self, weight: Tensor, n_way: int | None, columns: Tensor) -> Tensor:
        """``[T,5,E]``, by how much there is to learn from, and how evenly over classes."""
        kind, rows = int(n_way is None), weight.shape[1]
        counts = torch.full_like(columns, rows / 30), torch.full_like(columns, (n_way or 3) / 3)
        even = rows / weight.square().sum((1, 2))
        sizes = torch.stack([*counts, columns / 10, even], 1).log()
        grown = torch.einsum("tk,sek->tse", sizes, self.law[kind].to(sizes))
        return self.base[kind] + F.pad(grown, (0, 0, 0, 1))

    def _cells(self, x: Tensor, phi: Phi) -> Tensor:
        """``[T,n,F]`` to values and ranks, ``[T,2,n,F]``."""
        value, rank, _ = describe(x, phi).unbind(-1)
        return torch.stack([value.mT, 2 * rank.mT], 1)

    def _gram(self, cells: Tensor, phi: Phi) -> Tensor:
        """``[T,2,n,F]`` to ``[T,K,n,S]``, how like it is to each row of the support."""
        support, columns = phi["cells"], phi["read"][:, None, None, None]
        of_kind = (
            torch.cdist(cells, support, p=1),
            torch.cdist(cells, support).square(),
            cells @ support.mT,
        )
        shares = self.shares.sigmoid()
        mixed = []
        parts = shares.split(self.kinds[:_BAYES])  # type: ignore[no-untyped-call]
        for each, share in zip(of_kind, parts, strict=True):
            both = torch.stack([1 - share, share], 1).to(each)
            mixed.append(torch.einsum("kj,tjns->tkns", both, each / columns))
        *far, product = mixed
        distance = torch.cat(far, 1)
        width = phi["settings"][:, _WIDTH, : distance.shape[1], None, None].exp()
        return torch.cat([(-width * distance).exp(), product], 1) + 0.1

    def _log_p(self, scores: Tensor, phi: Phi) -> Tensor:
        temperature = phi["settings"][:, _TEMPERATURE, :, None, None].exp()
        size = phi["settings"][:, _SIZE, :, None] * phi["sizes"].log().unsqueeze(1)
        return (temperature * scores + size.unsqueeze(2)).log_softmax(-1)  # type: ignore[no-any-return]

    def _densities(self, x: Tensor, Y: Tensor, phi: Phi) -> Tensor:
        """Fit naive Bayes to ``[T,S,F]``; what it says of each row without it, ``[T,2,S,N]``."""
        bayes, varies = self.kinds[_BAYES], (phi["spread"] > 0)[:, None, None]
        drawn = phi["settings"][:, _PENALTY, -bayes:, None, None].exp()
        size = phi["sizes"]
        total, square = x.mT @ Y, x.square().mT @ Y  # [T,F,N]
        within = (square - total**2 / size.unsqueeze(1)).clamp_min(0).sum(-1, keepdim=True)
        pool = (within / max(1, x.shape[1] - Y.shape[2])).clamp_min(_LEAST)
        mean, variance = _moments(total, square, size.unsqueeze(1), pool, drawn)
        phi["means"], phi["variances"] = mean, torch.where(varies.mT, variance, 1.0)
        left = (Y * (size.unsqueeze(1) - 1)).sum(-1, keepdim=True)  # of its class, for each row
        own_total, own_square = Y @ total.mT - x, Y @ square.mT - x.square()  # [T,S,F]
        mean, variance = _moments(own_total, own_square, left, pool.mT, drawn)
        variance = torch.where(varies, variance, 1.0)
        own = -0.5 * ((x.unsqueeze(1) - mean) ** 2 / variance + variance.log()).sum(-1)
        own = own.unsqueeze(-1) / phi["read"][:, None, None, None] ** 0.25
        return torch.where(Y.unsqueeze(1) > 0, own, _log_density(x, phi))


def _ridge(gram: Tensor, penalty: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the rows ``[T,K,S,N]``; by how much each row is missed if it is left out."""
    inverse = torch.linalg.inv(gram + penalty.diag_embed())
    weights = inverse @ Y.unsqueeze(1)
    return weights, weights / inverse.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)


def _weights(Y: Tensor, *, number: bool) -> Tensor:
    """How much each row counts ``[T,S,1]``, 1 on average, so that all classes count alike."""
    if number:
        return torch.ones_like(Y[..., :1])
    size = Y.sum(1, keepdim=True)
    return (Y * (Y.shape[1] / Y.shape[2] / size)).sum(-1, keepdim=True)


def _moments(
    total: Tensor, square: Tensor, size: Tensor, pool: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor]:
    """Means, drawn towards 0 by half a row, and variances, towards ``pool`` by ``drawn`` rows.

    Of a new row: the mean itself is not known better than from ``size`` rows.
    """
    within = (square - total**2 / size.clamp_min(1)).clamp_min(0).unsqueeze(1)
    mean = (total / (size + 0.5)).unsqueeze(1)
    size = size.unsqueeze(1)
    variance = (within + drawn * pool.unsqueeze(1)) / ((size - 1).clamp_min(0) + drawn)
    return mean, variance * (1 + 1 / (size + 0.5))


def _log_density(x: Tensor, phi: Phi) -> Tensor:
    """``[T,n,F]`` under each class, ``[T,2,n,N]``, up to the same for all."""
    mean, variance = phi["means"], phi["variances"]
    x = x.unsqueeze(1)
    far = x.square() @ (1 / variance) - 2 * x @ (mean / variance)
    far = far + (mean**2 / variance + variance.log()).sum(2, keepdim=True)
    return -0.5 * far / phi["read"][:, None, None, None] ** 0.25  # type: ignore[no-any-return]
