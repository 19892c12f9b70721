"""Private parts of PyTorch: one file uses them, and a test says which of them has moved."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pyro_vae

PACKAGE = Path(pyro_vae.__file__).parent
COMPILING = PACKAGE / "programs" / "compiling.py"
ADVICE = "adapt programs/compiling.py, or lower the bound on torch in pyproject.toml"

# The calls that compiling.py makes: module, name, positional arguments, keyword arguments.
CALLS: list[tuple[str, str, tuple[Any, ...], dict[str, Any]]] = [
    ("torch._inductor", "compile", ("graph", "inputs"), {"options": {}}),
    ("torch._guards", "TracingContext", ("fake mode",), {}),
    ("torch._guards", "tracing", ("context",), {}),
    (
        "torch._subclasses.fake_tensor",
        "FakeTensorMode",
        (),
        {"shape_env": None, "static_shapes": True},
    ),
    (
        "torch.fx.experimental.proxy_tensor",
        "make_fx",
        ("function", "decompositions"),
        {"tracing_mode": "fake", "_allow_non_fake_inputs": True},
    ),
    ("torch.utils._pytree", "register_pytree_node", ("class", "flatten", "unflatten"), {}),
    ("torch.utils._pytree", "tree_flatten", ("tree",), {}),
    ("torch.utils._pytree", "tree_leaves", ("tree",), {}),
    ("torch.utils._pytree", "tree_unflatten", ("leaves", "structure"), {}),
    ("torch.utils._python_dispatch", "_disable_current_modes", (), {}),
]


def moved(what: str) -> str:
    return f"PyTorch {torch.__version__} has no {what}: {ADVICE}"


def is_private(module: str) -> bool:
    """Whether a dotted name is PyTorch's, and private or experimental."""
    first, *others = module.split(".")
    if first != "torch" or not all(part.isidentifier() for part in others):
        return False
    return any(
        part == "experimental" or (part.startswith("_") and not part.startswith("__"))
        for part in others
    )


def private_imports(path: Path) -> Iterator[tuple[str, str | None]]:
    """Each private module of PyTorch that a file imports or names, and what it takes from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if is_private(f"{node.module}.{alias.name}"):
                    yield node.module, alias.name
        elif isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and is_private(ast.unparse(node)):
            yield ast.unparse(node), None


def test_one_file_uses_private_parts() -> None:
    scripts = PACKAGE.parent / "scripts"
    for path in [*PACKAGE.rglob("*.py"), *scripts.rglob("*.py")]:
        if path != COMPILING:
            assert not list(private_imports(path)), path


@pytest.mark.parametrize(("module", "name"), sorted(set(private_imports(COMPILING)), key=str))
def test_every_private_part_is_there(module: str, name: str | None) -> None:
    try:
        imported = importlib.import_module(module)
    except ImportError:
        pytest.fail(moved(f"module {module}"))
    assert name is None or hasattr(imported, name), moved(f"{module}.{name}")


@pytest.mark.parametrize(("module", "name", "args", "kwargs"), CALLS)
def test_every_private_function_is_called_as_before(
    module: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    signature = inspect.signature(getattr(importlib.import_module(module), name))
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        pytest.fail(moved(f"{module}.{name} that takes {args}, {kwargs} ({error})"))


def test_the_shape_environment_takes_its_options() -> None:
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    try:  # its signature is **kwargs
        ShapeEnv(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False)
    except TypeError as error:
        pytest.fail(moved(f"ShapeEnv with these options ({error})"))


def test_operations_say_what_they_write_to() -> None:
    schema = torch.ops.aten.add_.Tensor._schema
    try:
        written = [
            argument.alias_info is not None and argument.alias_info.is_write
            for argument in schema.arguments
        ]
        assert schema.is_mutable and written == [True, False, False]
    except AttributeError as error:
        pytest.fail(moved(f"schema of an operation as before ({error})"))


def test_pyro_checks_values_where_they_are_switched_off() -> None:
    """Compiling replaces both functions where `pyro.util` looks them up."""
    import pyro.util

    for name in ("torch_isnan", "torch_isinf"):
        assert callable(getattr(pyro.util, name, None)), f"Pyro has no pyro.util.{name} any more"
