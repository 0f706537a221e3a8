"""Learners that compare examples, against a plain reading of their equations in numpy."""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from quickstudy.evaluation import evaluate
from quickstudy.learner import MetaLearner, temporarily
from quickstudy.learners import (
    R2D2,
    MatchingNetwork,
    NearestNeighbour,
    ProtoNet,
    SimpleShot,
    SoftNearestNeighbour,
)
from quickstudy.nn import MLP, Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task

Array = npt.NDArray[np.float64]


def uneven_task() -> Task:
    """Two tasks of three classes with 1, 2 and 3 support examples, in another order each."""
    rng = torch.Generator().manual_seed(5)
    support_y = torch.tensor([[0, 1, 2, 2, 1, 2], [1, 2, 0, 0, 0, 2]])
    query_y = torch.tensor([[0, 1, 2, 1, 0], [2, 2, 1, 0, 1]])
    support_x = torch.randn(2, 6, 8, generator=rng, dtype=torch.float64)
    query_x = torch.randn(2, 5, 8, generator=rng, dtype=torch.float64)
    return Task(support_x, support_y, query_x, query_y, 3)


def encoded(encoder: nn.Module, x: torch.Tensor) -> Array:
    return encoder(x).detach().numpy()


def softmax(score: npt.ArrayLike) -> Array:
    e = np.exp(score - np.max(score))
    return e / e.sum()


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def distance(a: Array, b: Array) -> float:
    return float(((a - b) ** 2).sum())


def votes(weights: Array, labels: Array, n_way: int) -> Array:
    """Of each class the mean, so that a large one has no more of them."""
    p = np.zeros(n_way)
    for weight, label in zip(weights, labels, strict=True):
        p[label] += weight / (labels == label).sum()
    return p / p.sum()


def size_offsets(z: Array, labels: Array, n_way: int) -> Array:
    """``s^2 / n`` of each class, less the mean over classes."""
    classes = [z[labels == n] for n in range(n_way)]
    within = sum(((c - c.mean(0)) ** 2).sum() for c in classes) / (len(z) - n_way)
    owed = np.array([within / len(c) for c in classes])
    return owed - owed.mean()


def matching(f: Array, g: Array, labels: Array, n_way: int, scale: float) -> Array:
    """Vinyals et al. (2016), section 2.1.1 and eq. 1: probabilities ``[Q,N]``."""
    return np.stack(
        [votes(softmax([scale * cosine(a, b) for b in g]), labels, n_way) for a in f],
    )


@pytest.mark.parametrize("scale", [1.0, 10.0])
@pytest.mark.parametrize("separate", [False, True])
def test_matching_equals_numpy(separate: bool, scale: float) -> None:
    torch.manual_seed(0)
    g = MLP(8, [16], 5).double()
    f = MLP(8, [12], 5).double() if separate else g
    learner = MatchingNetwork(g, query_encoder=f if separate else None, scale=scale)
    task = uneven_task()
    for t in range(2):
        expected = matching(
            encoded(f, task.query_x[t]),
            encoded(g, task.support_x[t]),
            task.support_y[t].numpy(),
            3,
            scale,
        )
        probability = learner(task)[t].exp().detach().numpy()
        np.testing.assert_allclose(probability, expected, rtol=1e-9)
        np.testing.assert_allclose(probability.sum(-1), 1, rtol=1e-12)


def test_matching_uses_both_encoders() -> None:
    torch.manual_seed(0)
    g, f = MLP(8, [16], 5).double(), MLP(8, [16], 5).double()
    task = uneven_task()
    learner = MatchingNetwork(g, query_encoder=f)
    learner.loss(task).backward()
    for p in (*g.parameters(), *f.parameters()):
        assert p.grad is not None
        assert p.grad.abs().max() > 0
    for other in (
        MatchingNetwork(g),
        MatchingNetwork(f),
        MatchingNetwork(f, query_encoder=g),
    ):
        assert not torch.allclose(other(task), learner(task))
    assert {name.split(".")[0] for name, _ in learner.named_parameters()} == {
        "encoder",
        "query_encoder",
    }


