"""Wrong parts, each of which `pyro_vae.testing` refuses, with the sentence that says why."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_vae import (
    kinds,
    likelihoods,
    networks,
    objectives,
    posteriors,
    priors,
    testing,
    training,
)
from pyro_vae.testing import training_steps

SMALL = partial(networks.MLP, widths=[8])


class Own(priors.Prior):
    """A right prior, which those after it break."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> Any:
        return dist.Normal(self.loc, 1.0).to_event(1)


class Louder(dist.Normal):
    """A normal density times a constant."""

    def log_prob(self, value: Tensor) -> Tensor:
        return super().log_prob(value) + 0.01

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(Louder, _instance))


class Deaf(dist.Normal):
    """A normal distribution whose samples ignore the location."""

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        return super().sample(sample_shape) - self.loc

    rsample = sample

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(Deaf, _instance))


class OffByAConstant(Own):
    def forward(self) -> Any:
        return Louder(self.loc, 1.0).to_event(1)


class SamplesIgnoreAParameter(Own):
    def forward(self) -> Any:
        return Deaf(self.loc, 1.0).to_event(1)


class WrongEventShape(Own):
    def forward(self) -> Any:
        return dist.Normal(self.loc, 1.0)


class NotSaved(Own):
    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.shift = torch.randn(latent_dim)

    def forward(self) -> Any:
        return dist.Normal(self.loc + self.shift, 1.0).to_event(1)


class NotAParameter(Own):
    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.tensors = [torch.zeros(latent_dim, requires_grad=True)]

    def forward(self) -> Any:
        return dist.Normal(self.loc + self.tensors[0], 1.0).to_event(1)


class Unreached(Own):
    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> Any:
        return dist.Normal(self.loc, self.log_scale.detach().exp()).to_event(1)


class WrongGradient(Own):
    def forward(self) -> Any:
        return dist.Normal(2 * self.loc - self.loc.detach(), 1.0).to_event(1)


class NotOnTheSphere(Own):
    support = "sphere"


class OnlyOnAnInterval(Own):
    def forward(self) -> Any:
        return dist.Uniform(self.loc, self.loc + 1).to_event(1)


class LowerLayerOff(priors.Hierarchical):
    def _given_top(self, top: Any) -> Any:
        below = super()._given_top(top)
        return Louder(below.base_dist.loc, below.base_dist.scale).to_event(1)


class Scored(likelihoods.Likelihood):
    """A right likelihood, which those after it break."""

    kinds = (kinds.UnitInterval,)

    def __init__(self, latent_dim: int, event_shape: Sequence[int]) -> None:
        super().__init__(latent_dim, event_shape, SMALL)

    def forward(self, z: Tensor) -> Any:
        return self.independent(dist.Normal(self.decoder(z), 0.3))


class OffByAFactor(Scored):
    def forward(self, z: Tensor) -> Any:
        return self.independent(Louder(self.decoder(z), 0.3))


class SamplesIgnoreTheCode(Scored):
    def forward(self, z: Tensor) -> Any:
        return self.independent(Deaf(self.decoder(z) + 0.5, 0.3))


class CentredCodes(Scored):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z - z.mean(-2, keepdim=True) if z.dim() > 1 else z)


class OfAnotherKind(Scored):
    kinds = (kinds.Levels,)

    def forward(self, z: Tensor) -> Any:
        return self.independent(dist.Bernoulli(logits=self.decoder(z)))


class OneCodeForAll(Scored):
    def forward(self, z: Tensor) -> Any:
        return super().forward(z.flatten(0, -2)[0] if z.dim() > 1 else z)


class WrongPicture(Scored):
    def picture(self, z: Tensor) -> Tensor:
        return (0.8 * self.decoder(z)).clamp(0, 1)


class PictureOfLogits(Scored):
    def picture(self, z: Tensor) -> Tensor:
        return 300 * self.decoder(z)


class StartsAtInfinity(likelihoods.Bernoulli):
    def initialize(self, images: Tensor) -> None:
        self.decoder.bias.data.copy_(images.mean(0).logit())


class UnsavedScale(Scored):
    def __init__(self, latent_dim: int, event_shape: Sequence[int]) -> None:
        super().__init__(latent_dim, event_shape)
        self.scale = 0.2 + torch.rand(()).item()

    def forward(self, z: Tensor) -> Any:
        return self.independent(dist.Normal(self.decoder(z), self.scale))


