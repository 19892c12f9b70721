"""Pyro's autoguides, with their parameters set to a known law."""

from typing import Any

import closed_forms
import torch
from calls import Call, call_of
from closed_forms import Law, Posterior
from constants import Constants, Rows
from descriptions import Description
from pyro import poutine
from pyro.infer import autoguide
from torch import Tensor


def law(d: Description, c: Constants, rows: Rows) -> tuple[Posterior, Law]:
    """Return the posterior of all examples together, and the law that the autoguide is given."""
    with torch.no_grad():
        p = closed_forms.posterior(d, c, rows, together=True)
        mean, cov = closed_forms.moments(p)
        sd = cov.diagonal(dim1=-2, dim2=-1).sqrt()
        wide = torch.tensor(d.widen).exp()
        mean = mean + d.shift * sd
        if d.guide == "AutoMultivariateNormal":
            return p, Law(None, mean, cov * wide.square())
        scale = sd * closed_forms.covering(cov)[..., None] * wide
        cov = torch.diag_embed(scale.square())
        if d.guide == "AutoLowRankMultivariateNormal":
            factor = scale[..., None] * low_rank_factor(sd.shape[-1])
            cov = cov + factor @ factor.mT
        return p, Law(None, mean, cov)


def low_rank_factor(size: int) -> Tensor:
    """The factor W of the covariance diag(s) (W W' + 1) diag(s)."""
    return torch.linspace(-0.4, 0.4, size, dtype=torch.float64)[:, None]


def automatic(d: Description, c: Constants, rows: Rows, model: Any) -> Any:
    """Make the autoguide of a description, and set its parameters."""
    call = call_of(d, rows, c.noise)
    _, q = law(d, c, rows)
    start = initial_values(d, q.mean[0, 0], len(rows.x), model.dtype)
    hidden = ["c", *(f"c_{i}" for i in range(len(rows.x)))] if d.classes else []
    inner = poutine.block(model, hide=hidden)
    where = autoguide.init_to_value(values=start, fallback=autoguide.init_to_feasible)
    if d.point == "all":
        guide = autoguide.AutoDelta(inner, init_loc_fn=where)
    elif d.point == "AutoGuideList":
        guide = autoguide.AutoGuideList(inner)
        guide.append(
            autoguide.AutoNormal(poutine.block(model, hide=["z1", *hidden]), init_loc_fn=where)
        )
        guide.append(autoguide.AutoDelta(poutine.block(model, expose=["z1"]), init_loc_fn=where))
    elif d.guide == "AutoIAFNormal":
        guide = autoguide.AutoIAFNormal(inner, hidden_dim=[64], num_transforms=1)
    elif d.guide == "AutoLowRankMultivariateNormal":
        guide = autoguide.AutoLowRankMultivariateNormal(inner, init_loc_fn=where, rank=1)
    else:
        guide = getattr(autoguide, d.guide)(inner, init_loc_fn=where)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(d.seed)
        guide(*call.args, **call.kwargs)
        if d.point is None:
            _set(d, guide, q, len(rows.x))
    return guide


def draws(d: Description, guide: Any, call: Call, count: int) -> tuple[Tensor, Tensor]:
    """Draw latent scalars, [count, M], in the order of the closed forms, and log q, [count]."""
    posterior = guide.get_posterior(*call.args, **call.kwargs)
    z = posterior.sample((count,))
    log_q = posterior.log_prob(z)
    order = torch.arange(z.shape[1])
    order = torch.cat([v.flatten() for v in _by_site(d, order, d.examples).values()])
    return torch.empty_like(z).index_copy_(1, order, z).double(), log_q.double()


def initial_values(d: Description, mean: Tensor, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the means of the law by the names of the sites, in the shapes of their values."""
    return {
        name: value.exp() if name == "z1" and d.positive else value
        for name, value in _by_site(d, mean.to(dtype), n).items()
    }


def _by_site(d: Description, scalars: Tensor, n: int) -> dict[str, Tensor]:
    """Split the scalars of the law into sites, in the shapes of their values."""
    g, width = d.global_width, d.latent_width
    sites = {"u": scalars[:g]} if g else {}
    for layer, part in enumerate(scalars[g:].split(n * width) if d.layers else ()):
        value = part.reshape(n, width)
        if d.in_features:
            value = value.reshape(n, *(1,) * (-d.dim - 1), width)
            value = value.reshape((1,) * (1 - d.feature_dim - value.dim()) + value.shape)
            value = value.transpose(d.feature_dim - 1, -1).squeeze(-1)
        else:
            event = () if d.width == 0 else (width,)
            value = value.reshape(n, *(1,) * (-d.dim - 1), *event)
        sites[f"z{layer + 1}"] = value
    return sites


def _set(d: Description, guide: Any, q: Law, n: int) -> None:
    """Give the autoguide the law; what `obs_mask` hides gets normals that are wide enough."""
    mean, cov = q.mean[0, 0], q.cov[0, 0]
    if d.guide == "AutoNormal":
        if d.observation == "obs_mask":
            guide.scales.x_unobserved = torch.full_like(guide.scales.x_unobserved, 2.0)
        for name, value in _by_site(d, cov.diagonal().sqrt(), n).items():
            old = getattr(guide.scales, name)
            setattr(guide.scales, name, value.to(old.dtype).reshape(old.shape))
        return
    if d.guide == "AutoIAFNormal":
        return
    order = torch.cat([v.flatten() for v in _by_site(d, torch.arange(len(mean)), n).values()])
    hidden = len(guide.loc) - len(mean)
    mean = torch.cat([mean[order], mean.new_zeros(hidden)])
    cov = torch.block_diag(cov[order[:, None], order], 4 * torch.eye(hidden, dtype=cov.dtype))
    sd, dtype = cov.diagonal().sqrt(), guide.loc.dtype
    guide.loc.copy_(mean)
    if d.guide == "AutoDiagonalNormal":
        guide.scale = sd.to(dtype)
    elif d.guide == "AutoMultivariateNormal":
        tril = torch.linalg.cholesky(cov)
        guide.scale = tril.diagonal().to(dtype)
        guide.scale_tril = (tril / tril.diagonal()[:, None]).to(dtype)
    else:
        factor = low_rank_factor(len(order))[order]
        factor = torch.cat([factor, factor.new_zeros(hidden, 1)])
        guide.scale = (sd / (1 + factor[:, 0].square()).sqrt()).to(dtype)
        guide.cov_factor.copy_(factor)