def lstm_step(pre: Array, c: Array) -> tuple[Array, Array]:
    """``h, c`` from the gates' inputs, input, forget, cell and output one after another."""
    i, f, g, o = np.split(pre, 4)
    sigmoid_i, sigmoid_f, sigmoid_o = (1 / (1 + np.exp(-a)) for a in (i, f, o))
    c = sigmoid_f * c + sigmoid_i * np.tanh(g)
    return sigmoid_o * np.tanh(c), c


def bidirectional(z: Array, w: dict[str, Array]) -> Array:
    """``g(x_s, S) = h>_s + h<_s + g'(x_s)`` of all support examples."""
    g = z.copy()
    for suffix, order in (("", range(len(z))), ("_reverse", reversed(range(len(z))))):
        W, U, b, d = (
            w[f"support_lstm.{name}_l0{suffix}"]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = np.zeros(z.shape[1])
        for s in order:
            h, c = lstm_step(W @ z[s] + U @ h + b + d, c)
            g[s] += h
    return g


def attention_lstm(x: Array, g: Array, w: dict[str, Array], K: int, bias: Array) -> Array:
    """``f(x, S)`` by eq. 3 to 6, where the read-out belongs to the state ``[h, r]``."""
    D = len(x)
    W = w["query_lstm.weight_ih"][:, :D]
    U = np.concatenate([w["query_lstm.weight_hh"], w["query_lstm.weight_ih"][:, D:]], axis=1)
    h = c = np.zeros(D)
    for _ in range(K):
        attention = softmax([h @ b for b in g] + bias)
        r = sum((a * b for a, b in zip(attention, g, strict=True)), np.zeros(D))
        state = np.concatenate([h, r])
        pre = W @ x + U @ state + w["query_lstm.bias_ih"] + w["query_lstm.bias_hh"]
        h, c = lstm_step(pre, c)
        h = h + x
    return h


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("separate", [False, True])
def test_full_context_embeddings_equal_numpy(K: int, separate: bool) -> None:
    torch.manual_seed(0)
    f = MLP(8, [12], 5) if separate else None
    learner = MatchingNetwork(MLP(8, [16], 5), query_encoder=f, reading_steps=K).double()
    with torch.no_grad():  # states so large that no gate can be mistaken for another
        for lstm in (learner.support_lstm, learner.query_lstm):
            for p in lstm.parameters():
                p.mul_(3)
    w = {name: p.detach().numpy() for name, p in learner.named_parameters()}
    task = uneven_task()
    phi = learner.adapt(task.support_x, task.support_y, 3)
    logits = learner.predict(phi, task.query_x).detach()
    for t in range(2):
        g = bidirectional(encoded(learner.encoder, task.support_x[t]), w)
        np.testing.assert_allclose(phi["support"][t].detach().numpy(), g, rtol=1e-9)
        queries = encoded(learner.query_encoder or learner.encoder, task.query_x[t])
        labels = task.support_y[t].numpy()
        bias = -np.log([(labels == label).sum() for label in labels])
        f_x = np.stack([attention_lstm(x, g, w, K, bias) for x in queries])
        expected = matching(f_x, g, task.support_y[t].numpy(), 3, 10.0)
        np.testing.assert_allclose(logits[t].exp().numpy(), expected, rtol=1e-9)


def test_matching_without_reading_steps_has_no_lstm() -> None:
    names = {name for name, _ in MatchingNetwork(MLP(8, [], 5)).named_modules()}
    assert names == {"", "encoder", "encoder.layers", "encoder.layers.0"}
    assert MatchingNetwork(MLP(8, [], 5)).order_invariant
    assert not MatchingNetwork(MLP(8, [], 5), reading_steps=1).order_invariant


def test_unscaled_attention_cannot_be_sure() -> None:
    """The docstring's number: cosines of 1 and 59 times -1 give ``e / (e + 59/e)``."""
    x = -torch.ones(1, 60, 2, dtype=torch.float64)
    x[0, 7] = 1
    task = Task(x, torch.arange(60).unsqueeze(0), x[:, 7:8], torch.tensor([[7]]), 60)
    surest = float(MatchingNetwork(nn.Identity(), scale=1)(task).exp().max())
    assert surest == pytest.approx(math.e / (math.e + 59 / math.e), rel=1e-12)
    assert round(surest, 2) == 0.11
    assert MatchingNetwork(nn.Identity(), scale=10)(task).exp().max() > 0.99


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_nearest_equals_scikit_learn(
    k: int, embedded: bool, metric: Literal["euclidean", "cosine"]
) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(36, 5)).double() if embedded else nn.Flatten()
    task = make_task((1, 6, 6), 4, tasks=3, shot=3, query=10)
    said = NearestNeighbour(encoder, k=k, metric=metric)(task).argmax(-1)
    compared = 0
    for t in range(3):
        support, query = encoded(encoder, task.support_x[t]), encoded(encoder, task.query_x[t])
        labels = task.support_y[t].numpy()
        reference = KNeighborsClassifier(k, metric=metric).fit(support, labels)
        voters = labels[reference.kneighbors(query, return_distance=False)]
        counts = np.sort([np.bincount(row, minlength=4) for row in voters], axis=-1)
        clear = counts[:, -1] > counts[:, -2]
        assert said[t].numpy()[clear].tolist() == reference.predict(query)[clear].tolist()
        compared += int(clear.sum())
    assert compared > 60  # of 120


