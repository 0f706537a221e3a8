"""Black boxes against a plain reading of their equations in numpy."""

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from quickstudy.functional import example_loss
from quickstudy.learner import MetaLearner
from quickstudy.learners import (
    MANN,
    BlackBoxLSTM,
    ConditionalNeuralProcess,
    InContextTransformer,
)
from quickstudy.learners.mann import access
from quickstudy.nn import MLP
from quickstudy.task import Task
from quickstudy.testing import make_task

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]
Learner = TypeVar("Learner", bound=MetaLearner)


def classification(way: int = 3, query: int = 4) -> Task:
    """Two tasks of three shots, the labels of each in an order of its own."""
    a, b = (make_task((8,), way, 1, 3, query, seed).tensors() for seed in (0, 1))
    return Task(*(torch.cat(pair) for pair in zip(a, b, strict=True)), n_way=way)


def scrambled(learner: Learner) -> Learner:
    """In float64 and evaluation mode, where no norm, bias or running average is trivial."""
    rng = torch.Generator().manual_seed(3)
    learner = learner.double().eval()
    with torch.no_grad():
        for value in (*learner.parameters(), *learner.buffers()):
            value.add_(0.4 * torch.rand(value.shape, generator=rng, dtype=value.dtype))
    return learner


def weights_of(module: nn.Module) -> Weights:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def linear(w: Weights, name: str, x: Array) -> Array:
    y: Array = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def normed(w: Weights, x: Tensor) -> Array:
    """Embeddings of a linear encoder, past the batch norm's running averages."""
    z = linear(w, "encoder.0", x.numpy()) - w["encoder.1.running_mean"]
    z = z / np.sqrt(w["encoder.1.running_var"] + 1e-5)
    return z * w["encoder.1.weight"] + w["encoder.1.bias"]


def softmax(score: npt.ArrayLike) -> Array:
    e = np.exp(score - np.max(score))
    return e / e.sum()


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def cross_entropy(logits: Array, y: Array) -> float:
    """Mean over examples: ``[n,N], [n]``."""
    return float(np.mean([-math.log(softmax(a)[n]) for a, n in zip(logits, y, strict=True)]))


def test_lstm_reads_the_flattened_sequence() -> None:
    """One pass over [support with labels, one query with zeros] gives the same logits."""
    torch.manual_seed(0)
    learner = BlackBoxLSTM(MLP(8, [16], 5), outputs=4, hidden=7).double().eval()
    task = make_task((8,), 3, tasks=1, shot=2, query=2)
    S = task.support_x.shape[1]
    onehot = torch.eye(4, dtype=torch.float64)[task.support_y[0]]
    for q in range(task.query_x.shape[1]):
        x = torch.cat([task.support_x[0], task.query_x[0, q : q + 1]])
        labels = torch.cat([onehot, torch.zeros(1, 4, dtype=torch.float64)])
        out, _ = learner.lstm(torch.cat([learner.encoder(x), labels], 1).unsqueeze(0))
        assert torch.allclose(learner.head(out[0, S])[:3], learner(task)[0, q])


def test_lstm_sequence_reads_queries_one_after_another() -> None:
    torch.manual_seed(0)
    alone = BlackBoxLSTM(MLP(8, [16], 5), outputs=3, hidden=7).double().eval()
    sequence = BlackBoxLSTM(MLP(8, [16], 5), outputs=3, hidden=7, queries="sequence").double()
    sequence.eval()
    sequence.load_state_dict(alone.state_dict())
    task = make_task((8,), 3)
    first = Task(task.support_x, task.support_y, task.query_x[:, :1], task.query_y[:, :1], 3)
    assert torch.allclose(alone(first), sequence(first))
    assert torch.allclose(alone(task)[:, 0], sequence(task)[:, 0])
    assert not torch.allclose(alone(task)[:, 1], sequence(task)[:, 1])
    assert sequence.transductive
    assert not alone.transductive