class NormalisedOverTheBatch(posteriors.Normal):
    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__(event_shape, latent_dim, networks.Linear)
        self.norm = nn.BatchNorm1d(latent_dim)

    def forward(self, x: Tensor) -> Any:
        q = super().forward(x).base_dist
        loc = self.norm(q.loc.reshape(-1, self.latent_dim)) if x.dim() > 1 else q.loc
        return dist.Normal(loc.reshape(q.loc.shape), q.scale).to_event(1)


class PosteriorOffByAConstant(posteriors.Normal):
    def forward(self, x: Tensor) -> Any:
        q = super().forward(x).base_dist
        return Louder(q.loc, q.scale).to_event(1)


class DrawsIgnoreX(posteriors.Normal):
    def forward(self, x: Tensor) -> Any:
        q = super().forward(x).base_dist
        return Deaf(q.loc, q.scale).to_event(1)


class ScaleOverflows(posteriors.Posterior):
    def __init__(self, event_shape: Sequence[int], latent_dim: int) -> None:
        super().__init__(event_shape, latent_dim)
        self.encoder = networks.Linear(event_shape, (latent_dim,))
        nn.init.constant_(self.encoder.body[1].weight, 1.0)

    def forward(self, x: Tensor) -> Any:
        return dist.Normal(0.0, self.encoder(x).exp()).to_event(1)


class OnlyVectors(posteriors.Normal):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x.reshape(-1, *self.event_shape))


class NoPath(posteriors.Normal):
    def forward(self, x: Tensor) -> Any:
        q = super().forward(x).base_dist
        return Pathless(q.loc, q.scale).to_event(1)