@pytest.mark.parametrize("k", [2, 3, 4, 6])
def test_nearest_equals_numpy(k: int) -> None:
    """Logits by the docstring: votes, less the rank of the class's closest example over N."""
    task = uneven_task()
    logits = NearestNeighbour(k=k)(task)
    for t in range(2):
        labels = task.support_y[t].numpy()
        for q, x in enumerate(task.query_x[t].numpy()):
            distances = np.array([distance(x, s) for s in task.support_x[t].numpy()])
            count = np.bincount(labels[np.argsort(distances)[:k]], minlength=3)
            closest = [distances[labels == n].min() for n in range(3)]
            closer = [sum(other < mine for other in closest) for mine in closest]
            np.testing.assert_allclose(logits[t, q], count - np.array(closer) / 3, rtol=1e-12)


def line(support: list[float], labels: list[int], query: list[float], n_way: int) -> Task:
    """One task of points on a line."""
    x, q = (torch.tensor(points).double().view(1, -1, 1) for points in (support, query))
    y = torch.tensor([labels])
    return Task(x, y, q, torch.zeros(q.shape[:2], dtype=torch.int64), n_way)


def test_closer_example_breaks_a_tie() -> None:
    """From 0: class 1 at 1, class 0 at 2 and 3, class 1 at 4, class 2 far away."""
    task = line([2.0, 3.0, -1.0, 4.0, 50.0], [0, 0, 1, 1, 2], [0.0], 3)
    answers = {k: NearestNeighbour(k=k)(task)[0, 0] for k in (1, 2, 3, 4)}
    assert answers[1].tolist() == [-4, -1, -2500]
    assert [int(a.argmax()) for a in answers.values()] == [1, 1, 0, 1]
    tied = answers[4]
    assert tied.tolist() == pytest.approx([2 - 1 / 3, 2, -2 / 3])
    renamed = line([2.0, 3.0, -1.0, 4.0, 50.0], [2, 2, 0, 0, 1], [0.0], 3)
    assert torch.equal(NearestNeighbour(k=4)(renamed)[0, 0], tied[[1, 2, 0]])


def test_all_vote_where_there_are_fewer_than_k() -> None:
    task = line([0.0, 5.0, 6.0, 7.0], [0, 1, 1, 1], [0.1, 5.5, -100.0], 2)
    for k in (4, 5, 1000):
        assert NearestNeighbour(k=k)(task).argmax(-1).tolist() == [[1, 1, 1]]
    assert NearestNeighbour(k=1)(task).argmax(-1).tolist() == [[0, 1, 0]]
    assert torch.equal(NearestNeighbour(k=1000)(task), NearestNeighbour(k=4)(task))