def numpy_access(
    memory: Array,
    weights: Array,
    usage: Array,
    key: Array,
    gate: Array,
    decay: float,
    beta: float,
) -> tuple[Array, Array, Array]:
    """Santoro et al. (2016), eq. 2 to 8, of one task; ``key`` and ``weights`` by read head."""
    reads, slots = weights.shape
    least_used = np.argsort(usage, kind="stable")[:reads]
    written = memory.copy()
    written[least_used[0]] = 0
    usage = decay * usage
    for head in range(reads):
        for i in range(slots):
            least = 1.0 if i in least_used else 0.0
            write = gate[head] * weights[head, i] + (1 - gate[head]) * least
            written[i] += write * key[head]
            usage[i] += write
    read = np.zeros_like(weights)
    for head, k in enumerate(key):
        read[head] = softmax(
            [beta * (k @ m) / math.sqrt(k @ k) / math.sqrt(m @ m) for m in written]
        )
    return written, read, usage + read.sum(0)


@pytest.mark.parametrize(("reads", "beta"), [(1, 1.0), (4, 10.0)])
def test_access_equals_numpy(reads: int, beta: float) -> None:
    """From a memory, read weights and a usage that are all different, over five steps."""
    rng = np.random.default_rng(0)
    T, slots, width, decay = 2, 7, 3, 0.9
    memory = rng.normal(size=(T, slots, width))
    weights = rng.dirichlet(np.ones(slots), size=(T, reads))
    usage = rng.uniform(size=(T, slots))
    ours = tuple(torch.from_numpy(a) for a in (memory, weights, usage))
    theirs = list(zip(memory, weights, usage, strict=True))
    erased = set()
    for _ in range(5):
        key, gate = rng.normal(size=(T, reads, width)), rng.uniform(size=(T, reads, 1))
        ours = access(*ours, torch.from_numpy(key), torch.from_numpy(gate), decay, beta)
        for t in range(T):
            assert len(np.unique(theirs[t][2])) == slots  # eq. 6 is about no ties
            erased.add(int(theirs[t][2].argmin()))
            theirs[t] = numpy_access(*theirs[t], key[t], gate[t, :, 0], decay, beta)
            for mine, expected in zip(ours, theirs[t], strict=True):
                np.testing.assert_allclose(mine[t].numpy(), expected, rtol=1e-9)
    assert len(erased) > 1


def test_access_erases_the_least_used_slot_alone() -> None:
    """Gates of one write where was read last: nothing, here. Gates of zero: to the least used."""
    memory = torch.arange(1.0, 13).view(1, 4, 3)
    weights, key = torch.zeros(1, 2, 4), torch.tensor([[[1.0, 0, 0], [0, 1, 0]]])
    usage = torch.tensor([[3.0, 0.5, 2, 1]])
    kept, _, _ = access(memory, weights, usage, key, torch.ones(1, 2, 1), 0.5, 1.0)
    assert kept[0, 1].tolist() == [0, 0, 0]
    assert torch.equal(kept[0, [0, 2, 3]], memory[0, [0, 2, 3]])
    written, read, used = access(memory, weights, usage, key, torch.zeros(1, 2, 1), 0.5, 1.0)
    assert written[0, 1].tolist() == [1, 1, 0]
    assert (written[0, 3] - memory[0, 3]).tolist() == [1, 1, 0]
    assert torch.equal(written[0, [0, 2]], memory[0, [0, 2]])
    by_hand = 0.5 * usage[0] + read[0].sum(0) + torch.tensor([0.0, 2, 0, 2])
    assert torch.allclose(used[0], by_hand)


