"""Compile a function of tensors in which Pyro programs run.

`make_fx` traces the function once, at PyTorch's dispatch level. Pyro's effect handlers run only
during this trace: what remains is a graph of tensor operations, gradients included, which Inductor
compiles. The module knows nothing of variational autoencoders.

All private parts of PyTorch that the package uses are imported in this file, and
tests/programs/test_private_parts.py checks that they exist. Those that are slow to import are
imported inside the functions that use them.
"""

import contextlib
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
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
from pyro_vae.programs.arguments import Arguments, Shared
from pyro_vae.programs.decompositions import CPU_DECOMPOSITIONS


class CannotCompile(Exception):
    """The function cannot be compiled; the message says why. It can still be called directly."""


pytree.register_pytree_node(
    Arguments,
    lambda arguments: ([arguments.args, arguments.kwargs], None),
    lambda parts, _: Arguments.of_parts(*parts),
)
pytree.register_pytree_node(Shared, lambda one: ([one.value], None), lambda of, _: Shared(*of))


def is_traced(tensors: Iterable[Tensor]) -> bool:
    """Return whether a tensor has no value, because a function is being compiled."""
    return any(isinstance(tensor, FakeTensor) for tensor in tensors)


class Compiled:
    """A compiled function of tensors.

    It is compiled at the first call with arguments of a new shape, memory layout, type or device;
    new values do not compile it again. Before it is compiled, it runs once, without effect: what
    programs make when they first run, such as Pyro's parameters, is then made. Each call uses the
    current values of the tensors that the function closes over, such as parameters, provided they
    are changed in place. Each call draws new random numbers; after the same `torch.manual_seed`
    they are those of the function itself.

    Arguments may be tensors nested in tuples, lists and dictionaries. Non-tensors among them
    (numbers, strings, flags) are compiled for each of their values. Other non-tensors (modes,
    shapes) are fixed at compile time. The result of `item()` stays a
    tensor in the graph. Pyro's validation and its warnings of NaN are off.

    The result cannot be differentiated, but the function may call `torch.autograd.grad`. The
    function may write in place to its arguments and to parameters, if no two of these tensors share
    memory. Results may share memory with arguments and parameters.

    Args:
        function: a function that takes tensors and returns tensors, nested in any way.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._graphs: dict[Hashable, Graph] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        Raises:
            CannotCompile: if the function depends on the values of tensors, or there is no C++
                compiler. Nothing has been changed then.
        """
        return self.prepare(*args, **kwargs)(tensors_in((args, kwargs)))

    def prepare(self, *args: Any, **kwargs: Any) -> "Graph":
        """Compile the function for arguments like these, unless that is done, without running it.

        Returns:
            The graph for such arguments. Calling it skips the search by shape, layout and type.

        Raises:
            CannotCompile: as in `__call__`.
        """
        key = (torch.get_num_threads(), layout((args, kwargs)))
        graph = self._graphs.get(key)
        if graph is None:
            _run_without_effect(_on_tensors(self.function, args, kwargs), (args, kwargs))
            graph = self._graphs[key] = Graph(self.function, *args, **kwargs)
        return graph


