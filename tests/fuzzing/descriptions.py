"""Descriptions of random programs: which features a model, its guide and its data have.

A description is plain data. `numbers.py` makes the constants and the data of it, `closed_forms.py`
the exact answers, and `programs.py` the two Pyro programs. None of the three looks at another's
results, and no exact answer comes from a trace.

A description prints itself with the features that differ from the defaults. Pasted into Python, it
gives the same program again.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from hypothesis import strategies as st

AUTOGUIDES = (
    "AutoNormal",
    "AutoDiagonalNormal",
    "AutoMultivariateNormal",
    "AutoLowRankMultivariateNormal",
    "AutoIAFNormal",
)
WRONG_AUXILIARIES = ("no jacobian", "unused", "two for one", "drawn from", "folded")


@dataclass(frozen=True, repr=False)
class Description:
    """The features of a program.

    Attributes:
        seed: the seed of all constants and of the data.
        examples: the number of examples.
        dtype: `float64`, `float32`, `bfloat16 data` (parameters in float32), or `bfloat16`.
        global_width: the size of a latent vector outside the plate; 0 for none.
        classes: the number of values of a discrete latent variable of each example; 0 for none.
        layers: the number of normal latent variables of each example, each the parent of the next.
        width: the size of these variables; 0 for scalars without an event dimension.
        positive: whether the first layer is log-normal, and the model takes its logarithm.
        in_features: whether the layers are scalars in the plate of the features.
        circle: whether each example has a latent von Mises angle, which is observed with von Mises
            noise (`angle`), or with normal noise, as if it were on a line (`line`).
        features: the number of normal values that are observed for each example.
        observation: how they are observed: at one site with an `event` dimension, in an inner
            `plate`, at several `sites`, in a `sequential plate`, by `factor`, or with `obs_mask`.
        emission: what is observed of the class beside its normal values: a `coin` or `words`.
        parameters: whether parameters belong to a `module`, to a `pyro.module`, or are
            `pyro.param`s.
        plate: the name of the data plate.
        dim: its dimension.
        feature_dim: the dimension of the features' plate.
        sequential: whether the data plate is a Python loop.
        arguments: `positional`, `keyword`, `dict`, or `none` (the data are closed over).
        covariates: an `argument`, or a table that is looked up by the plate's `index`; `one` is a
            table that is zero but for one example.
        noise_argument: whether the scales of x are an argument, the `first` or the `last`.
        batch_statistics: the program, `model` or `guide`, that uses the mean of its batch.
        position: what the model does that counts dimensions or sizes from the left.
        mask: what is masked: the `observed` sites, the latent and observed sites on `both sides`,
            or the latent sites in the `model only` or in the `guide only`.
        mask_from: where the mask comes from: an argument, `lengths`, or `nans` in the data.
        scale: what `poutine.scale` is on: `both sides`, the `model only`, the `observed` sites; or
            `subsample`, plates that hold a random part; or `sized`, plates of a larger size.
        guide: `mean field`, `full` (the exact posterior, if there is no shift and no widening), or
            the name of an autoguide.
        auxiliary: whether draws are functions of auxiliary sites: `right`, or what is wrong.
        point: the latent variable that has a point: `first layer`, `global`, `all` (AutoDelta), or
            `AutoGuideList`, where an AutoDelta stands beside an AutoNormal.
        guide_plate: the guide's plate: the `same`, `unsized`, or of `another name`.
        tables: where the guide has its numbers from: `arguments`, tables looked up by `index`, or
            `whole` tables.
        enumerate: the program in which the class is marked for enumeration.
        shift: how far the guide's means are from the posterior's, in standard deviations.
        widen: the logarithm of the guide's scales relative to the posterior's.
        outside: what is outside the support in the last example: a `coin` of 3, or a `nan`.
        batch_size: the batch size that is asked for; None for the default.
        named: whether the data plate is named in the call.
    """

    seed: int = 0
    examples: int = 3
    dtype: str = "float64"
    global_width: int = 0
    classes: int = 0
    layers: int = 1
    width: int = 1
    positive: bool = False
    in_features: bool = False
    circle: str | None = None
    features: int = 2
    observation: str = "event"
    emission: str | None = None
    parameters: str = "module"
    plate: str = "data"
    dim: int = -1
    feature_dim: int = -2
    sequential: bool = False
    arguments: str = "positional"
    covariates: str | None = None
    noise_argument: str | None = None
    batch_statistics: str | None = None
    position: str | None = None
    mask: str | None = None
    mask_from: str = "argument"
    scale: str | None = None
    guide: str = "mean field"
    auxiliary: str | None = None
    point: str | None = None
    guide_plate: str = "same"
    tables: str = "arguments"
    enumerate: str | None = None
    shift: float = 0.0
    widen: float = 0.0
    outside: str | None = None
    batch_size: int | None = None
    named: bool = False

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if getattr(self, field.name) != field.default
        ]
        return f"Description({', '.join(shown)})"

    @property
    def latent_width(self) -> int:
        """The number of scalars in each layer of each example."""
        return self.features if self.in_features else max(self.width, 1)

    @property
    def is_automatic(self) -> bool:
        """Whether one of Pyro's autoguides is the guide."""
        return self.guide.startswith("Auto") or self.point in ("all", "AutoGuideList")

    @property
    def has_one_evidence(self) -> bool:
        """Whether there is only the evidence of the whole data set."""
        return self.global_width > 0

    @property
    def must_refuse(self) -> str | None:
        """Why no bound can be right; None if there is a right number.

        Wrong auxiliary sites and a mask in the model alone are not here: a library may find out
        the density that they leave out.
        """
        if self.point:
            return "a point has no density"
        if self.mask == "guide only":
            return "latent sites are masked in the guide only"
        if self.outside:
            return "data are outside the support"
        if self.auxiliary == "folded":
            return "two values of the noise give the same value"
        return None

    @property
    def has_no_right_number(self) -> str | None:
        """Why IWAE and AIS have no right number; None if they have one."""
        if self.scale == "subsample":
            return "each run takes other examples"
        return None

    @property
    def may_refuse(self) -> str | None:
        """Why a refusal is as good as a number, although Pyro's own ELBO takes the program."""
        if self.must_refuse or self.has_no_right_number:
            return "no right number"
        if self.auxiliary in WRONG_AUXILIARIES:
            return "the guide's density is not that of its values"
        if self.masks_the_model_alone:
            return "a mask on one side"
        if self.scale and self.scale != "sized":
            return "a scale, and no bound"
        if self.dtype == "bfloat16":
            return "half precision"
        if self.position and self.enumerate:
            return "dimensions from the left, and enumeration"
        if self.in_features and not self.named and self.has_ambiguous_plates:
            return "two plates that may be that of the examples"
        return None

    @property
    def masks_the_model_alone(self) -> bool:
        """Whether the model has a mask that the guide does not have; autoguides have none."""
        hidden = self.observation == "obs_mask" or self.mask == "both sides"
        return self.mask == "model only" or (self.is_automatic and hidden)

    @property
    def has_ambiguous_plates(self) -> bool:
        """Whether the sizes of the arguments do not tell the plates of all sites apart."""
        same = self.examples == self.features or self.guide_plate != "same"
        return same or self.arguments == "none" or self.noise_argument is not None

    @property
    def asks_for_parts_of_one_evidence(self) -> bool:
        """Whether the call names a plate or a batch size, and no evidence is that of an example."""
        joint = self.is_automatic and self.guide != "AutoNormal"
        one = self.has_one_evidence or joint or self.guide_plate == "another name"
        return one and (self.named or self.batch_size is not None)

    @property
    def needs_the_whole(self) -> bool:
        """Whether examples in a batch are other than among all: a batch size may be refused."""
        by_index = self.covariates in ("index", "one") or self.tables != "arguments"
        return by_index or self.batch_statistics is not None or self.position == "len"

    @property
    def kinds(self) -> list[str]:
        """The names by which results are counted."""
        shown = [
            f"{name}: {value}" if isinstance(value, str) else name
            for name, value in vars(self).items()
            if name not in ("seed", "examples", "shift", "widen", "features", "width", "layers")
            and value != getattr(Description, name)
        ]
        return shown or ["plain"]


