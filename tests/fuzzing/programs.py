"""The two Pyro programs of a description."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from typing import Any

import closed_forms
import pyro
import pyro.distributions as dist
import torch
from autoguides import automatic
from calls import DTYPES, call_of, parts_of
from constants import SYMBOLS, Constants, Rows, batch_statistic
from descriptions import Description
from pyro import poutine
from torch import Tensor, nn
from torch.nn.functional import one_hot

SCALE = 2.5
SIZED = 10  # a plate of this many times the examples that it holds


class Program(nn.Module):
    """What model and guide share: how arguments are read, and how tensors are laid out."""

    def __init__(self, d: Description, constants: Constants, rows: Rows) -> None:
        super().__init__()
        self.d, self.exact, self.rows = d, constants, rows
        self.dtype = DTYPES.get(d.dtype, torch.float32)
        cast = {
            field.name: value.to(self.dtype) if isinstance(value, Tensor) else value
            for field in fields(constants)
            for value in [getattr(constants, field.name)]
        }
        self.c = Constants(**cast)

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Rows:
        """Read the examples off the arguments, without what is looked up by index."""
        d = self.d
        parts = parts_of(d, self.rows, self.c.noise)
        if d.arguments == "dict":
            (parts,) = args
        elif d.arguments == "keyword":
            parts = {**dict(zip(["x"], args, strict=False)), **kwargs}
        elif d.arguments == "positional":
            parts = dict(zip(parts, args, strict=True))
        self.noise = parts.get("noise", self.c.noise)
        x = parts["x"]
        if not d.dtype.startswith("bfloat16"):
            x = x.to(self.dtype)
        n, features = len(x), d.features
        normal = x[:, :features]
        observed = torch.ones(n, features, dtype=torch.bool)
        if d.mask and d.mask_from == "nans":
            observed = ~normal.isnan()
            normal = normal.where(observed, 0.0)
        elif d.mask and d.mask_from == "lengths":
            observed = torch.arange(features) < parts["lengths"][:, None]
        elif d.mask:
            observed = parts["mask"]
        drawn = torch.ones(n, d.latent_width, dtype=torch.bool)
        if d.mask in ("both sides", "model only", "guide only"):
            drawn = observed if d.in_features else observed[:, :1].expand(drawn.shape)
        y = parts["y"].to(self.dtype) if d.covariates == "argument" else x.new_zeros(n)
        return Rows(
            x=normal,
            observed=observed,
            drawn=drawn,
            y=y,
            offset=self.offset(y, normal, observed),
            symbol=x[:, features] if d.emission else x.new_zeros(n),
            angle=x[:, -1],
        )

    def offset(self, y: Tensor, x: Tensor, observed: Tensor) -> Tensor:
        """Return what is added to the prior mean of the first layer, [n, latent_width]."""
        offset = y[:, None].to(self.dtype) * self.c.covariate
        if self.d.batch_statistics == "model":
            offset = offset + batch_statistic(x, observed)
        return offset

    def looked_up(self, rows: Rows, index: Any) -> Rows:
        """Add the covariates that are looked up by the plate's index."""
        if self.d.covariates not in ("index", "one"):
            return rows
        y = self.c.table[index].reshape(-1)
        return replace(rows, y=y, offset=rows.offset + y[:, None] * self.c.covariate)

    def lay(self, t: Tensor, events: int = 0) -> Tensor:
        """Give examples, [n, *event], the dimension of the data plate."""
        if self.d.sequential:
            return t[0]
        event = t.shape[1 : 1 + events]
        return t.reshape(len(t), *(1,) * (-self.d.dim - 1), *event)

    def place(self, t: Tensor) -> Tensor:
        """Move the last dimension of a laid-out tensor to that of the features' plate."""
        dim = self.d.feature_dim
        t = t.reshape((1,) * (1 - dim - t.dim()) + t.shape)
        return t.transpose(dim - 1, -1).squeeze(-1)

    def displace(self, t: Tensor) -> Tensor:
        """Move the dimension of the features' plate to the end."""
        return t.unsqueeze(-1).transpose(self.d.feature_dim - 1, -1)

    def picked(self, table: Tensor, kind: Tensor | None, events: int = 1) -> Tensor:
        """Look the classes up in a laid-out table, [n, .., classes, *event]."""
        axis = -1 - events
        if kind is None:
            return table.select(axis, 0)
        hot = one_hot(kind.long(), table.shape[axis]).to(table.dtype)
        return (hot.reshape(*hot.shape, *(1,) * events) * table).sum(axis)

    @contextmanager
    def contexts(self, name: str) -> Iterator[None]:
        """The scale that this program has on all of its sites."""
        scaled = self.d.scale == "both sides" or (self.d.scale == "model only" and name == "model")
        with ExitStack() as stack:
            if scaled:
                stack.enter_context(poutine.scale(scale=SCALE))
            yield

    def plates(self, rows: Rows, name: str) -> Iterator[tuple[Rows, str, list[Any]]]:
        """Yield examples, the suffix of their sites' names, and the contexts that they are in.

        That is once, for the whole plate, or once for each example.
        """
        d, n = self.d, len(rows.x)
        if d.sequential:
            for i in pyro.plate(name, n):
                part = Rows(**{f.name: getattr(rows, f.name)[i : i + 1] for f in fields(rows)})
                yield self.looked_up(part, slice(i, i + 1)), f"_{i}", []
            return
        if d.scale == "subsample":
            plate = pyro.plate(name, n, subsample_size=max(1, n - 1), dim=d.dim)
        elif d.scale == "sized":
            plate = pyro.plate(name, SIZED * n, subsample=torch.arange(n), dim=d.dim)
        elif name == "unsized":
            plate = pyro.plate(d.plate, dim=d.dim)
        else:
            plate = pyro.plate(name, n, dim=d.dim)
        with plate as index:
            if name == "unsized":
                index = torch.arange(n)
            if d.scale == "subsample":
                rows = Rows(**{f.name: getattr(rows, f.name)[index] for f in fields(rows)})
        self.index = index
        yield self.looked_up(rows, index), "", [plate]

    @property
    def has_features_plate(self) -> bool:
        return self.d.in_features or self.d.observation in ("plate", "obs_mask")

    def mean_of_x(self, u: Tensor | None, kind: Tensor | None, z: Tensor | None) -> Tensor:
        """Return the mean of x, laid out, [.., features]."""
        c = self.c
        if z is not None:
            mean = self.by_position(z) @ c.loading
        elif kind is not None:
            mean = c.class_x[kind.long()]
        else:
            mean = self.lay(c.class_x.expand(len(self.rows.x), -1)[:1], 1)
        if z is None and u is not None:
            mean = mean + u @ c.global_x
        return mean + self.bias()

    def bias(self) -> Tensor:
        return self.c.bias

    def by_position(self, z: Tensor) -> Tensor:
        """Do what counts dimensions from the left: right for z of shape [n, width]."""
        d = self.d
        if d.position == "view":
            return z.reshape(-1, d.latent_width)
        if d.position == "cumsum":
            return z.cumsum(1)
        if d.position == "centre":
            return 1.5 * z - z.mean(1, keepdim=True)
        if d.position == "len":
            return z * (len(z) / d.examples)
        return z

    def sample_layer(self, name: str, loc: Tensor, scale: Tensor, log: bool, **how: Any) -> Tensor:
        """Sample a layer from normals, and return it (its logarithm), laid out, [.., width]."""
        d = self.d
        family = dist.LogNormal if log else dist.Normal
        if d.in_features:
            with self.features_plate:
                z = pyro.sample(name, family(self.place(loc), self.place(scale)), **how)
                z = self.displace(z)
        elif d.width == 0:
            z = pyro.sample(name, family(loc[..., 0], scale[..., 0]), **how).unsqueeze(-1)
        else:
            z = pyro.sample(name, family(loc, scale).to_event(1), **how)
        return z.log() if log else z


