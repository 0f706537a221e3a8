"""What a MANN needs to bind an image to the label that comes a step later.

    python benchmarks/mann_binding.py OMNIGLOT

turns 1600 training classes into fixed features with the shipped ProtoNet, and trains two MANNs on
sequences of them (protocol "offset", 5 ways, 10 examples of each, 16 sequences a step, Adam 1e-3,
seed 0): with the read of the paper (sharpness 1) and with a sharper one. Printed: training accuracy
at the 1st, 2nd, 5th and 10th example of a class, mean of 100 steps, at 100 to 600.
"""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quickstudy
from quickstudy.data import ClassDataset, EpisodeSampler, omniglot, to_float, vinyals
from quickstudy.learners import MANN, ProtoNet

CLASSES, EXAMPLES, INSTANCES = 1600, 20, (1, 2, 5, 10)


def features(root: str) -> ClassDataset:
    protonet = quickstudy.load("protonet-omniglot")
    assert isinstance(protonet, ProtoNet)
    classes = vinyals(omniglot(root)).rotated().train
    e = torch.arange(EXAMPLES)
    with torch.no_grad():
        z = [
            protonet.encoder(to_float(classes.read(torch.full_like(e, c), e)))
            for c in range(CLASSES)
        ]
    names = [str(c) for c in range(CLASSES)]
    return ClassDataset.from_sizes(torch.cat(z), [EXAMPLES] * CLASSES, names)


def by_instance(output: Tensor, y: Tensor) -> Tensor:
    """Accuracy at each of `INSTANCES`."""
    right = (output.argmax(-1) == y).float()
    seen = F.one_hot(y).cumsum(1).gather(2, y.unsqueeze(2)).squeeze(2)
    return torch.stack([right[seen == i].mean() for i in INSTANCES])


def main() -> None:
    torch.set_num_threads(1)
    tasks = EpisodeSampler(features(sys.argv[1]), way=5, shot=10, query=1, tasks=16)
    for sharpness in (1.0, 10.0):
        torch.manual_seed(0)
        encoder = nn.Flatten()
        encoder.out_features = 64
        learner = MANN(encoder, outputs=5, protocol="offset", sharpness=sharpness)
        optimizer = torch.optim.Adam(learner.parameters(), lr=1e-3)
        total = torch.zeros(len(INSTANCES))
        for step in range(1, 601):
            task = tasks[step]
            output = learner.read(task.support_x, task.support_y, 5)
            loss = F.cross_entropy(output.flatten(0, 1), task.support_y.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += by_instance(output, task.support_y)
            if step % 100 == 0:
                shown = "  ".join(
                    f"{i}: {a:5.1%}" for i, a in zip(INSTANCES, total / 100, strict=True)
                )
                print(f"sharpness {sharpness:4.0f}, step {step}: {shown}", flush=True)
                total.zero_()


if __name__ == "__main__":
    main()
