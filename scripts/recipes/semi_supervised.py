"""Train M2 on MNIST with few labels, and a classifier on these labels alone; print their errors.

python scripts/recipes/semi_supervised.py --data_root DIR --labels 100

The pixels are binarised dynamically. A step takes 100 unlabelled images and 10 labelled ones, which
are drawn again and again; with --labels 0 all images are labelled. The classification loss has the
weight of the paper, 0.1 N in front of the mean over the labelled images, in each epoch. In the
first epochs it is 100 times as large: without that, q(y|x) was worse than the classifier alone in
the four epochs that were tried. See docs/semi_supervised.md.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pyro_vae import data, likelihoods, networks, posteriors, priors, training
from pyro_vae.semi_supervised import SemiSupervised, SemiSupervisedELBO, class_evidence

LATENT, CLASSES = 50, 10
UNLABELLED, LABELLED = 100, 10  # images in a step
NETWORK = partial(networks.MLP, widths=[500], activation="ReLU")


class Accuracy(training.Callback):
    """Adds the validation accuracy of q(y|x) to the history, and prints the epoch."""

    def __init__(self, m2: SemiSupervised, x: Tensor, y: Tensor) -> None:
        self.m2, self.x, self.y = m2, x, y

    def after_epoch(self, training: training.Training, row: dict[str, float]) -> None:
        """Measure the accuracy."""
        row["validation_accuracy"] = accuracy(self.m2.classify(self.x), self.y)[0]
        print(json.dumps(row), flush=True)


class LabelsFirst(training.Callback):
    """Multiplies the weight of the classification loss in the first epochs."""

    def __init__(self, objective: SemiSupervisedELBO, epochs: int, factor: float = 100) -> None:
        self.objective, self.epochs, self.factor = objective, epochs, factor
        self.alpha = objective.alpha

    def start(self, training: training.Training) -> None:
        """Set the weight of the first epoch."""
        self.objective.alpha = self.alpha * (self.factor if self.epochs else 1)

    def after_epoch(self, training: training.Training, row: dict[str, float]) -> None:
        """Set the weight of the next epoch."""
        if training.epoch >= self.epochs:
            self.objective.alpha = self.alpha


def main() -> None:
    """Train, measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_root", default="data")
    parser.add_argument("--labels", type=int, default=100, help="how many; 0 for all")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--labels_first", type=int, default=3, help="epochs with 100 alpha")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=0, help="of the labelled set and the training")
    parser.add_argument("--num_examples", type=int, default=500, help="for p(y|x) by IWAE")
    parser.add_argument("--num_samples", type=int, default=50, help="K of IWAE")
    parser.add_argument("--out", type=Path, help="a file for the parameters and the results")
    chosen = parser.parse_args()

    mnist = data.load("mnist", chosen.data_root)
    torch.manual_seed(chosen.seed)
    train, labels = torch.as_tensor(mnist.train), torch.as_tensor(mnist.train_labels)
    m2 = SemiSupervised(
        priors.StandardNormal(LATENT),
        likelihoods.Bernoulli(LATENT + CLASSES, mnist.kind, NETWORK),
        posteriors.Normal([mnist.kind.feature_shape.numel() + CLASSES], LATENT, NETWORK),
        NETWORK(mnist.kind.feature_shape, [CLASSES]),
        sum_out=chosen.labels > 0,
    )
    kind = m2.guide.kind
    m2.initialize(kind.stored_features(train))
    labelled = balanced(labels, chosen.labels) if chosen.labels else torch.arange(len(train))
    unlabelled = torch.ones(len(train), dtype=torch.bool)
    unlabelled[labelled] = False

    def observe(index: Tensor) -> tuple[Tensor, Tensor]:
        """Return binary images and classes: unlabelled images by their index, and labelled ones."""
        if not chosen.labels:
            return kind.observe(train[index]), labels[index]
        some = labelled[torch.randint(len(labelled), (LABELLED,))]
        y = torch.cat([torch.full((len(index),), -1), labels[some]])
        return kind.observe(torch.cat([train[index], train[some]])), y

    index = unlabelled.nonzero()[:, 0] if chosen.labels else labelled
    uses = len(index) / UNLABELLED * LABELLED if chosen.labels else len(index)  # in an epoch
    objective = SemiSupervisedELBO(alpha=0.1 * len(train) / uses)
    engine = training.EagerEngine(m2.model, m2.guide, objective, chosen.lr, chosen.precision)
    validation = kind.observe(mnist.validation)
    test, y_test = kind.observe(mnist.test), torch.as_tensor(mnist.test_labels)
    began = time.perf_counter()
    history = training.fit(
        engine,
        index,
        observe,
        epochs=chosen.epochs,
        batch_size=UNLABELLED,
        seed=chosen.seed,
        callbacks=[
            LabelsFirst(objective, chosen.labels_first if chosen.labels else 0),
            Accuracy(m2, validation, torch.as_tensor(mnist.validation_labels)),
        ],
        progress=False,
    )
    seconds = time.perf_counter() - began
    m2.eval()
    few = slice(chosen.num_examples)
    evidence = class_evidence(m2, test[few], chosen.num_samples)
    alone = classifier_alone(train[labelled], labels[labelled], observe=kind.observe)
    found = {
        "labels": len(labelled),
        "epochs": chosen.epochs,
        "seconds": seconds,
        "q(y|x)": accuracy(m2.classify(test), y_test),
        "q(y|x), grey images": accuracy(m2.classify(kind.stored_features(mnist.test)), y_test),
        f"q(y|x), {chosen.num_examples} images": accuracy(m2.classify(test[few]), y_test[few]),
        "p(y|x) of the same": accuracy(evidence.probabilities, y_test[few]),
        "log p(x) of the same": evidence.log_p_x.mean().item(),
        "classifier alone": accuracy(alone(test), y_test),
    }
    print(json.dumps(found, indent=2))
    if chosen.out:
        torch.save({"m2": m2.state_dict(), "found": found, "history": history}, chosen.out)


def balanced(labels: Tensor, count: int) -> Tensor:
    """Return the indices of examples at random, as many of each class, shape [count]."""
    each = count // CLASSES
    order = torch.randperm(len(labels))
    return torch.cat([order[labels[order] == c][:each] for c in range(CLASSES)])


def classifier_alone(
    images: Tensor, labels: Tensor, observe: training.Observe, steps: int = 3000
) -> networks.Network:
    """Train the same network by maximum likelihood on labelled images alone."""
    network = NETWORK(images.shape[1:], [CLASSES])
    adam = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        some = torch.randint(len(images), (100,))
        loss = cross_entropy(network(observe(images[some])), labels[some])
        adam.zero_grad()
        loss.backward()
        adam.step()
    return network


def accuracy(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the share of examples whose class has the highest score, and its standard error."""
    share = (scores.argmax(-1) == labels).double().mean().item()
    return share, (share * (1 - share) / len(labels)) ** 0.5


if __name__ == "__main__":
    main()