def consistent(d: Description) -> Description:
    """Return the description without features that do not go together; the later ones give way."""
    if d.layers == 0:
        d = replace(d, positive=False, in_features=False, position=None)
        if not d.classes and not d.global_width and not d.circle:
            d = replace(d, layers=1)
    if d.classes == 0:
        d = replace(d, emission=None, enumerate=None)
    if d.position == "softmax":
        d = replace(d, position="softmax" if d.emission == "words" else None)
    if d.global_width:  # the evidence of N examples takes a sum over classes^N
        d = replace(d, examples=min(d.examples, 3), classes=min(d.classes, 2), circle=None)
    if d.observation in ("plate", "obs_mask") or d.in_features:
        d = replace(d, observation=d.observation if d.observation == "obs_mask" else "plate")
        if d.dim == d.feature_dim:
            d = replace(d, feature_dim=-1 if d.dim != -1 else -2)
    if d.in_features:
        d = replace(d, width=0, position=None, global_width=0)
    if d.position in ("view", "cumsum", "centre"):
        d = replace(d, width=max(d.width, 2), dim=-1, layers=1)
    if d.position:
        d = replace(d, dim=-1, observation="event", in_features=False, sequential=False)
    if d.sequential:
        d = replace(
            d,
            dim=-1,
            observation="event",
            in_features=False,
            mask=None,
            scale=None,
            tables="arguments" if d.tables == "whole" else d.tables,
            guide_plate="same",
        )
    if d.observation == "obs_mask":
        d = replace(d, mask="observed", circle=None)
    if d.mask and d.mask_from == "lengths":
        d = replace(d, observation=d.observation if d.observation != "event" else "sites")
    if d.mask in ("model only", "guide only", "both sides") and d.layers == 0:
        d = replace(d, mask="observed")
    if d.mask in ("model only", "guide only", "both sides"):
        d = replace(d, classes=0, emission=None, enumerate=None, global_width=0, circle=None)
    if d.is_automatic:
        keeps_classes = d.enumerate == "model" and d.layers > 0
        d = replace(
            d,
            classes=d.classes if keeps_classes else 0,
            emission=d.emission if keeps_classes else None,
            enumerate=d.enumerate if keeps_classes else None,
            position=None if d.position == "softmax" and not keeps_classes else d.position,
            circle=None,
            auxiliary=None,
            tables="arguments",
            guide_plate="same",
            sequential=False,
            batch_statistics=None if d.batch_statistics == "guide" else d.batch_statistics,
            mask=None if d.mask in ("model only", "guide only") else d.mask,
            scale=None if d.scale in ("both sides", "subsample", "sized") else d.scale,
            layers=d.layers if d.global_width else max(d.layers, 1),
        )
    if d.point in ("first layer", "AutoGuideList") and (d.layers == 0 or d.mask == "both sides"):
        d = replace(d, point=None)
    if d.point == "AutoGuideList" and d.layers + d.global_width < 2:
        d = replace(d, layers=2)
    if d.point == "global" and not d.global_width:
        d = replace(d, point=None)
    if d.point:
        d = replace(d, guide="mean field", auxiliary=None)
    if d.guide == "AutoIAFNormal":
        d = replace(d, dtype="float32")
    if d.guide != "full":  # independent normals cover a few correlated ones only
        d = replace(d, width=min(d.width, 2 if d.layers < 2 else 1))
    if d.auxiliary and d.layers == 0:
        d = replace(d, auxiliary=None)
    if d.auxiliary:
        d = replace(d, guide="mean field")
    if d.guide == "full" and (d.in_features or (d.has_one_evidence and d.classes)):
        d = replace(d, guide="mean field")
    if d.enumerate == "model" and d.guide == "full":
        d = replace(d, guide="mean field")
    if d.has_one_evidence and d.tables == "arguments":
        d = replace(d, tables="whole")
    if d.sequential and d.tables == "whole":
        d = replace(d, tables="index")
    if d.batch_statistics == "guide" and d.tables != "arguments":
        d = replace(d, batch_statistics=None)
    if d.arguments == "none" or d.tables == "whole":
        d = replace(d, batch_statistics=None)
    if d.outside == "coin" and (d.emission != "coin" or (d.is_automatic and d.arguments == "none")):
        d = replace(d, outside=None)
    if d.outside == "nan" and (d.mask or (d.is_automatic and d.arguments == "none")):
        d = replace(d, outside=None)
    if d.scale == "subsample":
        d = replace(d, outside=None, batch_statistics=None, arguments="positional", circle=None)
        if d.mask or d.global_width or d.examples < 2 or d.guide_plate != "same":
            d = replace(d, scale=None)
    if d.scale and d.point:
        d = replace(d, scale=None)
    if d.mask is None:
        d = replace(d, mask_from="argument")
    if d.observation not in ("plate", "obs_mask") and not d.in_features:
        d = replace(d, feature_dim=-2)
    if d.arguments == "none":
        d = replace(d, batch_size=None)
    if d.arguments == "none" or d.is_automatic or d.outside:
        d = replace(d, noise_argument=None)
    if d.is_automatic and d.examples > 5:
        d = replace(d, examples=5)
    if d.dtype.startswith("bfloat16"):
        d = replace(d, mask_from="argument")
        if d.guide == "full" or d.is_automatic:
            d = replace(d, dtype="float32")
    return d