def test_soft_nearest_equals_numpy() -> None:
    torch.manual_seed(0)
    encoder = MLP(8, [16], 5).double()
    task = uneven_task()
    logits = SoftNearestNeighbour(encoder)(task).detach()
    for t in range(2):
        z, q = (encoded(encoder, x[t]) for x in (task.support_x, task.query_x))
        labels = task.support_y[t].numpy()
        expected = [votes(softmax([-distance(a, b) for b in z]), labels, 3) for a in q]
        np.testing.assert_allclose(logits[t].exp().numpy(), expected, rtol=1e-9)


def test_soft_nearest_approaches_nearest() -> None:
    torch.manual_seed(0)
    encoder = nn.Linear(8, 5).double()
    task = uneven_task()
    answer = nn.functional.one_hot(NearestNeighbour(encoder)(task).argmax(-1), 3)
    apart = []
    for _ in range(4):
        soft = SoftNearestNeighbour(encoder)(task).exp().detach()
        apart.append(float((soft - answer).abs().max()))
        with torch.no_grad():
            for p in encoder.parameters():
                p.mul_(5)
    assert apart == sorted(apart, reverse=True)
    assert apart[0] > 0.1
    assert apart[-1] < 1e-6


def cl2n(encoder: nn.Module, mean: Array, x: torch.Tensor) -> Array:
    """Wang et al. (2019), section 3: centred, then of length one."""
    centred = [z - mean for z in encoded(encoder, x)]
    return np.stack([z / math.sqrt(z @ z) for z in centred])


def test_simpleshot_equals_numpy_and_scikit_learn() -> None:
    from sklearn.neighbors import NearestCentroid

    torch.manual_seed(0)
    learner = SimpleShot(MLP(8, [16], 5), classes=4).double().eval()
    learner.mean.normal_()
    mean = learner.mean.numpy()
    task = uneven_task()
    logits = learner(task).detach().numpy()
    for t in range(2):
        z, q = (cl2n(learner.encoder, mean, x[t]) for x in (task.support_x, task.query_x))
        labels = task.support_y[t].numpy()
        centroids = [z[labels == n].mean(0) for n in range(3)]
        distances = np.array([[distance(a, c) for c in centroids] for a in q])
        expected = size_offsets(z, labels, 3) - distances
        np.testing.assert_allclose(logits[t], expected, rtol=1e-9)
        reference = NearestCentroid().fit(z, labels)
        assert distances.argmin(-1).tolist() == reference.predict(q).tolist()


def test_simpleshot_mean_moves_in_training_only() -> None:
    torch.manual_seed(0)
    learner = SimpleShot(MLP(8, [16], 5), classes=3, momentum=0.25).double()
    task = make_task((8,), 3)
    assert torch.equal(learner.state_dict()["mean"], torch.zeros(5, dtype=torch.float64))
    learner(task)
    learner.eval().loss(task)
    assert not learner.mean.any()
    learner.train()
    expected = np.zeros(5)
    for seed in (0, 1):
        task = make_task((8,), 3, seed=seed)
        examples = torch.cat([task.support_x, task.query_x], dim=1)
        z = encoded(learner.encoder, examples.flatten(0, 1))
        learner.loss(task).backward()
        expected = 0.75 * expected + 0.25 * z.mean(0)
        np.testing.assert_allclose(learner.state_dict()["mean"].numpy(), expected, rtol=1e-9)
    assert "mean" not in dict(learner.named_parameters())


def test_simpleshot_pretrains_on_the_classes_of_the_data_set() -> None:
    torch.manual_seed(0)
    learner = SimpleShot(MLP(8, [16], 5), classes=6).double()
    task = uneven_task()
    classes = torch.tensor([[5, 0, 2], [1, 3, 5]])
    task = Task(*task.tensors(), n_way=3, classes=classes)
    W, b = (p.detach().numpy() for p in learner.classifier.parameters())
    losses = []
    for t in range(2):
        for x, y in ((task.support_x, task.support_y), (task.query_x, task.query_y)):
            for z, label in zip(encoded(learner.encoder, x[t]), y[t].tolist(), strict=True):
                losses.append(-math.log(softmax(W @ z + b)[classes[t, label]]))
    assert learner.loss(task).item() == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize("task", [make_task((8,), 3, tasks=2, shot=3), uneven_task()])
