"""The benchmark's contenders train the same VAE."""

import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from conftest import ROOT
from torch import nn


@pytest.fixture
def contenders(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import contenders

    yield contenders
    del sys.modules["contenders"]


@pytest.mark.parametrize("architecture", ["mlp", "conv", "residual", "pixelcnn"])
def test_contenders_train_the_same_vae(contenders: ModuleType, architecture: str) -> None:
    """They have as many parameters, and losses that differ by the first weights and the noise."""

    def size(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    by_hand = contenders.ByHand(architecture, 1)
    assert size(by_hand) == size(contenders.our_vae(architecture))
    images = torch.randint(0, 256, (40, 784), dtype=torch.uint8)
    for draws in (1, 3):
        trainers: list[Callable[..., Callable[[], float]]] = [
            contenders.plain_torch,
            contenders.pyro_svi,
        ]
        losses = [trainer(images, 20, draws, architecture)() / 40 for trainer in trainers]
        # Before training every pixel has a probability of about a half, and z is ignored.
        assert losses == pytest.approx([784 * math.log(2)] * 2, rel=0.05)
        assert losses[0] == pytest.approx(losses[1], rel=0.03)