class Pathless(dist.Normal):
    """A normal distribution whose draws have a gradient by their locations only."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - as torch has it
        return super().rsample(sample_shape).detach() + self.loc - self.loc.detach()

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        return super().expand(batch_shape, self._get_checked_instance(Pathless, _instance))


class Mixes(networks.MLP):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs - inputs.mean(0))


class BatchNorm(networks.Linear):
    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__(in_shape, out_shape)
        self.body = nn.Sequential(nn.BatchNorm1d(in_shape[0]), self.body)


class NoBias(networks.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs) - self.bias


class FlatOutputs(networks.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).flatten(-2)


class UnusedLayer(networks.Linear):
    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int]) -> None:
        super().__init__(in_shape, out_shape)
        self.spare = nn.Linear(2, 2)


class Boasts(objectives.ELBO):
    """The ELBO, with half a nat added for each example."""

    def bound(self, log_w: Tensor) -> Tensor:
        return super().bound(log_w) + 0.5


class MaximumOfWeights(objectives.IWAE):
    def bound(self, log_w: Tensor) -> Tensor:
        return log_w.logsumexp(0)


class GuideLeftAlone(objectives.ELBO):
    def differentiable_loss(self, model: Any, guide: Any, x: Tensor) -> Tensor:
        return -self.draw(model, guide, x, path=False).log_p.sum()


class Counts(objectives.ELBO):
    """A weight that grows with the steps, and is in no state."""

    steps = 0

    def loss_and_grads(self, model: Any, guide: Any, x: Tensor) -> float:
        self.steps += 1
        self.kl_weight.fill_(self.steps / 10)
        return super().loss_and_grads(model, guide, x)


class Minimises(objectives.ELBO):
    def differentiable_loss(self, model: Any, guide: Any, x: Tensor) -> Tensor:
        return -super().differentiable_loss(model, guide, x)


class LeavesGradients(objectives.ELBO):
    def loss(self, model: Any, guide: Any, x: Tensor) -> float:
        self.loss_and_grads(model, guide, x)
        return super().loss(model, guide, x)


prior, likelihood = testing.check_prior, testing.check_likelihood
posterior, network = testing.check_posterior, testing.check_network
objective = testing.check_objective
WRONG: list[tuple[Callable[..., None], Callable[..., Any], str]] = [
    (prior, OffByAConstant, r"p\(z\) integrates to 1.0202, and not to 1"),
    (prior, SamplesIgnoreAParameter, r"samples do not follow p\(z\): the mean of tanh\(z\) is"),
    (prior, WrongEventShape, r"batch shape \[2\] and event shape \[\], and \[\] and \[2\] are exp"),
    (prior, NotSaved, "another prior with the same state_dict has another density"),
    (prior, NotAParameter, "that is not a parameter of the module: make it a torch.nn.Parameter"),
    (prior, Unreached, "the gradient of log p.z. does not reach the parameter 'log_scale'"),
    (prior, WrongGradient, r"the gradient of log p\(z\) by 'loc' is .* finite differences give"),
    (prior, NotOnTheSphere, "samples are not on the unit sphere"),
    (prior, OnlyOnAnInterval, "calling the prior raised ValueError: .* within the support"),
    (prior, partial(LowerLayerOff, network=SMALL), r"p\(z \| z_top\) integrates to 1.0202"),
    (prior, networks.Linear, "missing 1 required positional argument"),
    (likelihood, OffByAFactor, "one pixel adds up to 1.01005, and not to 1"),
    (likelihood, SamplesIgnoreTheCode, "samples of one pixel do not follow"),
    (likelihood, CentredCodes, "of one example depends on the other examples of its batch"),
    (likelihood, OfAnotherKind, "x of the kind levels is outside of p's support"),
    (likelihood, OneCodeForAll, r"p\(x\|z\) has batch shape \[\] and event shape \[4, 3\]"),
    (likelihood, WrongPicture, "`picture` is .* and the mean of p.* is"),
    (likelihood, PictureOfLogits, "`picture` does not give numbers in"),
    (likelihood, StartsAtInfinity, "images that are 0 throughout"),
    (likelihood, UnsavedScale, "another likelihood with the same state_dict has another density"),
    (posterior, NormalisedOverTheBatch, "of one example depends on the other examples of its"),
    (posterior, PosteriorOffByAConstant, r"q\(z\|x\) integrates to 1.0202"),
    (posterior, DrawsIgnoreX, r"samples do not follow q\(z\|x\)"),
    (posterior, ScaleOverflows, "raised ValueError|for x of 1000"),
    (
        posterior,
        OnlyVectors,
        r"for x with leading dimensions \[\], q\(z\|x\) has batch shape \[1\]",
    ),
    (posterior, NoPath, r"the gradient of a draw from q\(z\|x\) by"),
    (network, Mixes, "the output of one example depends on the other examples of its batch"),
    (network, BatchNorm, "the output of one example depends on the other examples of its batch"),
    (network, NoBias, "adding 1 to `bias` does not add 1 to every output"),
    (network, FlatOutputs, r"outputs have shape \[2, 3, 6\], and not \[2, 3, 2, 3\]"),
    (network, UnusedLayer, "does not reach the parameter 'spare.weight'"),
    (objective, Boasts, r"above log p\(x\), which is .*: it is not a lower bound"),
    (objective, MaximumOfWeights, r"above log p\(x\), which is .*: it is not a lower bound"),
    (objective, GuideLeftAlone, "leaves no gradients in the guide"),
    (objective, Counts, "something that steps change is not in state_dict"),
    (objective, Minimises, r"it does not rise to within 1 of log p\(x\)"),
    (objective, LeavesGradients, "`loss` leaves gradients in the parameters"),
]


@pytest.mark.parametrize(
    ("check", "make", "sentence"), WRONG, ids=lambda value: getattr(value, "__name__", None)
)
def test_wrong_parts_are_refused(
    check: Callable[..., None], make: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(AssertionError, match=sentence) as raised:
        check(make)
    message, name = str(raised.value), getattr(make, "func", make).__name__
    assert message.startswith(f"{name}: ") and "\n" not in message


@pytest.mark.parametrize(
    ("check", "make"), [(prior, Own), (likelihood, Scored), (posterior, posteriors.Normal)]
)
def test_what_they_break_is_right(check: Callable[..., None], make: Callable[..., Any]) -> None:
    check(make)


class Peeking(Own):
    def forward(self) -> Any:
        return dist.Normal(self.loc, 1.0 if self.loc.sum() > -1e9 else 2.0).to_event(1)


def test_options_of_objectives() -> None:
    testing.check_objective(Boasts, bound=False)
    with pytest.raises(AssertionError, match=r"training steps take log p\(x\) from .* is attaina"):
        testing.check_objective(objectives.ELBO, gain=2.0)


class StepsTwice(training.EagerEngine):
    """In the place of the compiled engine, which takes long to compile."""

    def step(self, *args: Any) -> float:
        super().step(*args)
        return super().step(*args)


def test_compiled_steps_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    testing.check_prior(Peeking)
    with pytest.raises(AssertionError, match="the step cannot be compiled, it depends on the val"):
        testing.check_prior(Peeking, compile=True)
    monkeypatch.setattr(training_steps, "CompiledEngine", training.EagerEngine)
    testing.check_prior(Own, compile=True)
    monkeypatch.setattr(training_steps, "CompiledEngine", StepsTwice)
    with pytest.raises(AssertionError, match="a compiled SVI step does not give the same loss"):
        testing.check_prior(Own, compile=True)
