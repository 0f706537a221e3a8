"""ProtoNet, nearest neighbour and the LSTM against a plain reading of their equations."""

import numpy as np
import pytest
import torch
from torch import nn

from quickstudy.learners import BlackBoxLSTM, NearestNeighbour, ProtoNet
from quickstudy.nn import MLP, Conv4
from quickstudy.task import Task
from quickstudy.testing import make_task


def test_protonet_equals_numpy() -> None:
    torch.manual_seed(0)
    encoder = MLP(8, [16], 5).double()
    task = make_task((8,), 3, tasks=2, shot=3)
    logits = ProtoNet(encoder)(task).detach().numpy()
    for t in range(2):
        z, q = (encoder(x[t]).detach().numpy() for x in (task.support_x, task.query_x))
        y = task.support_y[t].numpy()
        means = np.stack([z[y == n].mean(0) for n in range(3)])
        expected = [[-((a - m) ** 2).sum() for m in means] for a in q]
        np.testing.assert_allclose(logits[t], expected, rtol=1e-9)


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


def test_nearest_equals_scikit_learn() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    task = make_task((1, 6, 6), 4, tasks=3, shot=3, query=10)
    said = NearestNeighbour()(task).argmax(-1)
    for t in range(3):
        reference = KNeighborsClassifier(1).fit(task.support_x[t].flatten(1), task.support_y[t])
        assert said[t].tolist() == reference.predict(task.query_x[t].flatten(1)).tolist()


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


def test_regression_is_refused_by_classifiers() -> None:
    task = make_task((8,), None)
    for learner in (ProtoNet(MLP(8, [], 4)), NearestNeighbour()):
        with pytest.raises(ValueError, match="regression"):
            learner.double()(task)


def test_encoder_must_give_vectors() -> None:
    task = make_task((1, 16, 16), 3).to(torch.float32)
    with pytest.raises(ValueError, match=r"one vector an example"):
        ProtoNet(nn.Conv2d(1, 4, 3))(task)


def test_lstm_needs_out_features() -> None:
    with pytest.raises(ValueError, match="out_features"):
        BlackBoxLSTM(nn.Flatten(), outputs=5)


def test_wrong_image_size_is_named() -> None:
    task = make_task((1, 16, 16), 3).to(torch.float32)
    with pytest.raises(ValueError, match=r"built for images of shape \[1, 28, 28\].*\[1, 16, 16\]"):
        ProtoNet(Conv4())(task)
