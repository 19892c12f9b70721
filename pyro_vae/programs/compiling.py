"""Turn a function of tensors, in which Pyro programs run, into one compiled callable.

Pyro's effect handlers work once, while `make_fx` traces through them at dispatch level: what is
left is a graph of tensor operations, gradients included, which Inductor compiles. Nothing here
knows of variational autoencoders.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pyro
import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from pyro_vae.errors import InputError
from pyro_vae.programs.kernels import FASTER


class CannotCompile(Exception):
    """The function cannot be compiled, and the message says why: call it as it is."""


class Compiled:
    """A compiled function of tensors.

    It is compiled at the first call for each shape, layout and type of its arguments, and not for
    new values. Tensors that the function closes over, parameters above all, are seen as they are at
    each call, as long as they are changed in place. Its randomness is new at each call, and under
    the same `torch.manual_seed` that of the function itself.

    What is no tensor is taken once and for all: numbers, modes, and the sizes of tensors. Values
    that are read out of tensors by `item()` are left in the graph as tensors. Pyro's validation and
    its warnings of NaN are off. Nothing is differentiated from outside, but the function may use
    `torch.autograd.grad`. It may write in place to its arguments and to parameters, which are not
    to share memory with one another then; results may share it with either.

    Args:
        function: takes tensors; returns tensors in any nesting.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._graphs: dict[Any, Graph] = {}

    def __call__(self, *args: Tensor) -> Any:
        """Call the function.

        Raises:
            CannotCompile: if what it does depends on the values of tensors, or if there is no C++
                compiler; nothing has been changed then.
        """
        return self.prepare(*args)(args)

    def prepare(self, *args: Tensor) -> "Graph":
        """Compile for arguments like these, if that has not been done, and run nothing.

        Returns:
            What can be called with such arguments again and again, without a look at their shapes.

        Raises:
            CannotCompile: as above.
        """
        key = (torch.get_num_threads(), *((x.shape, x.stride(), x.dtype, x.device) for x in args))
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._graphs[key] = Graph(self.function, args)
        return graph


class Graph:
    """What is compiled for arguments of one shape, type and layout: called with a tuple of them."""

    def __init__(self, function: Callable[..., Any], args: tuple[Tensor, ...]) -> None:
        from torch._inductor import compile as inductor_compile
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        graph, self.structure = _trace(function, args)
        self.closed_over = _lift(graph)
        flat: list[Any] = [x.detach() for x in [*args, *self.closed_over]]
        # PyTorch draws normals faster than Inductor on a CPU, and draws what the function would.
        options: dict[str, Any] = {"fallback_random": True}
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # of absent GPUs
        # Inductor keeps what it compiles on disk only for graphs that have a shape environment.
        sizes = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        shapes = FakeTensorMode(shape_env=sizes, static_shapes=True)
        try:
            with torch.no_grad(), tracing(TracingContext(shapes)):
                self.compiled = inductor_compile(graph, flat, options=options)
        except Exception as error:  # whatever compilers raise
            raise CannotCompile(_reason(error)) from error

    def __call__(self, args: tuple[Tensor, ...]) -> Any:
        """Run it."""
        with torch.no_grad():
            results = self.compiled(*args, *self.closed_over)
        return pytree.tree_unflatten(results, self.structure)


def _trace(
    function: Callable[..., Any], args: tuple[Tensor, ...]
) -> tuple[GraphModule, pytree.TreeSpec]:
    """Run the function once on shapes alone, and return its graph and how its results are nested.

    Raises:
        CannotCompile: if it looks at values.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    results: pytree.TreeSpec | None = None

    def flattened(*tensors: Tensor) -> list[Tensor]:
        nonlocal results
        with unwritten:
            leaves, results = pytree.tree_flatten(function(*tensors))
            return [leaf.detach() for leaf in leaves]

    unwritten = _Unwritten()
    devices = {x.device for x in args if x.is_cuda}
    try:
        with torch.random.fork_rng(devices), torch.enable_grad(), _values_unseen():
            graph = make_fx(flattened, FASTER, tracing_mode="fake", _allow_non_fake_inputs=True)(
                *(x.detach() for x in args)
            )
    except InputError:
        raise
    except Exception as error:  # torch has several for the same thing, and programs their own
        raise CannotCompile(_reason(error)) from error
    finally:
        unwritten.restore()
    assert results is not None
    return graph, results


def _lift(graph: GraphModule) -> list[Tensor]:
    """Make inputs of the tensors that a graph holds, and return these in their order."""
    nodes = list(graph.graph.nodes)
    held = [node for node in nodes if node.op == "get_attr"]
    start = next(node for node in nodes if node.op != "placeholder")
    inputs: dict[Tensor, Any] = {}  # by identity, as tensors are hashed
    for node in held:
        tensor = getattr(graph, node.target)
        if tensor not in inputs:
            with graph.graph.inserting_before(start):
                inputs[tensor] = graph.graph.placeholder(f"closed_over_{len(inputs)}")
        node.replace_all_uses_with(inputs[tensor])
    for node in held:
        graph.graph.erase_node(node)
    # What stays on the module is an input once more, and of two inputs in one place Inductor copies
    # the one that is written to, there and back: as it has to where tensors share their memory.
    places = [tensor.untyped_storage().data_ptr() for tensor in inputs if tensor.numel()]
    if len(set(places)) == len(places):
        for name in {str(node.target) for node in held}:
            delattr(graph, name)
    graph.recompile()
    return list(inputs)


class _Unwritten(TorchDispatchMode):
    """Remember what the tensors that a function closes over were, before it wrote to them.

    Tracing runs operations on shapes alone, but those that have no other inputs it runs in earnest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[Tensor, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.is_mutable:
            for argument, declared in zip(args, func._schema.arguments, strict=False):
                written = declared.alias_info is not None and declared.alias_info.is_write
                for tensor in pytree.tree_leaves(argument) if written else ():
                    if not isinstance(tensor, FakeTensor) and tensor not in self.before:
                        with _disable_current_modes():
                            self.before[tensor] = tensor.detach().clone()
        return func(*args, **(kwargs or {}))

    def restore(self) -> None:
        """Put them back."""
        with torch.no_grad():
            for tensor, value in self.before.items():
                tensor.copy_(value)


class _ValuesUnseen(TorchFunctionMode):
    """Leave what is taken out of a tensor by `item()` a tensor, and refuse other looks at values.

    That is, at those of tensors that the function closes over; tracing refuses the others itself.
    """

    LOOKS = frozenset(
        getattr(Tensor, name)
        for name in ("__bool__", "__float__", "__int__", "__index__", "numpy", "tolist")
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.item:
            return args[0].detach()
        if func in self.LOOKS and not isinstance(args[0], FakeTensor):
            raise CannotCompile(f"it depends on the value of a tensor, by {func.__name__}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _values_unseen() -> Iterator[None]:
    """Trace without looks at values, those of Pyro's own checks among them."""
    with (
        _ValuesUnseen(),
        mock.patch("pyro.util.torch_isnan", lambda value: False),
        mock.patch("pyro.util.torch_isinf", lambda value: False),
        pyro.validation_enabled(False),
    ):
        yield


def _reason(error: Exception) -> str:
    """Say in one line why there is no compiled function."""
    if isinstance(error, CannotCompile):
        return str(error)
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    text = " ".join(str(error).split())
    kinds = (
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
    )
    if isinstance(error, kinds) or "data-dependent" in text:
        return f"it depends on the value of a tensor, by {getattr(error, 'func', 'bool or int')}"
    return f"{type(error).__name__}: {text[:200]}"
