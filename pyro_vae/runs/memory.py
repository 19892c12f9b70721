"""How much memory a run needs: what cannot fit is refused before the memory is taken.

Training needs four numbers for each parameter: its value, its gradient, and two moments of the
optimiser. A step also keeps tensors of the examples in its batch, from which its gradients are
computed.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyro_vae.data.free_memory import free_memory, in_words
from pyro_vae.errors import InputError
from pyro_vae.vae import VAE

COPIES = 4  # of a parameter: value, gradient, two moments
MOST_TENSORS = 5_000  # of the parameters: more take minutes to make, and to train

_FACTORIES = frozenset(
    getattr(torch, name)
    for name in ("empty", "zeros", "ones", "full", "rand", "randn", "eye", "arange", "linspace")
)


class _Counted(TorchFunctionMode):
    """Counts the tensors that are made, and makes no more of them than fit.

    When they have the given number of bytes, all others are made without memory, on the device
    "meta": the parts are still put together, so that the memory that they need is known.
    """

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most, self.made, self.tensors = most, 0.0, 0

    @property
    def too_large(self) -> bool:
        """Whether some tensors were made without memory."""
        return self.made > self.most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _FACTORIES:
            return func(*args, **kwargs)
        like = _without_memory(func, args, kwargs)
        self.made += like.nbytes
        self.tensors += 1
        if self.tensors > MOST_TENSORS:
            raise InputError(
                f"the parts have more than {MOST_TENSORS} tensors: choose fewer layers or blocks"
            )
        return like if self.too_large else func(*args, **kwargs)


def _without_memory(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor:
    """Return what a function that makes a tensor returns, without memory.

    Raises:
        InputError: if no tensor can be so large.
    """
    try:
        return func(*args, **{**kwargs, "device": "meta"})
    except (RuntimeError, TypeError, OverflowError):
        given = [*args, kwargs.get("size", ())]
        sizes = [s for each in given for s in (each if isinstance(each, tuple | list) else [each])]
        sizes = [size for size in sizes if isinstance(size, int) and size > 0]
        if prod(sizes) < 2**60:
            raise
        raise InputError(
            f"no tensor can have the shape {_shortened(sizes)}: choose smaller numbers for "
            "latent_dim and for the options of the parts"
        ) from None


def make_within_memory(make: Callable[[], VAE], trained: bool) -> VAE:
    """Make a VAE, if it fits into memory.

    Args:
        make: makes the VAE. It is called a second time if the first gave no answer.
        trained: whether it is to be trained, which needs more.

    Raises:
        InputError: if it does not fit. Little memory has been taken then.
    """
    there, copies = free_memory(), COPIES if trained else 1
    random_state = torch.get_rng_state()
    counted = _Counted(there / copies)
    try:
        with counted:
            vae = make()
    except (RuntimeError, ValueError, TypeError) as error:  # of operations on "meta", for example
        if not counted.too_large:
            raise
        least = copies * counted.made
        raise InputError(f"a model of these parts {_needs(least, there, 'more than ')}") from error
    if not counted.too_large:
        return vae
    parameters = sum(parameter.nbytes for parameter in vae.parameters())
    need = copies * parameters + sum(buffer.nbytes for buffer in vae.buffers())
    if need > there:
        name, largest = max(vae.named_parameters(), key=lambda item: item[1].nbytes)
        raise InputError(
            f"a model of these parts {_needs(need, there)}; their largest parameter, "
            f"{name.removeprefix('model.').removeprefix('guide.')}, has the shape "
            f"{_shortened(largest.shape)}"
        )
    torch.set_rng_state(random_state)
    return make()


def _needs(need: float, there: float, least: str = "") -> str:
    return (
        f"needs {least}{in_words(need)} of memory for its parameters, and, in training, their "
        f"gradients and the optimiser, and {in_words(there)} are free: choose a smaller "
        "latent_dim, or fewer or smaller layers, blocks or components"
    )


def _shortened(sizes: Sequence[int]) -> str:
    """Return sizes in brackets, without long numbers."""
    return f"[{', '.join(str(s) if s < 10**12 else f'{s:.1e}' for s in sizes)}]"


class _SavedTensors:
    """Bytes of the tensors that autograd keeps to compute gradients, parameters left out."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = {each.untyped_storage().data_ptr() for each in parameters}
        self.kept: dict[int, int] = {}  # how many times, by address
        self.now = self.most = 0

    def pack(self, tensor: Tensor) -> "_Saved":
        """Count a tensor, and return what is kept in its place."""
        storage = tensor.untyped_storage()
        saved = _Saved(self, tensor.detach(), storage.data_ptr(), storage.nbytes())
        if saved.address not in self.parameters:
            self.kept[saved.address] = self.kept.get(saved.address, 0) + 1
            if self.kept[saved.address] == 1:
                self.now += saved.size
                self.most = max(self.most, self.now)
        return saved

    def free(self, saved: "_Saved") -> None:
        """Note that a graph has released a tensor."""
        if saved.address in self.kept:
            self.kept[saved.address] -= 1
            if not self.kept[saved.address]:
                del self.kept[saved.address]
                self.now -= saved.size


