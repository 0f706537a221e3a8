"""Tables: a transformer over rows and columns, meta-trained on invented tables."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.cells import describe, exact, read_columns, unit_of
from quickstudy.learner import MetaLearner, Phi, class_labels, ways

__all__ = ["TableTransformer"]

MOST_COLUMNS = 100


class TableTransformer(MetaLearner):
    """Read a table's labelled rows once, then tell the labels of others.

    A prior-fitted network (Mueller et al. 2022, arXiv:2112.10510) with the two attentions of TabPFN
    v2 (Hollmann et al. 2025, Nature 637). Each *cell* is a token, and the label is a column more::

        cell[r,f] = e(value, rank, missing) + v_f    of row r in column f
        cell[s,y] = U[y_s] in the support (of a number: a + y_s b);  u in the query
        ``layers`` times:      the cells of each row attend to each other,
                               those of each column attend to the support's rows
        ``row_layers`` times:  label cells attend to the support's
        p(n | q) ~ sum over s of class n of exp(a(cell[q,y]) . b(cell[s,y]))

    A value counts by its distance from the support's mean in standard deviations, and by its rank
    among the support's. A query sees the support alone. Nothing tells which row comes first;
    columns are marked, and classes read, in an order that follows from their values, so that
    neither their own order nor names matter.

    Args:
        width: of a token; divisible by ``heads``.
        layers: rounds of both attentions.
        row_layers: rounds of attention among label cells alone, which cost little.
        heads: of each attention.
        codes: marks for labels. More classes than that share them, in several readings that deal
            them differently, as error-correcting codes do (Dietterich and Bakiri 1995,
            arXiv:cs/9501101); it takes as many times as long.

    Inputs are ``[T,n,F]``: any number ``F`` of columns of any scale, ``NaN`` where a value is
    missing. Of more than 100 columns those are read in which classes (or targets) differ most.
    Targets of a regression are ``[T,n,d]``, each of the ``d`` learned by itself.

    ``phi``: of ``G`` readings (1; of many classes, several; of regression, ``d``), ``{"cells":
    2 x [T,G,layers,F+1,S,width], "rows": 2 x [T,G,row_layers,1,S,width], "ends": [T,G,S,width],
    "votes": [T,S,N], "columns": [T,F], "places": [T,F], "sorted": [T,F,S], "mean": [T,F],
    "spread": [T,F]}``: keys and values of each round, the last keys, who votes for what, and what
    is known of each column.

    Differs from the paper: marks of columns are not dealt at random; ranks stand beside values;
    the last rounds read the label alone; the support's rows vote for their classes by attention,
    as in `MatchingNetwork` (of a number it is their weighted mean, and something is added);
    attention to rows is sharpened by the logarithm of their number (Nakanishi 2025,
    arXiv:2501.19399), so that long supports are read as short ones are.

    Example:
        >>> learner = TableTransformer(width=16, layers=1, row_layers=1)
        >>> x, y = torch.rand(1, 6, 3), torch.tensor([[0, 0, 0, 1, 1, 1]])
        >>> learner.predict(learner.adapt(x, y, 2), torch.rand(1, 4, 3)).shape
        torch.Size([1, 4, 2])
    """

    class_balanced = False
    takes_missing = True

    def __init__(
        self,
        *,
        width: int = 64,
        layers: int = 4,
        row_layers: int = 4,
        heads: int = 2,
        codes: int = 10,
    ) -> None:
        super().__init__()
        if min(width, layers, row_layers, heads) < 1 or codes < 2:
            raise ValueError(
                "width, layers, row_layers and heads must each be at least 1, and codes 2"
            )
        if width % heads:
            raise ValueError(f"width is {width}; expected a multiple of heads, {heads}")
        self.codes = codes
        self.cell = nn.Sequential(nn.Linear(3, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.marks = nn.Parameter(torch.randn(codes + 3, width))
        self.places = nn.Parameter(0.2 * torch.randn(MOST_COLUMNS, width))
        self.blocks = nn.ModuleList(_Block(width, heads, across=True) for _ in range(layers))
        self.row_blocks = nn.ModuleList(
            _Block(width, heads, across=False) for _ in range(row_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * width + 1)

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        self.check_task(support_x, support_y, n_way, regression=True)
        support_x = exact(support_x)
        phi: Phi = class_labels(support_y, n_way) | read_columns(
            support_x, support_y, n_way, most=MOST_COLUMNS
        )
        cells = describe(support_x, phi).to(self.marks)
        phi["places"] = _column_order(cells)
        if n_way is None:
            targets = exact(support_y)
            phi["centre"], unit = targets.mean(1, keepdim=True), unit_of(targets)
            phi["votes"] = ((targets - phi["centre"]) / unit).to(self.marks)
            differ = targets.amax(1, keepdim=True) > targets.amin(1, keepdim=True)
            phi["unit"] = unit * differ  # of targets all alike: nothing is added
            labels = self.marks[-3] + phi["votes"].mT.unsqueeze(-1) * self.marks[-2]
        else:
            phi["votes"] = F.one_hot(support_y, n_way).to(self.marks)
            place = _class_order(cells, support_y, n_way).gather(1, support_y)
            labels = self.marks[_codes(n_way, self.codes, place.device)[:, place].transpose(0, 1)]
        G = labels.shape[1]
        tokens = self._tokens(cells, phi).expand(-1, G, -1, -1, -1)
        tokens = torch.cat([tokens, labels.unsqueeze(2)], dim=2).flatten(0, 1)
        for name, blocks in (("cells", self.blocks), ("rows", self.row_blocks)):
            keys, values = [], []
            for block in blocks:
                assert isinstance(block, _Block)
                tokens, key, value = block.read(tokens)
                keys.append(key)
                values.append(value)
            stacked = [torch.stack(part, 1) for part in (keys, values)]
            phi[name] = [part.view(-1, G, *part.shape[1:]) for part in stacked]
            tokens = tokens[:, -1:]
        _, key, _ = self._ends(tokens)
        phi["ends"] = key.view(-1, G, *key.shape[1:])
        return phi

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        G = phi["ends"].shape[1]
        tokens = self._tokens(describe(exact(query_x), phi).to(self.marks), phi).expand(
            -1, G, -1, -1, -1
        )
        unknown = self.marks[-1].expand(*tokens.shape[:2], 1, *tokens.shape[3:])
        tokens = torch.cat([tokens, unknown], dim=2).flatten(0, 1)
        for name, blocks in (("cells", self.blocks), ("rows", self.row_blocks)):
            keys, values = (part.flatten(0, 1) for part in phi[name])
            for layer, block in enumerate(blocks):
                assert isinstance(block, _Block)
                tokens = block(tokens, keys[:, layer], values[:, layer])
            tokens = tokens[:, -1:]
        query, _, more = self._ends(tokens)
        scores = query.view(-1, G, *query.shape[1:]) @ phi["ends"].mT / query.shape[-1] ** 0.5
        weights = scores.softmax(-1)
        if ways(phi) is not None:
            votes = weights @ phi["votes"].unsqueeze(1)
            return votes.clamp_min(1e-12).log().mean(1)  # type: ignore[no-any-return]
        average = (weights @ phi["votes"].mT.unsqueeze(-1)).squeeze(-1).mT
        moved = average + more.view(-1, G, more.shape[1]).mT
        answer: Tensor = moved * phi["unit"] + phi["centre"]
        return answer.to(query_x.dtype)

    def _tokens(self, cells: Tensor, phi: Phi) -> Tensor:
        """``[T,F,n,3]`` to ``[T,1,F,n,width]``."""
        marked: Tensor = self.cell(cells) + self.places[phi["places"]].unsqueeze(2)
        return marked.unsqueeze(1)

    def _ends(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Label cells ``[B,1,n,width]`` to what they ask, answer to, and add to a number."""
        width = tokens.shape[-1]
        query, key, more = self.head(self.norm(tokens[:, 0])).split([width, width, 1], -1)
        return query, key, more.squeeze(-1)