class Model(Program):
    """The model of a description."""

    def __init__(self, d: Description, constants: Constants, rows: Rows) -> None:
        super().__init__(d, constants, rows)
        if d.parameters != "pyro.param":
            self.own_bias = nn.Parameter(self.c.bias.clone())

    def bias(self) -> Tensor:
        if self.d.parameters == "pyro.param":
            return pyro.param("bias", lambda: self.c.bias.clone())
        return self.own_bias

    def forward(self, *args: Any, **kwargs: Any) -> None:
        d, c = self.d, self.c
        if d.parameters == "pyro.module":
            pyro.module("model", self)
        rows = self.read(args, kwargs)
        if self.has_features_plate:
            self.features_plate = pyro.plate("features", d.features, dim=d.feature_dim)
        with self.contexts("model"):
            u = None
            if d.global_width:
                u = pyro.sample(
                    "u", dist.Normal(torch.zeros_like(c.global_scale), c.global_scale).to_event(1)
                )
            for part, suffix, contexts in self.plates(rows, d.plate):
                with ExitStack() as stack:
                    for context in contexts:
                        stack.enter_context(context)
                    self.examples(part, suffix, u)

    def examples(self, rows: Rows, suffix: str, u: Tensor | None) -> None:
        d, c = self.d, self.c
        masked = d.mask in ("both sides", "model only") and not d.in_features
        with ExitStack() as stack:
            if masked:
                stack.enter_context(poutine.mask(mask=self.lay(rows.drawn[:, 0])))
            kind, z = None, None
            if d.classes:
                infer = {"enumerate": "parallel"} if d.enumerate == "model" else {}
                logits = c.class_logits
                if not d.sequential:
                    logits = logits.expand(*self.lay(rows.x[:, 0]).shape, -1)
                kind = pyro.sample("c" + suffix, dist.Categorical(logits=logits), infer=infer)
            if d.layers:
                z = self.layers(rows, suffix, u, kind)
            mean = self.mean_of_x(u, kind, z)
            self.observe(rows, suffix, mean)
            if d.emission:
                self.observe_symbol(rows, suffix, kind)
            if d.circle:
                n = self.lay(rows.angle)
                angle = pyro.sample(
                    "angle" + suffix,
                    dist.VonMises(torch.zeros_like(n), c.prior_concentration + 0 * n),
                )
                seen = dist.Normal(angle, 1.0)
                if d.circle == "angle":
                    seen = dist.VonMises(angle, c.angle_concentration + 0 * n)
                pyro.sample("seen" + suffix, seen, obs=n)

    def layers(self, rows: Rows, suffix: str, u: Tensor | None, kind: Tensor | None) -> Tensor:
        d, c = self.d, self.c
        loc = c.prior_mean[0] if kind is None else c.prior_mean[kind.long()]
        loc = loc + self.lay(rows.offset, 1)
        if u is not None:
            loc = loc + u @ c.group
        with ExitStack() as stack:
            if d.in_features and d.mask in ("both sides", "model only"):
                mask = self.place(self.lay(rows.drawn, 1))
                stack.enter_context(poutine.mask(mask=mask))
            z = self.sample_layer("z1" + suffix, loc, c.prior_scale, d.positive)
            for layer in range(2, d.layers + 1):
                z = self.sample_layer(f"z{layer}{suffix}", z @ c.step, c.step_scale, False)
        return z

    def observe(self, rows: Rows, suffix: str, mean: Tensor) -> None:
        d, noise, name = self.d, self.noise, "x" + suffix
        x, seen = self.lay(rows.x, 1), self.lay(rows.observed, 1)
        with ExitStack() as stack:
            if d.scale == "observed":
                stack.enter_context(poutine.scale(scale=SCALE))

            def mask(value: Tensor) -> Any:
                return poutine.mask(mask=value) if d.mask else ExitStack()

            if d.observation == "event":
                with mask(seen[..., 0]):
                    pyro.sample(name, dist.Normal(mean, noise).to_event(1), obs=x)
            elif d.observation == "factor":
                with mask(seen[..., 0]):
                    pyro.factor(name, dist.Normal(mean, noise).to_event(1).log_prob(x))
            elif d.observation in ("plate", "obs_mask"):
                fn = dist.Normal(self.place(mean), self.place(noise))
                x, seen = self.place(x), self.place(seen)
                with self.features_plate:
                    if d.observation == "obs_mask":
                        pyro.sample(name, fn, obs=x, obs_mask=seen)
                    else:
                        with mask(seen):
                            pyro.sample(name, fn, obs=x)
            else:
                sequence = range(d.features)
                if d.observation == "sequential plate":
                    sequence = pyro.plate("features", d.features)
                for j in sequence:
                    with mask(seen[..., j]):
                        pyro.sample(
                            f"{name}_{j}", dist.Normal(mean[..., j], noise[j]), obs=x[..., j]
                        )

    def observe_symbol(self, rows: Rows, suffix: str, kind: Tensor) -> None:
        logits, symbol = self.c.emission[kind.long()], self.lay(rows.symbol)
        dim = 1 if self.d.position == "softmax" else -1
        probs = logits.softmax(dim)
        if self.d.emission == "coin":
            pyro.sample("symbol" + suffix, dist.Bernoulli(probs=probs[..., 1]), obs=symbol)
        else:
            hot = one_hot(symbol.long(), SYMBOLS["words"]).to(self.dtype)
            pyro.sample("symbol" + suffix, dist.OneHotCategorical(probs=probs), obs=hot)


