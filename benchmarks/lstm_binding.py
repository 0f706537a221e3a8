"""What an LSTM needs to leave chance: ``python benchmarks/lstm_binding.py RUN``.

``RUN`` is a trained ProtoNet on Omniglot, whose encoder turns 1600 training classes into fixed
64-dimensional features. Three LSTMs learn 5-way 1-shot tasks of those features (32 tasks a batch,
Adam 2e-3, hidden size 256, seed 0): with the plain input and PyTorch's initialisation, with
normalised features, and as `BlackBoxLSTM` is. Printed: mean training accuracy of the last 200
steps, at 200, 400, 600 and 800.
"""

import sys

import torch
import torch.nn.functional as F
from torch import nn

from quickstudy.checkpoint import load_weights
from quickstudy.data import ClassDataset, EpisodeSampler, to_float
from quickstudy.experiments.spec import Experiment
from quickstudy.learners import BlackBoxLSTM

CLASSES, EXAMPLES, FEATURES = 1600, 20, 64


def features(run: str) -> ClassDataset:
    experiment = Experiment.load(run)
    protonet = experiment.build_learner().eval()
    load_weights(f"{run}/final.safetensors", protonet)
    classes = experiment.splits.train
    e = torch.arange(EXAMPLES)
    with torch.no_grad():
        z = [
            protonet.encoder(to_float(classes.read(torch.full_like(e, c), e)))
            for c in range(CLASSES)
        ]
    return ClassDataset.from_sizes(
        torch.cat(z), [EXAMPLES] * CLASSES, [str(c) for c in range(CLASSES)]
    )


def learner(variant: str) -> BlackBoxLSTM:
    torch.manual_seed(0)
    encoder = nn.Flatten()
    encoder.out_features = FEATURES
    made = BlackBoxLSTM(encoder, outputs=5)
    if variant != "as it is":
        made.lstm.reset_parameters()
    if variant == "plain":
        made.encoder = encoder
    return made


def main() -> None:
    torch.set_num_threads(1)
    tasks = EpisodeSampler(features(sys.argv[1]), way=5, shot=1, query=3, tasks=32)
    for variant in ("plain", "normalised", "as it is"):
        model = learner(variant)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        figures, right = [], 0.0
        for step in range(1, 801):
            task = tasks[step]
            logits = model(task)
            loss = F.cross_entropy(logits.flatten(0, 1), task.query_y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            right += float((logits.argmax(-1) == task.query_y).float().mean())
            if step % 200 == 0:
                figures.append(f"{right / 2:.1f}%")
                right = 0.0
        print(f"{variant:12} {'  '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()