class Graph:
    """The function compiled for arguments of one shape, layout, type and device.

    If the function runs Pyro programs that make parameters when they first run, it must have run.

    Args:
        function: as in `Compiled`.
        args: example arguments.
        kwargs: example arguments by name.

    Raises:
        CannotCompile: as in `Compiled`.
    """

    def __init__(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        from torch._inductor import compile as inductor_compile
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        tensors = tensors_in((args, kwargs))
        graph, self.structure = _trace(_on_tensors(function, args, kwargs), tensors)
        self.closed_over = _turn_closed_over_into_inputs(graph)
        inputs: list[Any] = [x.detach() for x in [*tensors, *self.closed_over]]
        # On a CPU, PyTorch draws normals faster than Inductor does. It also draws the same numbers
        # as the function that is not compiled.
        options: dict[str, Any] = {"fallback_random": True}
        # Without this, PyTorch warns that there is no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        # Inductor stores compiled code on disk only for graphs that have a shape environment.
        sizes = ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
        shapes = FakeTensorMode(shape_env=sizes, static_shapes=True)
        try:
            with torch.no_grad(), tracing(TracingContext(shapes)):
                self.compiled = inductor_compile(graph, inputs, options=options)
        except Exception as error:  # compilers raise errors of many types
            raise CannotCompile(_reason(error)) from error

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """Run the graph on the tensors in the arguments, in the order of `tensors_in`."""
        with torch.no_grad():
            results = self.compiled(*tensors, *self.closed_over)
        return pytree.tree_unflatten(results, self.structure)


def tensors_in(nest: Any) -> list[Tensor]:
    """Return the tensors that are nested in tuples, lists and dictionaries, in their order."""
    return [leaf for leaf in pytree.tree_leaves(nest) if isinstance(leaf, Tensor)]


def layout(nest: Any) -> Hashable:
    """Return all but the values of the tensors: nests with the same layout share a graph.

    Raises:
        CannotCompile: if there is a value that can neither be traced nor compared.
    """
    leaves, structure = pytree.tree_flatten(nest)
    parts = [
        (leaf.shape, leaf.stride(), leaf.dtype, leaf.device)
        if isinstance(leaf, Tensor)
        else (type(leaf), leaf)
        for leaf in leaves
    ]
    key = (structure, *parts)
    try:
        hash(key)
    except TypeError as error:
        raise CannotCompile(f"an argument is neither a tensor nor a constant: {error}") from error
    return key


def _on_tensors(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Any]:
    """Return the function of the tensors in the arguments, with the other arguments fixed."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    traced = object()
    fixed = [traced if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def on_tensors(*tensors: Tensor) -> Any:
        remaining = iter(tensors)
        filled = [next(remaining) if leaf is traced else leaf for leaf in fixed]
        new_args, new_kwargs = pytree.tree_unflatten(filled, structure)
        return function(*new_args, **new_kwargs)

    return on_tensors


def _run_without_effect(function: Callable[..., Any], nest: Any) -> None:
    """Run a function once on tensors, and undo what it writes to them and to others.

    Raises:
        CannotCompile: if the function raises an error.
    """
    tensors = [x.detach() for x in tensors_in(nest)]
    undo_writes = _UndoWrites()
    try:
        with _global_state_kept(tensors), _checks_off(), undo_writes:
            function(*tensors)
    except InputError:
        raise
    except Exception as error:  # programs have errors of many types
        raise CannotCompile(_reason(error)) from error
    finally:
        undo_writes.restore()


def _trace(
    function: Callable[..., Any], args: Sequence[Tensor]
) -> tuple[GraphModule, pytree.TreeSpec]:
    """Run the function once on tensors without values.

    Returns:
        The graph of the function, and how its results are nested.

    Raises:
        CannotCompile: if the function reads values, or makes a parameter of Pyro.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    structure: pytree.TreeSpec | None = None
    undo_writes = _UndoWrites()

    def flattened(*tensors: Tensor) -> list[Tensor]:
        nonlocal structure
        with undo_writes:
            leaves, structure = pytree.tree_flatten(function(*tensors))
            return [leaf.detach() for leaf in leaves]

    try:
        with _global_state_kept(args), _values_hidden(), _no_parameters_made():
            graph = make_fx(
                flattened, CPU_DECOMPOSITIONS, tracing_mode="fake", _allow_non_fake_inputs=True
            )(*(x.detach() for x in args))
    except InputError:
        raise
    except Exception as error:  # PyTorch has several types for one reason, and programs have theirs
        raise CannotCompile(_reason(error)) from error
    finally:
        undo_writes.restore()
    assert structure is not None
    return graph, structure


def _turn_closed_over_into_inputs(graph: GraphModule) -> list[Tensor]:
    """Replace the tensors that a graph holds by inputs, and return them in the inputs' order."""
    nodes = list(graph.graph.nodes)
    attributes = [node for node in nodes if node.op == "get_attr"]
    first_operation = next(node for node in nodes if node.op != "placeholder")
    inputs: dict[Tensor, Any] = {}  # tensors are hashed by identity
    for node in attributes:
        tensor = getattr(graph, node.target)
        if tensor not in inputs:
            with graph.graph.inserting_before(first_operation):
                inputs[tensor] = graph.graph.placeholder(f"closed_over_{len(inputs)}")
        node.replace_all_uses_with(inputs[tensor])
    for node in attributes:
        graph.graph.erase_node(node)
    # For Inductor, a tensor that stays an attribute of the module is a second input with the same
    # memory. If the graph writes to one of the two, Inductor copies it before and after each call.
    # This is needed only if different tensors share memory: only then do the attributes stay.
    addresses = [_address(tensor) for tensor in inputs if tensor.numel()]
    if len(set(addresses)) == len(addresses):
        for name in {str(node.target) for node in attributes}:
            delattr(graph, name)
    graph.recompile()
    return list(inputs)


class _UndoWrites(TorchDispatchMode):
    """Remember the values of tensors that the function closes over, before it writes to them.

    Tracing computes shapes only; but an operation that has no traced input really runs, and may
    write to a parameter. `restore` undoes this. Tensors that the function makes are left alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before: dict[Tensor, Tensor] = {}
        self.made: set[int] = set()  # addresses of memory that the function allocates

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for argument, declared in zip(args, func._schema.arguments, strict=False):
            if _is_written(declared):
                for tensor in _real(argument):
                    if tensor not in self.before and _address(tensor) not in self.made:
                        with _disable_current_modes():
                            self.before[tensor] = tensor.detach().clone()
        result = func(*args, **(kwargs or {}))
        if not any(returned.alias_info for returned in func._schema.returns):
            self.made.update(map(_address, _real(result)))
        return result

    def restore(self) -> None:
        """Write the remembered values back."""
        with torch.no_grad():
            for tensor, value in reversed(self.before.items()):  # some may share memory
                tensor.copy_(value)


def _is_written(argument: Any) -> bool:
    """Return whether an operation writes to an argument, given its declaration."""
    if argument.alias_info is None:  # batch normalisation does not declare that it writes
        return argument.name in ("running_mean", "running_var")
    return argument.alias_info.is_write


def _real(nest: Any) -> list[Tensor]:
    """Return the tensors in a nest that have values; sparse ones are left out."""
    dense = [tensor for tensor in tensors_in(nest) if tensor.layout == torch.strided]
    return [tensor for tensor in dense if not isinstance(tensor, FakeTensor)]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class _RefuseReadingValues(TorchFunctionMode):
    """Let `item()` return a tensor, and refuse all other ways to read the value of a tensor.

    This concerns the tensors that the function closes over. For all others tracing itself refuses.
    """

    READS = frozenset(
        getattr(Tensor, name)
        for name in ("__bool__", "__float__", "__int__", "__index__", "numpy", "tolist")
    )

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.item:
            return args[0].detach()
        if func in self.READS and not isinstance(args[0], FakeTensor):
            raise CannotCompile(f"it depends on the value of a tensor, by {func.__name__}")
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _global_state_kept(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Compute gradients, and restore the global random state on exit."""
    devices = {x.device for x in tensors if x.is_cuda}
    with torch.random.fork_rng(devices), torch.enable_grad():
        yield


@contextlib.contextmanager
def _no_parameters_made() -> Iterator[None]:
    """Refuse functions that make a parameter of Pyro: while they are traced it has no value."""
    store = pyro.get_param_store()
    made: list[str] = []
    try:
        yield
    finally:
        made += [name for name, p in store.named_parameters() if isinstance(p, FakeTensor)]
        for name in made:
            del store[name]
    if made:
        raise CannotCompile(f"it makes the Pyro parameter '{made[0]}' again after its first run")


@contextlib.contextmanager
def _values_hidden() -> Iterator[None]:
    """Refuse reading values, and switch off Pyro's own checks, which read them."""
    with _RefuseReadingValues(), _checks_off():
        yield


@contextlib.contextmanager
def _checks_off() -> Iterator[None]:
    """Switch off Pyro's own checks."""
    with (
        mock.patch("pyro.util.torch_isnan", lambda value: False),
        mock.patch("pyro.util.torch_isinf", lambda value: False),
        pyro.validation_enabled(False),
    ):
        yield


def _reason(error: Exception) -> str:
    """Return in one line why the function cannot be compiled."""
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    if isinstance(error, CannotCompile):
        return str(error)
    text = " ".join(str(error).split())
    reads = (
        DataDependentOutputException,
        DynamicOutputShapeException,
        GuardOnDataDependentSymNode,
    )
    if isinstance(error, reads) or "data-dependent" in text:
        return f"it depends on the value of a tensor, by {getattr(error, 'func', 'bool or int')}"
    return f"{type(error).__name__}: {text[:200]}"