def test_protonet_equals_numpy(task: Task) -> None:
    torch.manual_seed(0)
    encoder = MLP(8, [16], 5).double()
    logits = ProtoNet(encoder)(task).detach().numpy()
    for t in range(2):
        z, q = (encoded(encoder, x[t]) for x in (task.support_x, task.query_x))
        y = task.support_y[t].numpy()
        means = np.stack([z[y == n].mean(0) for n in range(3)])
        expected = size_offsets(z, y, 3) - [[distance(a, m) for m in means] for a in q]
        np.testing.assert_allclose(logits[t], expected, rtol=1e-9)


def test_refined_means_equal_numpy() -> None:
    """Ren et al. (2018), eq. 3 and 4, from the support's means anew at every step."""
    torch.manual_seed(0)
    encoder, task = MLP(8, [16], 5).double(), uneven_task()
    once, twice = (ProtoNet(encoder, refine=n)(task).detach().numpy() for n in (1, 2))
    for t in range(2):
        z, q = (encoded(encoder, x[t]) for x in (task.support_x, task.query_x))
        y = task.support_y[t].numpy()
        sizes, sums = np.bincount(y), np.stack([z[y == n].sum(0) for n in range(3)])
        logits = size_offsets(z, y, 3) - np.array(
            [[distance(a, sums[n] / sizes[n]) for n in range(3)] for a in q]
        )
        for found in (once, twice):
            p = np.stack([softmax(row) for row in logits])
            more = sizes + p.sum(0)
            means = (sums + p.T @ q) / more[:, None]
            logits = -np.array([[distance(a, m) for m in means] for a in q])
            np.testing.assert_allclose(found[t], logits, rtol=1e-9)


def test_balanced_means_equal_numpy() -> None:
    """Each class has as much of the queries that move its mean; by hand, turn about."""
    torch.manual_seed(0)
    task = make_task((2,), way=3)
    learner = ProtoNet(nn.Identity(), refine=2)
    with temporarily(learner, balanced=True):
        found = learner(task)
    for t in range(len(task)):
        z, q, y = (x[t].numpy() for x in (task.support_x, task.query_x, task.support_y))
        sums = np.stack([z[y == n].sum(0) for n in range(3)])
        means = sums / 2
        for _ in range(2):
            p = np.exp([[-distance(a, m) for m in means] for a in q])
            for _ in range(2000):
                p = p / p.sum(0) * 4
                p = p / p.sum(1, keepdims=True)
            means = (sums + p.T @ q) / (2 + 4)
        expected = [[-distance(a, m) for m in means] for a in q]
        np.testing.assert_allclose(found[t], expected, rtol=5e-3)


def test_a_balanced_evaluation_moves_means_in_balance() -> None:
    """Two examples to the same side of two heaps: which alone take nearly all for one class."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(20)
    heaps = torch.tensor([[-1.0], [1.0]]) + 0.3 * torch.randn(2, 20, generator=rng)
    q = heaps.mT.reshape(1, 40, 1)
    task = Task(torch.tensor([[[-9.0], [-1.5]]]), torch.tensor([[0, 1]]), q, labels.unsqueeze(0), 2)
    learner = ProtoNet(nn.Identity(), refine=1)
    assert evaluate(learner, [task], n_tasks=1).mean == 0.5
    done: list[bool] = []
    learner.register_forward_hook(lambda *_: done.append(learner.balanced))
    assert evaluate(learner, [task], n_tasks=1, balanced=True).mean == 1.0
    assert done == [True]
    assert learner.balanced is False


def test_neighbours_that_are_equally_far_share_a_vote_whatever_their_order() -> None:
    x = torch.tensor([[[1.0], [1.5], [2.0], [-2.0]]])
    y, q = torch.tensor([[0, 1, 0, 1]]), torch.zeros(1, 1, 1)
    learner = NearestNeighbour(k=3)
    first = learner.predict(learner.adapt(x, y, 2), q)
    torch.testing.assert_close(first, torch.tensor([[[1.5, 1.0]]]))
    turned = [0, 1, 3, 2]
    assert learner.predict(learner.adapt(x[:, turned], y[:, turned], 2), q).equal(first)
    renamed = learner.predict(learner.adapt(x, 1 - y, 2), q)
    assert renamed.equal(first.flip(-1))


def test_queries_of_a_heap_are_found_by_the_others_of_it() -> None:
    """One example lies at the edge of its class: alone, most queries are nearer to the other."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(20)
    heaps = torch.tensor([[-1.0], [1.0]]) + 0.3 * torch.randn(2, 20, generator=rng)
    q = heaps.mT.reshape(1, 40, 1)
    task = Task(torch.tensor([[[-0.7], [3.2]]]), torch.tensor([[0, 1]]), q, labels.unsqueeze(0), 2)
    plain, refined = ProtoNet(nn.Identity()), ProtoNet(nn.Identity(), refine=5)
    assert (plain(task)[0].argmax(-1) == labels).double().mean() < 0.9
    assert (refined(task)[0].argmax(-1) == labels).all()
    assert refined.transductive
    assert not plain.transductive
    assert "queries together" in str(evaluate(refined, [task], n_tasks=1))
    assert "together" not in str(evaluate(plain, [task], n_tasks=1))
    with pytest.raises(ValueError, match=r"refine is 2\.5"), temporarily(plain, refine=2.5):
        pass
    assert plain.refine == 0


