"""Names of devices, on machines with and without GPUs."""

import pytest
import torch

from pyro_vae.errors import InputError
from pyro_vae.runs.devices import find_device


@pytest.fixture(params=[0, 2])
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let torch say that there are so many GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


def test_devices_that_are_there(gpus: int) -> None:
    assert find_device("cpu") == torch.device("cpu")
    assert find_device("auto").type == ("cuda" if gpus else "cpu")
    if gpus:
        assert find_device("cuda") == torch.device("cuda")
        assert find_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:2", "there is no (cuda:2|GPU)"),
        ("mps", "mps has no float64"),
        ("mps:0", "mps has no float64"),
        ("gpu", "there is no device gpu: choose auto, cpu, cuda"),
        ("cuda:", "there is no device cuda:"),
        ("cuda:-1", "there is no device cuda:-1"),
        ("meta", "there is no device meta"),
        ("", "there is no device"),
    ],
)
def test_other_names_are_refused(gpus: int, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_device(name)


@pytest.mark.parametrize("gpus", [0], indirect=True)
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_without_a_gpu(gpus: int, name: str) -> None:
    with pytest.raises(InputError, match="no GPU that torch can use: choose cpu or auto"):
        find_device(name)