class _Block(nn.Module):
    """Attention within rows (``across``), attention within columns, a perceptron; all residual."""

    def __init__(self, width: int, heads: int, *, across: bool) -> None:
        super().__init__()
        self.row = _Attention(width, heads) if across else None
        self.column = _Attention(width, heads)
        self.sharpness = nn.Parameter(torch.full((heads, 1, 1), 0.2))
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Support ``[B,C,S,width]`` to the same, one round on, and the keys and values it used."""
        tokens = self._within_rows(tokens)
        key, value = self.column.keys_values(tokens)
        return self._finish(tokens, key, value), key, value

    def forward(self, tokens: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Query ``[B,C,Q,width]``, one round on."""
        return self._finish(self._within_rows(tokens), key, value)

    def _within_rows(self, tokens: Tensor) -> Tensor:
        if self.row is None:
            return tokens
        rows = tokens.transpose(1, 2)
        return tokens + self.row(rows, *self.row.keys_values(rows)).transpose(1, 2)  # type: ignore[no-any-return]

    def _finish(self, tokens: Tensor, key: Tensor, value: Tensor) -> Tensor:
        sharp = 1 + self.sharpness * math.log(key.shape[2] / 16)
        tokens = tokens + self.column(tokens, key, value, sharp)
        return tokens + self.mlp(self.norm(tokens))  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Of ``[A,B,n,width]`` to keys and values ``[A,B,m,width]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(self.norm(tokens)).chunk(2, dim=-1)
        return key, value

    def forward(
        self, tokens: Tensor, key: Tensor, value: Tensor, sharp: Tensor | None = None
    ) -> Tensor:
        query = self._split(self.query(self.norm(tokens)))
        if sharp is not None:
            query = query * sharp
        attended = F.scaled_dot_product_attention(query, self._split(key), self._split(value))
        merged = attended.transpose(1, 2).reshape(tokens.shape)
        return self.out(merged)  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        """``[A,B,n,width] -> [A*B,heads,n,width/heads]``."""
        x = x.flatten(0, 1)
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


def _column_order(cells: Tensor) -> Tensor:
    """``[T,F]``: the place of each column in an order that depends on its values alone."""
    value, rank, missing = cells.double().unbind(-1)
    of_column = (value**3 + rank.sin() ** 2 + missing).mean(-1)
    return of_column.argsort(1).argsort(1)


def _class_order(cells: Tensor, y: Tensor, n_way: int) -> Tensor:
    """``[T,N]``: the place of each class in an order that depends on its rows alone."""
    of_row = (cells[..., 0] + cells[..., 1].sin()).double().mean(1)
    of_class = torch.zeros(len(y), n_way, dtype=of_row.dtype, device=y.device)
    of_class = of_class.scatter_reduce(1, y, of_row, "mean", include_self=False)
    return of_class.argsort(1).argsort(1)


def _codes(n_way: int, symbols: int, device: torch.device) -> Tensor:
    """``[G,N]``: the symbol of each class in each code; one code if there are enough symbols.

    Each code deals its symbols evenly; so many codes that any two classes differ in several.
    """
    if n_way <= symbols:
        return torch.arange(n_way, device=device).unsqueeze(0)
    rng = torch.Generator().manual_seed(n_way)
    codes = 4 * math.ceil(math.log(n_way, symbols))
    dealt = torch.arange(n_way) % symbols
    order = [torch.randperm(n_way, generator=rng) for _ in range(codes)]
    return torch.stack([dealt[each] for each in order]).to(device)