def test_refined_means_help_where_classes_are_alike_and_harm_where_some_are_absent() -> None:
    rng = torch.Generator().manual_seed(0)
    right: dict[tuple[int, bool], list[float]] = {}
    for _ in range(60):
        centres = 1.2 * torch.randn(5, 8, generator=rng)
        y = torch.arange(5).repeat_interleave(5)
        for alike in (True, False):
            labels = torch.arange(5).repeat(15) if alike else torch.zeros(75, dtype=torch.int64)
            x, q = (
                (centres[n] + 2 * torch.randn(len(n), 8, generator=rng)).unsqueeze(0)
                for n in (y, labels)
            )
            task = Task(x, y.unsqueeze(0), q, labels.unsqueeze(0), 5)
            for refine in (0, 10):
                found = ProtoNet(nn.Identity(), refine=refine)(task)[0].argmax(-1) == labels
                right.setdefault((refine, alike), []).append(found.double().mean().item())
    mean = {key: float(np.mean(values)) for key, values in right.items()}
    assert mean[10, True] > mean[0, True] + 0.01
    assert mean[10, False] < mean[0, False] - 0.01


def test_distances_to_small_classes_are_as_if_their_means_were_true() -> None:
    """Examples of a class of one and of a class of 20 are found alike, though means differ."""
    rng = torch.Generator().manual_seed(0)
    found = []
    for _ in range(40):
        centres = torch.randn(2, 30, generator=rng, dtype=torch.float64)
        y = torch.tensor([0] + [1] * 20)
        x = centres[y] + torch.randn(21, 30, generator=rng, dtype=torch.float64)
        labels = torch.arange(2).repeat(20)
        q = centres[labels] + torch.randn(40, 30, generator=rng, dtype=torch.float64)
        learner = ProtoNet(nn.Identity())
        phi = learner.adapt(x.unsqueeze(0), y.unsqueeze(0), 2)
        plain = {**phi, "offset": torch.zeros(1, 2, dtype=torch.float64)}
        for p in (phi, plain):
            right = learner.predict(p, q.unsqueeze(0))[0].argmax(-1) == labels
            found.append([right[labels == n].double().mean() for n in range(2)])
    ours, plain_means = np.mean(found[::2], axis=0), np.mean(found[1::2], axis=0)
    assert abs(ours[0] - ours[1]) < 0.05
    assert plain_means[0] < plain_means[1] - 0.1