def numpy_mann(learner: MANN, x: Array, labels: Array, queries: Array) -> tuple[Array, Array]:
    """Outputs at each support step and for each query, of embeddings of one task.

    Args:
        learner: whose weights to use.
        x: ``[S,D]``.
        labels: what is shown beside each example and, last, beside a query: ``[S+1,outputs]``.
        queries: ``[Q,D]``.
    """
    w = weights_of(learner)
    recurrent = isinstance(learner.controller, nn.LSTMCell)
    reads, slots, width, hidden = learner.reads, learner.slots, learner.width, learner.hidden
    start = (
        np.full((slots, width), 1e-6),
        np.zeros((reads, slots)),
        np.zeros(slots),
        np.zeros(reads * width),
        np.zeros(hidden),
        np.zeros(hidden),
    )

    def step(state: tuple[Array, ...], z: Array, label: Array) -> tuple[tuple[Array, ...], Array]:
        memory, weights, usage, r, h, c = state
        inputs = np.concatenate([z, label, r])
        if recurrent:
            pre = w["controller.weight_ih"] @ inputs + w["controller.bias_ih"]
            pre = pre + w["controller.weight_hh"] @ h + w["controller.bias_hh"]
            i, f, g, o = np.split(pre, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        else:
            h = np.tanh(linear(w, "controller", inputs))
        key = np.tanh(linear(w, "keys", h)).reshape(reads, width)
        gate = sigmoid(linear(w, "gates", h))
        memory, weights, usage = numpy_access(
            memory, weights, usage, key, gate, learner.decay, learner.sharpness
        )
        r = np.concatenate(
            [sum(weights[n, i] * memory[i] for i in range(slots)) for n in range(reads)]
        )
        output = linear(w, "head", np.concatenate([h, r]))
        return (memory, weights, usage, r, h, c), output

    state, seen, answers = start, [], []
    for z, label in zip(x, labels[:-1], strict=True):
        state, output = step(state, z, label)
        seen.append(output)
    for z in queries:
        answers.append(step(state, z, labels[-1])[1])
    return np.stack(seen), np.stack(answers)


def mann(**options: object) -> MANN:
    torch.manual_seed(0)
    sizes = {"outputs": 4, "hidden": 6, "slots": 9, "width": 3, "reads": 2, **options}
    return scrambled(MANN(nn.Linear(8, 5), **sizes))


def shown(learner: MANN, y: Array) -> Array:
    """The label beside each support example and, last, beside a query."""
    onehot, blank = np.eye(learner.outputs)[y], np.zeros((1, learner.outputs))
    parts = [blank, onehot] if learner.protocol == "offset" else [onehot, blank]
    return np.concatenate(parts)


@pytest.mark.parametrize("reads", [1, 3])
@pytest.mark.parametrize("protocol", ["support", "offset"])
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_mann_equals_numpy(controller: str, protocol: str, reads: int) -> None:
    learner = mann(controller=controller, protocol=protocol, reads=reads, decay=0.8)
    w = weights_of(learner)
    task = classification(query=2)
    logits = learner(task).detach().numpy()
    for t in range(2):
        x, q = normed(w, task.support_x[t]), normed(w, task.query_x[t])
        seen, answers = numpy_mann(learner, x, shown(learner, task.support_y[t].numpy()), q)
        np.testing.assert_allclose(logits[t], answers[:, :3], rtol=1e-9)
        if protocol == "offset":
            read = learner.read(task.support_x, task.support_y, 3)[t].detach().numpy()
            np.testing.assert_allclose(read, seen[:, :3], rtol=1e-9)


def test_mann_regression_equals_numpy() -> None:
    learner = mann(outputs=2)
    w = weights_of(learner)
    task = make_task((8,), None, shot=5, target_size=2)
    for t in range(2):
        labels = np.concatenate([task.support_y[t].numpy(), np.zeros((1, 2))])
        x, q = normed(w, task.support_x[t]), normed(w, task.query_x[t])
        _, answers = numpy_mann(learner, x, labels, q)
        np.testing.assert_allclose(learner(task)[t].detach().numpy(), answers, rtol=1e-9)


def changed(y: Tensor, step: int) -> Tensor:
    """Another label at one step, in every task."""
    y = y.clone()
    y[:, step] = (y[:, step] + 1) % 3
    return y


@pytest.mark.parametrize("step", [0, 3, 8])
def test_offset_label_is_seen_one_step_later(step: int) -> None:
    learner = mann(protocol="offset")
    task = classification()
    x, y = task.support_x, task.support_y
    before, after = learner.read(x, y, 3), learner.read(x, changed(y, step), 3)
    assert torch.equal(after[:, : step + 1], before[:, : step + 1])
    for later in range(step + 1, 9):
        assert not torch.allclose(after[:, later], before[:, later], rtol=1e-9, atol=1e-12)
    answers = learner.predict(learner.adapt(x, changed(y, step), 3), task.query_x)
    assert not torch.allclose(answers, learner(task), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("step", [0, 3, 7])
def test_offset_reading_does_not_look_ahead(step: int) -> None:
    learner = mann(protocol="offset")
    task = classification()
    x = task.support_x.clone()
    x[:, step + 1 :] = torch.rand(x[:, step + 1 :].shape, dtype=x.dtype)
    before, after = (learner.read(images, task.support_y, 3) for images in (task.support_x, x))
    assert torch.equal(after[:, : step + 1], before[:, : step + 1])
    assert not torch.allclose(after[:, step + 1], before[:, step + 1])


def test_online_each_example_is_a_question_to_what_was_learned_before_it() -> None:
    online, support = mann(protocol="online"), mann(protocol="support")
    task = classification()
    x, y = task.support_x, task.support_y
    said = online.read(x, y, 3)
    whole = [s for s in range(3, 9) if all(len(row[:s].unique()) == 3 for row in y)]
    assert whole
    for step in whole:
        phi = support.adapt(x[:, :step], y[:, :step], 3)
        expected = support.predict(phi, x[:, step : step + 1])[:, 0]
        assert torch.allclose(said[:, step], expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(online(task), support(task), rtol=1e-9, atol=1e-12)
    both = torch.cat([said, online(task)], dim=1)
    loss = example_loss(both, torch.cat([y, task.query_y], dim=1))
    assert torch.allclose(online.loss(task), loss)


def test_query_gets_the_last_label_of_the_support() -> None:
    task = classification()
    last = np.eye(4)[task.support_y[:, -1].numpy()]
    for protocol, label in (("offset", last), ("support", np.zeros((2, 4)))):
        phi = mann(protocol=protocol).adapt(task.support_x, task.support_y, 3)
        np.testing.assert_array_equal(phi["label"].numpy(), label)


def test_accuracy_by_instance_needs_the_offset_protocol() -> None:
    task = classification()
    with pytest.raises(ValueError, match="protocol='offset' or 'online'"):
        mann().read(task.support_x, task.support_y, 3)


def test_offset_loss_covers_all_steps() -> None:
    task = classification()
    losses = {}
    for protocol in ("offset", "support"):
        learner = mann(protocol=protocol)
        w, outputs, labels = weights_of(learner), [], []
        for t in range(2):
            y = task.support_y[t].numpy()
            x, q = normed(w, task.support_x[t]), normed(w, task.query_x[t])
            seen, answers = numpy_mann(learner, x, shown(learner, y), q)
            outputs += [seen, answers] if protocol == "offset" else [answers]
            labels += [y, task.query_y[t].numpy()] if protocol == "offset" else [task.query_y[t]]
        expected = cross_entropy(np.concatenate(outputs)[:, :3], np.concatenate(labels))
        losses[protocol] = learner.loss(task).item()
        assert losses[protocol] == pytest.approx(expected, rel=1e-9)
    assert losses["offset"] != pytest.approx(losses["support"], rel=1e-3)


def layer_norm(w: Weights, name: str, x: Array) -> Array:
    z = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return z * w[f"{name}.weight"] + w[f"{name}.bias"]


def gelu(x: Array) -> Array:
    """The exact one: ``x`` times the normal distribution function."""
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def numpy_block(
    w: Weights, name: str, tokens: Array, context: Array, heads: int, causal: bool
) -> Array:
    """Every token attends to ``context``, the support's tokens, and goes through the MLP."""
    D = tokens.shape[1] // heads
    query = linear(w, f"{name}.query", layer_norm(w, f"{name}.norm_attention", tokens))
    both = linear(w, f"{name}.key_value", layer_norm(w, f"{name}.norm_attention", context))
    key, value = np.split(both, 2, axis=1)
    seen = np.zeros_like(tokens)
    for i in range(len(tokens)):
        visible = range(i + 1 if causal else len(context))
        for head in range(heads):
            part = slice(head * D, head * D + D)
            score = [query[i, part] @ key[j, part] / math.sqrt(D) for j in visible]
            for j, attention in zip(visible, softmax(score), strict=True):
                seen[i, part] += attention * value[j, part]
    tokens = tokens + linear(w, f"{name}.out", seen)
    inner = gelu(linear(w, f"{name}.mlp.0", layer_norm(w, f"{name}.norm_mlp", tokens)))
    return tokens + linear(w, f"{name}.mlp.2", inner)


def transformer(**options: object) -> InContextTransformer:
    torch.manual_seed(0)
    sizes = {"outputs": 4, "width": 6, "heads": 2, **options}
    return scrambled(InContextTransformer(nn.Linear(8, 5), **sizes))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "layers"), [(1, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("way", [3, None])
def test_transformer_equals_numpy(way: int | None, heads: int, layers: int, causal: bool) -> None:
    learner = transformer(heads=heads, layers=layers, causal=causal)
    w = weights_of(learner)
    task = (
        make_task((8,), None, shot=5, query=2, target_size=4)
        if way is None
        else classification(way, query=2)
    )
    logits = learner(task).detach().numpy()
    for t in range(2):
        y = task.support_y[t].numpy()
        label = np.eye(4)[y] if way else y
        support = linear(w, "embed_x", normed(w, task.support_x[t])) + linear(w, "embed_y", label)
        query = linear(w, "embed_x", normed(w, task.query_x[t]))
        for layer in range(layers):
            name = f"blocks.{layer}"
            query = numpy_block(w, name, query, support, heads, causal=False)
            support = numpy_block(w, name, support, support, heads, causal)
        expected = linear(w, "head", layer_norm(w, "norm", query))
        np.testing.assert_allclose(logits[t], expected[:, :way], rtol=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_transformer_reads_a_set(seed: int) -> None:
    learner, task = transformer(layers=3), classification()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(seed))
    phi = learner.adapt(task.support_x[:, order], task.support_y[:, order], 3)
    straight = learner.adapt(task.support_x, task.support_y, 3)
    for part in ("keys", "values"):
        torch.testing.assert_close(phi[part], straight[part][..., order, :], rtol=1e-9, atol=1e-12)
    answers = learner.predict(phi, task.query_x)
    torch.testing.assert_close(answers, learner(task), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_causal_transformer_does_not_look_ahead(causal: bool) -> None:
    """``phi`` of the first examples is the first part of ``phi``."""
    learner = transformer(layers=3, causal=causal)
    task = make_task((8,), None, shot=6, target_size=4)
    whole = learner.adapt(task.support_x, task.support_y, None)
    for s in range(1, 6):
        prefix = learner.adapt(task.support_x[:, :s], task.support_y[:, :s], None)
        for part in ("keys", "values"):
            first = whole[part][..., :s, :]
            same = [torch.allclose(prefix[part][:, i], first[:, i], rtol=1e-9) for i in range(3)]
            assert same == ([True] * 3 if causal else [True, False, False])


@pytest.mark.parametrize("causal", [False, True])
def test_transformer_queries_attend_to_the_support_alone(causal: bool) -> None:
    learner, task = transformer(causal=causal), classification()
    support_x, query_x = (x.clone().requires_grad_() for x in (task.support_x, task.query_x))
    phi = learner.adapt(support_x, task.support_y, 3)
    learner.predict(phi, query_x)[0, 4, 0].backward()
    assert support_x.grad is not None
    assert query_x.grad is not None
    reached = query_x.grad.abs().sum(-1) > 0
    assert reached.nonzero().tolist() == [[0, 4]]
    assert bool((support_x.grad[0].abs().sum(-1) > 0).all())
    assert not support_x.grad[1].any()


def mlp(w: Weights, name: str, x: Array) -> Array:
    """Three linear layers with ReLU between."""
    for layer in (0, 2):
        x = np.maximum(linear(w, f"{name}.layers.{layer}", x), 0)
    return linear(w, f"{name}.layers.4", x)


def cnp(**options: object) -> ConditionalNeuralProcess:
    torch.manual_seed(0)
    return scrambled(ConditionalNeuralProcess(nn.Linear(8, 5), outputs=4, width=6, **options))


def test_cnp_regression_equals_numpy() -> None:
    learner = cnp(regression=True)
    w = weights_of(learner)
    task = make_task((8,), None, shot=5, target_size=4)
    phi = learner.adapt(task.support_x, task.support_y, None)
    answers = learner.predict(phi, task.query_x).detach().numpy()
    for t in range(2):
        z, q = (normed(w, x[t]) for x in (task.support_x, task.query_x))
        y = task.support_y[t].numpy()
        r = np.mean([mlp(w, "h", np.concatenate(pair)) for pair in zip(z, y, strict=True)], axis=0)
        np.testing.assert_allclose(phi["r"][t].detach().numpy(), r, rtol=1e-9)
        expected = [mlp(w, "g", np.concatenate([a, r])) for a in q]
        np.testing.assert_allclose(answers[t], expected, rtol=1e-9)


@pytest.mark.parametrize("way", [2, 3, 4])
def test_cnp_classification_equals_numpy(way: int) -> None:
    """One or more examples of each class; nothing where a class is absent."""
    learner = cnp()
    w = weights_of(learner)
    task = classification(way)
    keep = (task.support_y != task.support_y[:, :1]) | (torch.arange(3 * way) == 0)
    support_x, support_y = (part[keep].unflatten(0, (2, -1)) for part in task.tensors()[:2])
    phi = learner.adapt(support_x, support_y, way)
    logits = learner.predict(phi, task.query_x).detach().numpy()
    for t in range(2):
        z, q = (normed(w, x[t]) for x in (support_x, task.query_x))
        y = support_y[t].numpy()
        said = np.stack([mlp(w, "h", a) for a in z])
        r = np.concatenate(
            [said[y == n].mean(0) if n < way else np.zeros(6) for n in range(learner.outputs)]
        )
        np.testing.assert_allclose(phi["r"][t].detach().numpy(), r, rtol=1e-9)
        expected = [mlp(w, "g", np.concatenate([a, r]))[:way] for a in q]
        np.testing.assert_allclose(logits[t], expected, rtol=1e-9)


@pytest.mark.parametrize("outputs", [1, 4])
def test_cnp_is_for_one_kind_of_task(outputs: int) -> None:
    """Whether or not the task also has more classes than there are outputs."""
    regression, classes = make_task((8,), None, target_size=outputs), classification()
    encoder = nn.Linear(8, 5)
    with pytest.raises(ValueError, match=r"classifies.*regression"):
        ConditionalNeuralProcess(encoder, outputs=outputs).double()(regression)
    with pytest.raises(ValueError, match="built for regression"):
        ConditionalNeuralProcess(encoder, outputs=outputs, regression=True).double()(classes)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        *(
            (lambda e, name=name, value=value: MANN(e, **{"outputs": 3, name: value}), name)
            for name in ("outputs", "hidden", "slots", "width", "reads")
            for value in (0, -1)
        ),
        (lambda e: MANN(e, outputs=3, slots=3, reads=4), "reads at most slots"),
        (lambda e: MANN(e, outputs=3, protocol="query"), "protocol is 'query'; expected 'support'"),
        (lambda e: MANN(e, outputs=3, controller="gru"), "controller is 'gru'; expected 'lstm'"),
        *(
            (
                lambda e, name=name: InContextTransformer(e, **{"outputs": 3, name: 0}),
                name,
            )
            for name in ("outputs", "width", "layers", "heads")
        ),
        (lambda e: InContextTransformer(e, outputs=3, width=6, heads=4), "multiple of heads, 4"),
        (lambda e: ConditionalNeuralProcess(e, outputs=0), "outputs"),
        (lambda e: ConditionalNeuralProcess(e, outputs=3, width=0), "width"),
        (lambda e: BlackBoxLSTM(e, outputs=0), "outputs"),
        (lambda e: BlackBoxLSTM(e, outputs=3, hidden=0), "hidden"),
        (lambda e: BlackBoxLSTM(e, outputs=3, layers=0), "layers"),
        (lambda e: BlackBoxLSTM(e, outputs=3, queries="all"), "queries is 'all'; expected 'alone'"),
    ],
)
def test_bad_arguments(build: Callable[[nn.Module], MetaLearner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(nn.Linear(8, 5))