def random_description(random: Random) -> Description:
    """Draw a description: a mostly plain program with a few uncommon features."""

    def rarely(usual: Any, *others: Any, once_in: int = 6) -> Any:
        return random.choice(others) if random.randrange(once_in) == 0 else usual

    classes = rarely(0, 2, 3, once_in=3)
    enumerate_in = rarely(None, "model", "guide", once_in=2) if classes else None
    emission = rarely(None, "coin", "words", once_in=2) if classes else None
    position = rarely(None, "view", "cumsum", "centre", "len", "softmax")
    if position == "softmax":
        classes, emission = max(classes, 2), "words"
    guide = random.choice(("mean field", "mean field", "full", "automatic"))
    if guide == "automatic":
        guide = random.choice(AUTOGUIDES)
        enumerate_in = "model" if classes else None
    exact = random.randrange(3) == 0
    outside = rarely(None, "coin", "nan", once_in=10)
    if outside == "coin":
        classes, emission = max(classes, 2), "coin"
    return consistent(
        Description(
            seed=random.randrange(10_000),
            examples=rarely(random.randint(1, 5), 9, once_in=8),
            dtype=rarely("float64", "float32", "bfloat16 data", "bfloat16", once_in=4),
            global_width=rarely(0, 1, 2, once_in=5),
            classes=classes,
            layers=random.choice((1, 1, 1, 2, 0)),
            width=random.randint(0, 3),
            positive=rarely(False, True),
            in_features=rarely(False, True),
            circle=rarely(None, "angle", "line", once_in=8),
            features=random.randint(1, 3),
            observation=random.choice(
                ("event", "event", "plate", "sites", "sequential plate", "factor", "obs_mask")
            ),
            emission=emission,
            parameters=rarely("module", "pyro.module", "pyro.param", once_in=2),
            plate=random.choice(("data", "batch", "i")),
            dim=rarely(-1, -2, -3, once_in=3),
            feature_dim=random.choice((-1, -2, -3)),
            sequential=rarely(False, True, once_in=15),
            arguments=random.choice(("positional", "positional", "keyword", "dict", "none")),
            covariates=rarely(None, "argument", "index", "index", "one", once_in=2),
            noise_argument=rarely(None, "first", "last"),
            batch_statistics=rarely(None, "model", "guide"),
            position=position,
            mask=rarely(None, "observed", "both sides", "model only", "guide only", once_in=4),
            mask_from=random.choice(("argument", "lengths", "nans")),
            scale=rarely(None, "both sides", "model only", "observed", "subsample", "sized"),
            guide=guide,
            auxiliary=rarely(None, "right", *WRONG_AUXILIARIES),
            point=rarely(None, "first layer", "global", "all", "AutoGuideList", once_in=8),
            guide_plate=rarely("same", "unsized", "another name"),
            tables=rarely("arguments", "index", "whole", once_in=4),
            enumerate=enumerate_in,
            shift=0.0 if exact else 0.3,
            widen=0.0 if exact else random.choice((0.15, 0.3)),
            outside=outside,
            batch_size=rarely(None, 1, 2, once_in=2),
            named=rarely(False, True, once_in=4),
        )
    )


def descriptions() -> st.SearchStrategy[Description]:
    """The strategy of `random_description`; hypothesis makes failing descriptions simpler."""
    return st.randoms(use_true_random=False).map(random_description)


def simplest(d: Description, fails: Callable[[Description], bool]) -> Description:
    """Return a description that fails, too, and has fewer features."""
    for _ in range(3):
        before = d
        for field in fields(Description):
            values = [field.default] if field.name != "examples" else [1, 2, 3]
            for value in values:
                simpler = consistent(replace(d, **{field.name: value}))
                if (
                    repr(simpler) != repr(d)
                    and len(repr(simpler)) <= len(repr(d))
                    and fails(simpler)
                ):
                    d = simpler
                    break
        if repr(d) == repr(before):
            break
    return d