class _Saved:
    """A tensor that autograd keeps; its end is noted."""

    def __init__(self, counted: _SavedTensors, tensor: Tensor, address: int, size: int) -> None:
        self.counted, self.tensor, self.address, self.size = counted, tensor, address, size

    def __del__(self) -> None:
        self.counted.free(self)


@contextlib.contextmanager
def _saved_tensors(parameters: Sequence[Tensor]) -> Iterator[_SavedTensors]:
    """Count the bytes that autograd keeps inside this context."""
    counted = _SavedTensors(parameters)
    with torch.autograd.graph.saved_tensors_hooks(counted.pack, lambda saved: saved.tensor):
        yield counted


def check_step(
    check: Callable[[Tensor], None],
    examples: Tensor,
    vae: VAE,
    batch_size: int,
    num_particles: int,
    fused: bool,
) -> None:
    """Run a check of the training step on a few examples, if a step on a whole batch fits.

    Args:
        check: runs a training step on examples, without effect.
        examples: two examples or more, as the likelihood sees them.
        vae: the VAE.
        batch_size: the number of examples in a step.
        num_particles: the number of draws of z for each example.
        fused: whether operations are fused, so that fewer tensors are kept: half of them.

    Raises:
        InputError: if a step needs more memory than there is, or the check says so.
    """
    device = examples.device
    there = free_memory(device)
    # Autograd keeps z and what the decoder says of x at least.
    values = vae.posterior.latent_dim + examples[0].numel()
    least = num_particles * batch_size * values * 4.0
    if least > there:
        raise _step_too_large(least, there, batch_size, num_particles, "at least ")
    parameters = list(vae.parameters())

    def saved_for(x: Tensor) -> int:
        with _saved_tensors(parameters) as saved:
            check(x)
        return saved.most

    two = examples[:2].clone()  # without the memory of the others
    factor = 0.5 if fused else 1.0
    if factor * saved_for(two) * batch_size / 2 < there / 2:
        return
    # Some of it does not depend on the batch, and some was needed in the first run only. What a run
    # leaves behind has cycles of references: it is freed at once, since memory is scarce.
    gc.collect()
    of_two = saved_for(two)
    gc.collect()
    each = (saved_for(torch.cat([two, two])) - of_two) / 2
    gc.collect()
    need = factor * (max(0.0, of_two - 2 * each) + batch_size * each)
    if need > there:
        raise _step_too_large(need, there, batch_size, num_particles)


def _step_too_large(
    need: float, there: float, batch_size: int, num_particles: int, least: str = ""
) -> InputError:
    draws = f", {num_particles} draws of z each," if num_particles > 1 else ""
    fewer = "fewer draws or " if num_particles > 1 else ""
    return InputError(
        f"a step on {batch_size} examples{draws} needs {least}{in_words(need)} of memory for its "
        f"gradients, and {in_words(there)} are free: choose {fewer}a smaller batch_size, or "
        "smaller parts",
        "num_particles" if num_particles > 1 else "batch_size",
    )