def test_linear_protonet_is_a_linear_classifier() -> None:
    """Snell et al. (2017), eq. 8: weights ``2 c_n`` and bias ``-c_n.c_n``, up to a shift."""
    torch.manual_seed(0)
    encoder = nn.Linear(6, 4, bias=False).double()
    task = make_task((6,), 3)
    learner = ProtoNet(encoder)
    c = learner.adapt(task.support_x, task.support_y, 3)["prototypes"]
    z = encoder(task.query_x)
    linear = 2 * z @ c.mT - c.square().sum(-1).unsqueeze(1)
    assert torch.allclose(learner(task).log_softmax(-1), linear.log_softmax(-1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda e: MatchingNetwork(e, reading_steps=-1), "reading_steps is -1"),
        (lambda e: MatchingNetwork(e, scale=0), "scale is 0"),
        (lambda e: MatchingNetwork(e, scale=-2.0), "scale is -2.0"),
        (lambda e: ProtoNet(e, refine=-1), "refine is -1; expected a whole number, at least 0"),
        (lambda e: NearestNeighbour(e, k=0), "k is 0"),
        (lambda e: NearestNeighbour(k=-3), "k is -3"),
    ],
)
def test_bad_arguments(build: Callable[[nn.Module], MetaLearner], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(MLP(8, [], 4))


def test_matching_encoders_must_agree() -> None:
    learner = MatchingNetwork(MLP(8, [], 4), query_encoder=MLP(8, [], 5)).double()
    with pytest.raises(ValueError, match="query_encoder gives vectors of 5 features and encoder"):
        learner(make_task((8,), 3))


def test_protonet_normalises_support_and_query_together_if_asked() -> None:
    """As the authors' code, in training; what is answered at a test is the same without it."""
    torch.manual_seed(0)
    task = make_task((1, 16, 16), 3, tasks=1, query=2).to(torch.float32)
    apart, joint = (ProtoNet(Conv4(1, 4, image_size=16), joint_norm=own) for own in (False, True))
    joint.load_state_dict(apart.state_dict())
    assert torch.equal(joint.eval()(task), apart.eval()(task))
    joint.train(), apart.train()
    z = apart.encoder(torch.cat([task.support_x[0], task.query_x[0]]))
    support, query = z[:6], z[6:]
    means = torch.stack([support[task.support_y[0] == n].mean(0) for n in range(3)])
    expected = -torch.cdist(query, means).square()
    found = joint(task)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for name, moved in joint.state_dict().items():
        torch.testing.assert_close(moved, apart.state_dict()[name], msg=f"{name}: once a step")
    assert not torch.allclose(apart(task)[0], expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("build", [ProtoNet, R2D2])
def test_one_batch_for_support_and_query_changes_what_the_encoder_sees_and_nothing_else(
    build: Callable[..., ProtoNet | R2D2],
) -> None:
    """With classes of unequal size, too: as if the features of both had been given."""
    torch.manual_seed(0)
    given, task = uneven_task(), make_task((1, 16, 16), 3, tasks=2, query=2).to(torch.float32)
    task = Task(task.support_x, given.support_y, task.query_x, task.query_y, 3)
    joint = build(Conv4(1, 4, image_size=16), joint_norm=True).train()
    before = {name: value.clone() for name, value in joint.state_dict().items()}
    found = joint(task)
    joint.load_state_dict(before)
    z = joint.encoder(torch.cat([task.support_x, task.query_x], dim=1).flatten(0, 1))
    z = z.unflatten(0, (2, -1)).detach()
    of_features = Task(z[:, :6], task.support_y, z[:, 6:], task.query_y, 3)
    torch.testing.assert_close(found, build(nn.Flatten())(of_features), rtol=1e-4, atol=1e-5)
    joint.load_state_dict(before)
    joint.joint_norm = False
    assert not torch.allclose(joint(task), found, rtol=1e-2, atol=1e-2)
    joint.load_state_dict(before)
    apart, joint.joint_norm = joint.eval()(task), True
    assert torch.equal(joint(task), apart)


def test_where_batch_norm_is_transductive_a_task_is_normalised_alone_in_training_too() -> None:
    torch.manual_seed(0)
    task = make_task((1, 16, 16), 3, tasks=2).to(torch.float32)
    learner = ProtoNet(Conv4(1, 4, image_size=16, batch_norm="transductive")).train()
    together = learner(task)
    torch.testing.assert_close(together[:1], learner(task[:1]))
    torch.testing.assert_close(together[1:], learner(task[1:]))
