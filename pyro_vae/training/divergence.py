"""Why a loss is not finite: which parameter, or which site of the programs and which examples."""

from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_vae.programs.parameters import OwnParameters
from pyro_vae.training.engine import Data, as_arguments

MOST = 5  # examples that are named


def explain(model: nn.Module, guide: nn.Module, x: Data, numbers: Tensor, of: str) -> str:
    """Run the programs once more, and say where their numbers stop being finite.

    Args:
        model: a Pyro program.
        guide: its guide.
        x: a batch of examples as the likelihood sees them. What is drawn comes from the global
            random state.
        numbers: the numbers of these examples in their set, shape [batch].
        of: the name of the set, such as "training".

    Returns:
        Half a sentence; "" if nothing was found.
    """
    for program, module in (("model", model), ("guide", guide)):
        for name, parameter in module.named_parameters():
            if not parameter.isfinite().all():
                return f"the parameter {name} of the {program} is not finite since an earlier step"
    args, kwargs = as_arguments(x)
    # Pyro's checks would refuse the values that are looked for.
    with OwnParameters(model, guide).scope(), pyro.validation_enabled(False), torch.no_grad():
        try:
            of_guide = poutine.trace(guide).get_trace(*args, **kwargs)
            replayed = poutine.replay(model, trace=of_guide)
            of_model = poutine.trace(replayed).get_trace(*args, **kwargs)
            sites = [*_sites("q", of_guide), *_sites("p", of_model)]
        except Exception as error:  # programs raise what they like where numbers are not finite
            return f"the programs raise {type(error).__name__}"
    for name, value in sites:
        wrong = ~value.isfinite()
        if wrong.any():
            examples = numbers[_by_example(wrong, len(numbers)).to(numbers.device)].tolist()
            return f"{name} is not finite{_in_words(examples, len(numbers), of)}"
    return ""


def _sites(letter: str, trace: Any) -> list[tuple[str, Tensor]]:
    """Return what each site of a trace draws, and its log-probability, in order."""
    found: list[tuple[str, Tensor]] = []
    for name, site in trace.nodes.items():
        if site["type"] != "sample" or not isinstance(site["value"], Tensor):
            continue
        if not site["is_observed"]:
            found.append((f"the draw of the site {name}", site["value"]))
        found.append((f"log {letter} of the site {name}", site["fn"].log_prob(site["value"])))
    return found


def _by_example(wrong: Tensor, count: int) -> Tensor:
    """Return for which examples something is wrong; all, if no dimension has their number.

    Args:
        wrong: where it is, [..., batch, ...].
        count: the number of examples.
    """
    dims = [dim for dim, size in enumerate(wrong.shape) if size == count]
    if not dims:
        return torch.ones(count, dtype=torch.bool)
    return wrong.movedim(dims[0], 0).reshape(count, -1).any(1)


def _in_words(examples: list[int], count: int, of: str) -> str:
    if len(examples) == count:
        return f" for all {count} examples of the batch"
    named = ", ".join(map(str, sorted(examples)[:MOST])) + ", .." * (len(examples) > MOST)
    return f" for {len(examples)} of {count} examples ({of} examples {named}, counted from 0)"
