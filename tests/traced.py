"""Graphs that run without being compiled, which takes ten seconds each."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyro_vae.programs import compiling


class Traced:
    """A graph that is traced as `compiling.Graph` is, and run without being compiled."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        on_tensors = compiling._on_tensors(function, args, kwargs)
        tensors = compiling.tensors_in((args, kwargs))
        self.graph, self.structure = compiling._trace(on_tensors, tensors)

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        with torch.no_grad():
            return pytree.tree_unflatten(self.graph(*tensors), self.structure)
