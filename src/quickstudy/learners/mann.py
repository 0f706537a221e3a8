"""MANN: a black box with an external memory, for supports too long for a recurrent state."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quickstudy.embedding import NormedEncoder, embed, feature_size
from quickstudy.functional import example_loss
from quickstudy.learner import MetaLearner, Phi, class_labels, ways
from quickstudy.task import Task

__all__ = ["MANN"]


class MANN(MetaLearner):
    """Memory-augmented neural network (Santoro et al. 2016, arXiv:1605.06065, section 3).

    A controller reads one example after another; each step writes its key into memory, either
    where it last read or over the least used slot, then reads by similarity::

        k_t  = key from the controller's output, alpha a learned gate
        w^w  = sigmoid(alpha) w^r_{t-1} + (1 - sigmoid(alpha)) w^lu_{t-1}     (eq. 7)
        M_t  = M_{t-1} (least used slot erased) + w^w k_t                     (eq. 8)
        w^r  = softmax_i( beta cosine(k_t, M_t(i)) )                          (eq. 2 and 3)
        r_t  = sum_i w^r(i) M_t(i)                                            (eq. 4)
        w^u  = gamma w^u_{t-1} + w^r + w^w                                    (eq. 5)
        w^lu = 1 at the ``reads`` slots of smallest w^u, else 0               (eq. 6)
        logits = W [h_t, r_t]

    Args:
        encoder: ``e``, a module ``[n,...] -> [n,D]`` with an ``out_features`` attribute.
        outputs: most classes of a task (the width of the one-hot label), or the size ``d`` of a
            regression target.
        protocol: ``"support"``: an example comes with its own label, then each query without one,
            as in the lecture. ``"offset"``: an example comes with the label of the one *before*
            it, as in the paper, and every example is answered when it is first seen; the loss
            covers the support too, and `read` gives the accuracy by instance. ``"online"``: the
            same questions in the same order, but each example comes twice, first without a label,
            to be answered, then with its own, to be remembered; nothing has to be carried from one
            example to the next before it can be bound.
        controller: ``"lstm"`` or ``"feedforward"``.
        hidden: size of the controller.
        slots: of memory.
        width: of a slot.
        reads: read heads; each writes too.
        decay: ``gamma``.
        sharpness: ``beta``. The paper has none (1), which spreads a read over all slots: of 128,
            a perfect match gets 2%.

    ``phi``: ``{"memory": [T,slots,width], "usage": [T,slots], "weights": [T,reads,slots],
    "read": [T,reads*width], "h": [T,hidden], "c": [T,hidden], "label": [T,outputs],
    "classes": [T,N]}``.

    Differs from the paper: images pass an encoder and a batch norm, where the paper feeds pixels;
    memory starts at a small constant; the label's input weights are larger by sqrt(D), as in
    `BlackBoxLSTM`; and ``sharpness``, which a neural Turing machine has too (Graves et al. 2014,
    eq. 5), there as an output of the controller.

    Example:
        >>> from quickstudy.nn import Conv4
        >>> learner = MANN(Conv4(), outputs=5)
    """

    order_invariant = False
    label_equivariant = False
    class_balanced = False

    def __init__(
        self,
        encoder: nn.Module,
        *,
        outputs: int,
        protocol: Literal["support", "offset", "online"] = "support",
        controller: Literal["lstm", "feedforward"] = "lstm",
        hidden: int = 200,
        slots: int = 128,
        width: int = 40,
        reads: int = 4,
        decay: float = 0.99,
        sharpness: float = 10.0,
    ) -> None:
        super().__init__()
        if min(outputs, hidden, slots, width, reads) < 1 or reads > slots:
            raise ValueError(
                "outputs, hidden, slots, width and reads must each be at least 1, and reads at "
                "most slots"
            )
        if not 0 <= decay <= 1:
            raise ValueError(f"decay is {decay}; expected a number from 0 to 1")
        if not sharpness > 0:
            raise ValueError(f"sharpness is {sharpness}; expected a positive number")
        if protocol not in ("support", "offset", "online"):
            raise ValueError(f"protocol is {protocol!r}; expected 'support', 'offset' or 'online'")
        if controller not in ("lstm", "feedforward"):
            raise ValueError(f"controller is {controller!r}; expected 'lstm' or 'feedforward'")
        features = feature_size(encoder)
        self.encoder = NormedEncoder(encoder)
        inputs = features + outputs + reads * width
        self.controller = (
            nn.LSTMCell(inputs, hidden) if controller == "lstm" else nn.Linear(inputs, hidden)
        )
        self.keys = nn.Linear(hidden, reads * width)
        self.gates = nn.Linear(hidden, reads)
        self.head = nn.Linear(hidden + reads * width, outputs)
        self.outputs, self.protocol = outputs, protocol
        self.slots, self.width, self.reads, self.decay = slots, width, reads, decay
        self.hidden, self.sharpness = hidden, sharpness
        with torch.no_grad():
            first = next(self.controller.parameters())
            first[:, features : features + outputs] *= features**0.5
            if isinstance(self.controller, nn.LSTMCell):
                self.controller.bias_ih[hidden : 2 * hidden] = 1

    @property
    def max_way(self) -> int | None:
        return self.outputs

    def adapt(self, support_x: Tensor, support_y: Tensor, n_way: int | None) -> Phi:
        return self._read_support(support_x, support_y, n_way)[0]

    def predict(self, phi: Phi, query_x: Tensor) -> Tensor:
        z = embed(self.encoder, query_x)
        T, Q, _ = z.shape
        state = _State(*(phi[name].repeat_interleave(Q, 0) for name in _State._fields))
        label = phi["label"].repeat_interleave(Q, 0)
        _, output = self._step(state, z.flatten(0, 1), label)
        return output.view(T, Q, -1)[..., : ways(phi)]

    def read(self, x: Tensor, y: Tensor, n_way: int | None) -> Tensor:
        """What it says of each example when it first sees it: ``[T,S,...], [T,S] -> [T,S,N]``.

        Raises:
            ValueError: the protocol is ``"support"``: labels come with the examples.
        """
        if self.protocol == "support":
            raise ValueError(
                "accuracy by instance needs a MANN of protocol='offset' or 'online'; this one is "
                "shown each label with its example"
            )
        return self._read_support(x, y, n_way)[1]

    def loss(self, task: Task) -> Tensor:
        """The outer loss, a scalar; unless ``"support"``, over every example of the sequence."""
        if self.protocol == "support":
            return super().loss(task)
        phi, answers = self._read_support(task.support_x, task.support_y, task.n_way)
        output = torch.cat([answers, self.predict(phi, task.query_x)], dim=1)
        return example_loss(output, torch.cat([task.support_y, task.query_y], dim=1))

    def _read_support(self, x: Tensor, y: Tensor, n_way: int | None) -> tuple[Phi, Tensor]:
        """The state after the support, and the output at each of its steps."""
        self.check_task(x, y, n_way, regression=True)
        z = embed(self.encoder, x)
        T, S, _ = z.shape
        labels = (y if n_way is None else F.one_hot(y, self.outputs)).to(z.dtype)
        blank = z.new_zeros(T, 1, self.outputs)
        if self.protocol == "offset":
            labels = torch.cat([blank, labels], dim=1)
        state, states, outputs = self._start(z), [], []
        for s in range(S):
            states.append(state)
            state, output = self._step(state, z[:, s], labels[:, s])
            outputs.append(output)
        answers = torch.stack(outputs, dim=1)
        if self.protocol == "online":  # what it says to each before the label comes, all at once
            before = _State(
                *(torch.stack(part, 1).flatten(0, 1) for part in zip(*states, strict=True))
            )
            unlabelled = blank.expand(-1, S, -1).flatten(0, 1)
            answers = self._step(before, z.flatten(0, 1), unlabelled)[1].view(T, S, -1)
        phi: Phi = state._asdict()
        phi["label"] = labels[:, S] if self.protocol == "offset" else blank[:, 0]
        phi |= class_labels(y, n_way)
        return phi, answers[..., :n_way]

    def _start(self, z: Tensor) -> "_State":
        T = len(z)
        weights = z.new_zeros(T, self.reads, self.slots)
        return _State(
            memory=z.new_full((T, self.slots, self.width), 1e-6),
            usage=z.new_zeros(T, self.slots),
            weights=weights,
            read=z.new_zeros(T, self.reads * self.width),
            h=z.new_zeros(T, self.hidden),
            c=z.new_zeros(T, self.hidden),
        )

    def _step(self, state: "_State", z: Tensor, label: Tensor) -> tuple["_State", Tensor]:
        """Read one example of each task: ``[T,D], [T,outputs]``."""
        inputs = torch.cat([z, label, state.read], dim=-1)
        if isinstance(self.controller, nn.LSTMCell):
            h, c = self.controller(inputs, (state.h, state.c))
        else:
            h, c = torch.tanh(self.controller(inputs)), state.c
        key = torch.tanh(self.keys(h)).view(-1, self.reads, self.width)
        gate = torch.sigmoid(self.gates(h)).unsqueeze(-1)
        memory, weights, usage = access(
            state.memory, state.weights, state.usage, key, gate, self.decay, self.sharpness
        )
        read = (weights @ memory).flatten(1)
        return _State(memory, usage, weights, read, h, c), self.head(torch.cat([h, read], dim=-1))


class _State(NamedTuple):
    memory: Tensor
    usage: Tensor
    weights: Tensor
    read: Tensor
    h: Tensor
    c: Tensor


def access(
    memory: Tensor,
    weights: Tensor,
    usage: Tensor,
    key: Tensor,
    gate: Tensor,
    decay: float,
    sharpness: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Least recently used access: write, then read (eq. 2 to 8).

    Args:
        memory: ``M_{t-1} [T,slots,width]``.
        weights: ``w^r_{t-1} [T,reads,slots]``.
        usage: ``w^u_{t-1} [T,slots]``.
        key: ``k_t [T,reads,width]``.
        gate: ``sigmoid(alpha) [T,reads,1]``.
        decay: ``gamma``.
        sharpness: ``beta``.

    Returns:
        ``M_t``, ``w^r_t`` and ``w^u_t``.
    """
    reads = key.shape[1]
    order = usage.topk(reads, largest=False, sorted=True).indices
    least = torch.zeros_like(usage).scatter(1, order, 1.0).unsqueeze(1)
    write = gate * weights + (1 - gate) * least
    erased = torch.ones_like(usage).scatter(1, order[:, :1], 0.0).unsqueeze(-1)
    memory = memory * erased + write.mT @ key
    similarity = F.normalize(key, dim=-1) @ F.normalize(memory, dim=-1).mT
    weights = (sharpness * similarity).softmax(-1)
    return memory, weights, decay * usage + (weights + write).sum(1)
