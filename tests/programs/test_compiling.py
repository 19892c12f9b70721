"""Compiled functions: their results, the tensors they use, and the functions they refuse."""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch._inductor.config
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributions import constraints
from torch.nn.functional import binary_cross_entropy_with_logits, dropout, logsigmoid, softplus
from torch.utils._pytree import tree_unflatten

from pyro_vae.programs import compiling
from pyro_vae.programs.compiling import CannotCompile, Compiled


class Program(nn.Module):
    """z ~ N(mu, s^2), where s is a buffer; x ~ N(f(z), 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.tensor([0.3, -1.0]))
        self.net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        self.register_buffer("scale", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        pyro.module("program", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(self.mu, self.scale).to_event(1))
            return pyro.sample("x", dist.Normal(self.net(z), 1.0).to_event(1), obs=x)


def log_joint_and_gradients(program: Program) -> Callable[[Tensor, Tensor], Any]:
    """Log p(x, z), and its gradients with respect to z and the parameters."""

    def function(x: Tensor, z: Tensor) -> Any:
        z = z.requires_grad_()
        conditioned = pyro.condition(program, data={"z": z})
        log_joint = pyro.poutine.trace(conditioned).get_trace(x).log_prob_sum()
        inputs = [z, *program.parameters()]
        return log_joint, torch.autograd.grad(log_joint, inputs)

    return function


@pytest.fixture
def x() -> Tensor:
    return torch.randn(7, 3, dtype=torch.double)


def test_results_use_the_current_values_of_tensors(x: Tensor) -> None:
    program = Program().double()
    function = log_joint_and_gradients(program)
    compiled = Compiled(function)
    z = torch.randn(7, 2, dtype=torch.double)
    before = [value.clone() for value in program.state_dict().values()]
    for change in range(3):
        state = {name: value.clone() for name, value in program.state_dict().items()}
        ours = compiled(x, z)
        after = [value.clone() for value in program.state_dict().values()]
        program.load_state_dict(state)
        pyro.clear_param_store()
        expected = function(x, z.clone())
        torch.testing.assert_close(ours, (expected[0].detach(), expected[1]))
        # The statistics of the batch normalisation are also updated once for each call.
        torch.testing.assert_close(after, list(program.state_dict().values()))
        with torch.no_grad():
            program.mu += change + 1
            program.scale *= 1.5
            z = z + 1
            x = x * 2
    assert int(program.net[1].num_batches_tracked) == int(before[-1]) + 3


def test_noise_is_new_at_each_call_and_repeatable(x: Tensor) -> None:
    program = Program().double().eval()

    def draw(x: Tensor) -> Tensor:
        return pyro.poutine.trace(program).get_trace(x).nodes["z"]["value"]

    compiled = Compiled(draw)
    before = torch.get_rng_state()
    compiled(x)  # compiling consumes no random numbers beyond those of the call
    torch.set_rng_state(before)
    first, second = compiled(x), compiled(x)
    assert not torch.equal(first, second)
    torch.set_rng_state(before)
    assert torch.equal(compiled(x), first)
    draws = torch.cat([compiled(x) for _ in range(2000)])  # 14,000 of each dimension
    error = len(draws) ** -0.5
    assert ((draws.mean(0) - program.mu).abs() < 4.5 * error).all()
    assert ((draws.var(0) - 1).abs() < 4.5 * 2**0.5 * error).all()
    torch.manual_seed(1)
    noise = Compiled(draw)(x)
    torch.manual_seed(1)
    torch.testing.assert_close(noise, draw(x).detach())


def test_one_compilation_for_each_shape() -> None:
    traced = []

    def function(a: Tensor, b: Tensor, c: Tensor) -> dict[str, Tensor]:
        traced.append(a.shape)
        return {"sum": a + b, "difference": a - c}

    compiled = Compiled(function)
    for size in (2, 3, 2, 3):
        a = torch.randn(size)
        result = compiled(a, torch.ones(size), torch.zeros(size))
        assert torch.equal(result["sum"], a + 1) and torch.equal(result["difference"], a)
    assert traced == [(2,), (2,), (3,), (3,)]  # each runs once, and is traced once


def test_arguments_may_have_any_memory_layout() -> None:
    compiled, x = Compiled(lambda x: 2 * x), torch.arange(6.0).reshape(2, 3)
    for same in (x, x.T.contiguous().T, torch.stack([x, x], -1)[..., 0]):
        assert torch.equal(compiled(same), 2 * x)


def test_each_closed_over_tensor_is_one_input() -> None:
    """Inductor would copy a tensor at each call if it were two inputs and written to."""
    weight, scale = nn.Parameter(torch.ones(4)), torch.ones(4)

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            weight.sub_(scale.add_(weight * x))
        return x

    graph, _ = compiling._trace(function, (torch.ones(4),))
    inputs = compiling._turn_closed_over_into_inputs(graph)
    assert {id(tensor) for tensor in inputs} == {id(weight), id(scale)} and len(inputs) == 2
    attributes = {**vars(graph), **graph._parameters, **graph._buffers}
    assert not [name for name, value in attributes.items() if isinstance(value, Tensor)]


def test_closed_over_tensors_may_share_memory() -> None:
    weight = torch.ones(3)
    other = weight.detach()

    def function(x: Tensor) -> Tensor:
        weight.add_(x)
        return other * x

    compiled = Compiled(function)
    assert [compiled(torch.ones(3)).tolist() for _ in range(2)] == [[2.0] * 3, [3.0] * 3]
    assert other.tolist() == weight.tolist() == [3.0] * 3


def test_arguments_and_parameters_can_be_written_to() -> None:
    weight = nn.Parameter(torch.ones(4))

    def function(total: Tensor, x: Tensor) -> Tensor:
        loss = (weight * x).sum()
        (gradient,) = torch.autograd.grad(loss, [weight])
        with torch.no_grad():
            weight.sub_(gradient)
            total.add_(1)
        return loss

    compiled, total, x = Compiled(function), torch.zeros(()), torch.arange(4.0)
    assert [compiled(total, x).item() for _ in range(3)] == [6.0, -8.0, -22.0]
    assert torch.equal(weight.detach(), 1 - 3 * x) and total == 3


LIVE = torch.ones(3)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0],
        lambda x: x * float(x[0]),
        lambda x: x[: int(x[0].item())],
        lambda x: x if LIVE.sum() > 0 else -x,
        lambda x: x * float(LIVE[0]),
        lambda x: x * LIVE.tolist()[0],
    ],
)
def test_functions_that_read_values_are_refused(function: Callable[[Tensor], Tensor]) -> None:
    with pytest.raises(CannotCompile, match="depends on the value of a tensor"):
        Compiled(function)(torch.ones(3))


def test_item_returns_a_tensor() -> None:
    compiled = Compiled(lambda x: x - x.sum().item() + LIVE[0].item())
    for x in (torch.arange(3.0), torch.ones(3)):
        torch.testing.assert_close(compiled(x), x - x.sum() + 1)


def test_without_a_compiler_it_is_refused() -> None:
    settings = {"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}
    with torch._inductor.config.patch(settings), pytest.raises(CannotCompile):
        Compiled(lambda x: x.sin() + 1.2345)(torch.ones(3))


def test_errors_of_the_function_are_reported() -> None:
    with pytest.raises(CannotCompile, match="shape"):
        Compiled(lambda x: x.reshape(5))(torch.ones(3))


def test_faster_functions_are_as_accurate() -> None:
    """Our decompositions in single precision, and their gradients, against double precision."""
    x = torch.cat([torch.linspace(-20, 20, 100_001), torch.logspace(-12, -1, 1001)])
    t = (torch.arange(len(x)) % 2).float()

    def functions(x: Tensor, t: Tensor) -> list[Tensor]:
        x = x.requires_grad_()
        cross_entropy = binary_cross_entropy_with_logits(x, t, reduction="none")
        values = [x.tanh(), softplus(x), logsigmoid(x), cross_entropy]
        return [*values, *(torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in values)]

    # The rounding of x gives exp(-|x|) a relative error of 6e-8 |x|; gradients are at most one.
    # The error of tanh is three roundings of 2 sigmoid at 0.25, 6e-8 each.
    closeness = [(7.3e-7, 0.0), *[(3e-6, 0.0)] * 3, *[(0.0, 1e-6)] * 4]
    compiled, exact = Compiled(functions)(x, t), functions(x.double(), t.double())
    for one, other, (rtol, atol) in zip(compiled, exact, closeness, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=atol)
    total = Compiled(lambda x, t: binary_cross_entropy_with_logits(x, t, reduction="sum"))(x, t)
    mean = Compiled(lambda x, t: binary_cross_entropy_with_logits(x, t))(x, t)
    expected = binary_cross_entropy_with_logits(x.double(), t.double()).item()
    assert mean.item() == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(expected * len(x), rel=1e-5)


AFTER_CONVOLUTION: dict[str, Callable[[Tensor], Any]] = {  # images [N, 3, 4, 4]
    "view": lambda images: images.view(len(images), -1),
    "strides": lambda images: images.as_strided((len(images), 48), (48, 1)),
    "write to a view": lambda images: [images.reshape(-1).mul_(2.0), images],
    "noise": lambda images: dropout(images, 0.5),
}


@pytest.mark.parametrize("name", AFTER_CONVOLUTION)
def test_images_are_in_memory_as_the_program_has_them(name: str) -> None:
    """Another order of their channels would be faster, and would change what programs do."""
    convolution = nn.Conv2d(1, 3, 3)

    def function(x: Tensor) -> Any:
        return AFTER_CONVOLUTION[name](convolution(x))

    x = torch.randn(5, 1, 6, 6)
    graph, structure = compiling._trace(function, [x])
    torch.manual_seed(0)
    expected = function(x)
    torch.manual_seed(0)
    torch.testing.assert_close(tree_unflatten(graph(x), structure), expected)


def elbo(model: Callable[..., Any], guide: Callable[..., Any], x: Tensor) -> Tensor:
    """One draw of log p(x, z) - log q(z)."""
    drawn = pyro.poutine.trace(guide).get_trace(x)
    replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace=drawn)).get_trace(x)
    return replayed.log_prob_sum() - drawn.log_prob_sum()


def normal(x: Tensor) -> None:
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def with_params(x: Tensor) -> None:
    slope = pyro.param("slope", torch.tensor(0.3))
    scale = pyro.param("scale", lambda: torch.rand(()), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(slope * x, scale))


@pytest.mark.parametrize("make", [lambda: with_params, lambda: AutoNormal(normal)])
def test_what_programs_make_when_they_first_run_is_real(make: Callable[[], Any]) -> None:
    guide, x = make(), torch.randn(6)
    compiled = Compiled(lambda x: elbo(normal, guide, x))
    torch.manual_seed(1)
    ours = compiled(x)
    assert not any(isinstance(p, FakeTensor) for _, p in pyro.get_param_store().named_parameters())
    torch.manual_seed(1)
    torch.testing.assert_close(ours, elbo(normal, guide, x).detach())
    assert math.isfinite(Trace_ELBO().loss(normal, guide, x))
    pyro.clear_param_store()
    if guide is with_params:  # the parameters are made again for the next shape
        compiled(x[:3])
        assert math.isfinite(Trace_ELBO().loss(normal, guide, x))


def test_parameters_that_are_made_in_every_run_are_refused() -> None:
    runs = []

    def function(x: Tensor) -> Tensor:
        runs.append(1)
        return x * pyro.param(f"a{len(runs)}", torch.tensor(0.3))

    with pytest.raises(CannotCompile, match="makes the Pyro parameter 'a2' again"):
        Compiled(function)(torch.ones(3))
    assert list(pyro.get_param_store()) == ["a1"]


def test_the_run_before_compiling_has_no_effect() -> None:
    weight, lazy, norm = nn.Parameter(torch.ones(4)), nn.LazyLinear(2), nn.BatchNorm1d(4)

    def function(total: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            weight[1:].sub_(x[0, 1:])  # a view
            weight.view(-1).mul_(2)
            total.add_(1)
            fresh = torch.zeros(4)
            fresh.add_(x[0])
        loss = lazy(norm(x)).square().sum() + fresh.sum()
        return torch.autograd.grad(loss, [norm.weight])[0]

    total, x = torch.zeros(()), torch.randn(5, 4)
    state = torch.get_rng_state()
    graph = Compiled(function).prepare(total, x)
    assert torch.equal(torch.get_rng_state(), state)
    assert weight.tolist() == [1.0] * 4 and total == 0
    assert int(norm.num_batches_tracked) == 0 and not norm.running_mean.any()
    bound = 4**-0.5  # of nn.Linear's initial values, which must not be lost
    assert lazy.weight.abs().max() <= bound and lazy.weight.std() > 0.1 * bound
    graph([total, x])
    assert total == 1 and weight[0] == 2 and int(norm.num_batches_tracked) == 1


def test_arguments_may_be_nested() -> None:
    traced = []

    def function(x: Tensor, parts: dict[str, Any], *, power: int) -> Tensor:
        traced.append(power)
        return (x + parts["rows"][0] * parts["factor"]) ** power

    compiled, x = Compiled(function), torch.arange(3.0)
    for factor, power in [(2.0, 1), (2.0, 2), (3.0, 2), (2, 2), (2.0, 1)]:
        arguments = x, {"rows": [x + 1], "factor": factor}
        expected = function(*arguments, power=power)
        traced.pop()
        assert torch.equal(compiled(*arguments, power=power), expected)
    assert len(traced) == 2 * 4  # the last was compiled before
    with pytest.raises(CannotCompile, match="neither a tensor nor a constant"):
        compiled(x, {"rows": [x], "factor": {1}}, power=1)