class Guide(Program):
    """The guide of a description that is not one of Pyro's."""

    def __init__(self, d: Description, constants: Constants, rows: Rows) -> None:
        super().__init__(d, constants, rows)
        size = d.global_width + d.layers * d.latent_width
        self.initial = {
            "shift": torch.full((size,), d.shift, dtype=self.dtype),
            "widen": torch.full((size,), d.widen, dtype=self.dtype),
        }
        if d.parameters != "pyro.param":
            for name, value in self.initial.items():
                setattr(self, name, nn.Parameter(value.clone()))
        whole = self.looked_up(self.read_own(), slice(None)) if d.scale != "subsample" else rows
        self.whole = self.tables(whole)

    def read_own(self) -> Rows:
        call = call_of(self.d, self.rows, self.c.noise)
        return self.read(call.args, call.kwargs)

    def own(self, name: str) -> Tensor:
        if self.d.parameters == "pyro.param":
            return pyro.param(name, lambda: self.initial[name].clone())
        return getattr(self, name)

    @torch.no_grad()
    def tables(self, rows: Rows) -> dict[str, Tensor]:
        """Compute what the guide needs for these examples, by the closed forms.

        Returns:
            The means, covariances and scales of (u, z1, z2) for each example and class,
            [n, classes, size] (covariances [n, classes, size, size]), and the class's
            probabilities, [n, classes].
        """
        d, n = self.d, len(rows.x)
        double = {f.name: getattr(rows, f.name) for f in fields(rows)}
        double = {
            k: v if v.dtype == torch.bool else v.double().nan_to_num() for k, v in double.items()
        }
        # A value outside the support is the model's to refuse.
        symbol = double["symbol"].clamp(0, SYMBOLS[d.emission] - 1).long()
        exact_rows = Rows(**{**double, "symbol": symbol})
        p = closed_forms.posterior(d, self.exact, exact_rows)
        mean, cov = p.mean, p.cov
        if not closed_forms.keeps_classes(d):
            mean, cov = closed_forms.moments(p)
        scale = cov.diagonal(dim1=-2, dim2=-1).sqrt() * closed_forms.covering(cov)[..., None]
        sd = cov.diagonal(dim1=-2, dim2=-1).sqrt()
        if d.has_one_evidence:  # the scalars of u and of one example, for each example
            width, whole = d.latent_width, torch.arange(mean.shape[-1])
            parts = [whole[: d.global_width].expand(n, -1)]
            parts += [
                block.reshape(n, width)
                for block in whole[d.global_width :].split(n * width)
                if len(block)
            ]
            index = torch.cat(parts, 1)
            mean, sd, scale = mean[0, :1, index], sd[0, :1, index], scale[0, :1, index]
            mean, sd, scale = (t.transpose(0, 1) for t in (mean, sd, scale))
            cov = cov[0, 0][index[:, :, None], index[:, None, :]][:, None]
        tables = {
            "mean": mean,
            "sd": sd,
            "scale": scale,
            "cov": cov,
            "probs": closed_forms.class_marginals(d, p).reshape(n, -1),
            "angle": torch.stack(closed_forms.angle_law(d, self.exact, exact_rows), -1),
        }
        return {name: t.to(self.dtype) for name, t in tables.items()}

    def forward(self, *args: Any, **kwargs: Any) -> None:
        d = self.d
        if d.parameters == "pyro.module":
            pyro.module("guide", self)
        rows = self.read(args, kwargs)
        name = {"same": d.plate, "unsized": "unsized", "another name": d.plate + "_"}
        if self.has_features_plate:
            self.features_plate = pyro.plate("features", d.features, dim=d.feature_dim)
        with self.contexts("guide"):
            u = self.sample_global() if d.global_width else None
            whole_rows = rows
            for part, suffix, contexts in self.plates(rows, name[d.guide_plate]):
                if d.tables == "arguments":
                    tables = self.tables(part)
                elif d.tables == "index":
                    i = int(suffix[1:]) if suffix else 0
                    index = slice(i, i + 1) if suffix else self.index
                    tables = {name: table[index] for name, table in self.whole.items()}
                else:
                    tables = self.whole
                with ExitStack() as stack:
                    for context in contexts:
                        stack.enter_context(context)
                    self.examples(part, whole_rows, suffix, u, tables)

    def sample_global(self) -> Tensor:
        d, g = self.d, self.d.global_width
        mean, sd, scale, cov = (self.whole[k][0, 0] for k in ("mean", "sd", "scale", "cov"))
        if d.guide == "full":
            return pyro.sample("u", dist.MultivariateNormal(mean[:g], cov[:g, :g]))
        loc = mean[:g] + self.own("shift")[:g] * sd[:g]
        if d.point == "global":
            return pyro.sample("u", dist.Delta(loc, event_dim=1))
        return pyro.sample(
            "u", dist.Normal(loc, scale[:g] * self.own("widen")[:g].exp()).to_event(1)
        )

    def examples(
        self, rows: Rows, whole: Rows, suffix: str, u: Tensor | None, tables: dict[str, Tensor]
    ) -> None:
        d = self.d
        with ExitStack() as stack:
            if d.mask in ("both sides", "guide only") and not d.in_features:
                stack.enter_context(poutine.mask(mask=self.lay(rows.drawn[:, 0])))
            kind, z = None, None
            if d.classes and d.enumerate != "model":
                infer = {"enumerate": "parallel"} if d.enumerate == "guide" else {}
                probs = self.lay(tables["probs"], 1)
                kind = pyro.sample("c" + suffix, dist.Categorical(probs=probs), infer=infer)
            with ExitStack() as inner:
                if d.in_features and d.mask in ("both sides", "guide only"):
                    mask = self.place(self.lay(rows.drawn, 1))
                    inner.enter_context(poutine.mask(mask=mask))
                if d.layers and d.guide == "full":
                    z = self.chain(suffix, u, kind, tables)
                else:
                    for layer in range(d.layers):
                        z = self.independent(layer, suffix, whole, kind, tables)
            if d.observation == "obs_mask":
                mean, noise = self.mean_of_x(u, kind, z), self.noise
                with (
                    self.features_plate,
                    poutine.mask(mask=~self.place(self.lay(rows.observed, 1))),
                ):
                    shape = self.place(self.lay(rows.x, 1)) * 0
                    fn = dist.Normal(self.place(mean) + shape, self.place(noise))
                    pyro.sample("x_unobserved" + suffix, fn)
            if d.circle:
                loc, concentration = tables["angle"].unbind(-1)
                pyro.sample("angle" + suffix, dist.VonMises(self.lay(loc), self.lay(concentration)))

    def independent(
        self, layer: int, suffix: str, whole: Rows, kind: Tensor | None, tables: dict[str, Tensor]
    ) -> Tensor:
        """Sample a layer from independent normals."""
        d, width = self.d, self.d.latent_width
        start = d.global_width + layer * width
        this = slice(start, start + width)
        if not closed_forms.keeps_classes(d):
            kind = None
        mean, sd, scale = (
            self.picked(self.lay(tables[k][..., this], 2), kind) for k in ("mean", "sd", "scale")
        )
        shift = self.own("shift")[this]
        if d.batch_statistics == "guide":
            shift = shift + 0.2 * batch_statistic(whole.x, whole.observed)
        loc, scale = mean + shift * sd, scale * self.own("widen")[this].exp()
        name, log = f"z{layer + 1}{suffix}", layer == 0 and d.positive
        if d.point == "first layer" and layer == 0:
            return self.delta(name, loc, torch.zeros_like(loc), log)
        if d.auxiliary is None or layer > 0:
            return self.sample_layer(name, loc, scale, log)
        how = {"infer": {"is_auxiliary": True}}
        zero, one = torch.zeros_like(loc), torch.ones_like(loc)
        noise = self.sample_layer(name + "_noise", zero, one, False, **how)
        if d.auxiliary == "unused":
            return self.sample_layer(name, loc, scale, log)
        if d.auxiliary == "drawn from":
            return self.sample_layer(name, loc + 0.6 * scale * noise, 0.8 * scale, log)
        if d.auxiliary == "two for one":
            more = self.sample_layer(name + "_more", zero, one, False, **how)
            noise = (noise + more) / 2**0.5
        z = loc + scale * noise
        if d.auxiliary == "folded":
            z = loc + scale * noise.abs()
        log_density = -scale.log() - (z if log else 0)
        return self.delta(name, z, 0 * z if d.auxiliary == "no jacobian" else log_density, log)

    def delta(self, name: str, z: Tensor, log_density: Tensor, log: bool) -> Tensor:
        """Sample a layer from points with these densities of their scalars."""
        d, value = self.d, z.exp() if log else z
        if d.in_features:
            with self.features_plate:
                pyro.sample(name, dist.Delta(self.place(value), self.place(log_density)))
        elif d.width == 0:
            pyro.sample(name, dist.Delta(value[..., 0], log_density[..., 0]))
        else:
            pyro.sample(name, dist.Delta(value, log_density.sum(-1), event_dim=1))
        return z

    def chain(
        self, suffix: str, u: Tensor | None, kind: Tensor | None, tables: dict[str, Tensor]
    ) -> Tensor:
        """Sample the layers from the exact posterior: each given u and the layer before."""
        d, width = self.d, self.d.latent_width
        mean = self.picked(self.lay(tables["mean"], 2), kind)
        cov = self.picked(self.lay(tables["cov"], 3), kind, 2)
        before = [] if u is None else [u.expand(*mean.shape[:-1], -1) if u.dim() == 1 else u]
        for layer in range(d.layers):
            start = d.global_width + layer * width
            this, past = slice(start, start + width), slice(0, start)
            loc, spread = mean[..., this], cov[..., this, this]
            if start:
                gain = torch.linalg.solve(cov[..., past, past], cov[..., past, this]).mT
                shape = torch.broadcast_shapes(*(t.shape[:-1] for t in before))
                given = torch.cat([t.expand(*shape, -1) for t in before], -1)
                loc = loc + (gain @ (given - mean[..., past])[..., None])[..., 0]
                spread = spread - gain @ cov[..., past, this]
            log = layer == 0 and d.positive
            name = f"z{layer + 1}{suffix}"
            if d.width == 0:
                z = self.sample_layer(name, loc, spread[..., 0].sqrt(), log)
            else:
                spread = (spread + spread.mT) / 2
                fn = dist.MultivariateNormal(loc, spread)
                if log:
                    fn = dist.TransformedDistribution(fn, [dist.transforms.ExpTransform()])
                z = pyro.sample(name, fn)
                z = z.log() if log else z
            before.append(z)
        return before[-1]


def make_pair(
    d: Description, constants: Constants, rows: Rows, given: Rows
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the model and the guide of a description.

    Args:
        d: the description.
        constants: its constants.
        rows: the data; an autoguide has seen these.
        given: the data that the programs are given, which may be outside the support.
    """
    model = Model(d, constants, given)
    if d.is_automatic:
        return model, automatic(d, constants, rows, model)
    return model, Guide(d, constants, given)
