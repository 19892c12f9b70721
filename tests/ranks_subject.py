"""What test_ranks.py runs in one process and in two: trainings, and bounds.

`python ranks_subject.py FOLDER` writes what it finds to FOLDER/0.pt, FOLDER/1.pt of each process.
With a second argument it trains on and on, with a checkpoint in the folder.
"""

import datetime
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pyro_vae import VAE, bounds, likelihoods, posteriors, priors
from pyro_vae.kinds import Binary
from pyro_vae.networks import MLP, Linear
from pyro_vae.objectives import ELBO, IWAE, Objective, TargetKL
from pyro_vae.programs import ranks
from pyro_vae.runs import command_line, joining
from pyro_vae.runs.applying.seeded_batches import BATCH, in_batches
from pyro_vae.training import (
    EMA,
    BatchDoubling,
    Checkpoint,
    CompiledEngine,
    EagerEngine,
    EarlyStopping,
    GuideFirst,
    Validate,
    fit,
)

# 95 examples in batches of 31: the shares are not equal, and the last batch has two examples.
IMAGES = torch.randint(
    256, (95, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
VALIDATION = Binary().observe_once(IMAGES[:20], 0)
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "ELBO": lambda: ELBO(warmup=2.5),
    "IWAE": lambda: IWAE(3, "dreg"),
    "TargetKL": lambda: TargetKL(1.0),
}


def make(objective: Objective, kind: type[EagerEngine], dropout: float = 0.0) -> EagerEngine:
    torch.manual_seed(2)
    vae = VAE(
        priors.StandardNormal(2),
        likelihoods.Bernoulli(2, [4, 3], Linear),
        posteriors.Normal([4, 3], 2, partial(MLP, widths=[8], dropout=dropout)),
    )
    return kind(vae.model, vae.guide, objective, lr=1e-2, clip_norm=20.0)


def show(images: Tensor) -> Tensor:
    return Binary().observe(images)


def trained(engine: EagerEngine, *callbacks: Any, epochs: int = 3) -> dict[str, Any]:
    """Return the history and the parameters at the end."""
    history = fit(
        engine,
        IMAGES,
        show,
        epochs=epochs,
        batch_size=31,
        callbacks=[Validate(VALIDATION), *callbacks],
        progress=False,
    )
    rows = [[value for value in row.values() if value is not None] for row in history]
    parameters = [*engine.model.parameters(), *engine.guide.parameters()]
    return {"history": rows, "parameters": [p.detach().clone() for p in parameters]}


def trainings(folder: Path) -> dict[str, Any]:
    found = {name: trained(make(of(), EagerEngine)) for name, of in OBJECTIVES.items()}
    found["dropout"] = trained(make(ELBO(), EagerEngine, dropout=0.3))
    found["callbacks"] = trained(
        make(ELBO(), EagerEngine),
        BatchDoubling(1),
        EMA(0.9),
        GuideFirst(VALIDATION, 25),
        EarlyStopping(1),
    )
    # Compiling takes long: the other process, and a single one, take the same steps eagerly.
    is_compiled = ranks.size() > 1 and ranks.is_first()
    found["compiled"] = trained(make(ELBO(), CompiledEngine if is_compiled else EagerEngine))
    for epochs in (1, 3):
        engine = make(OBJECTIVES["TargetKL"](), EagerEngine)
        found["resumed"] = trained(engine, EMA(0.9), Checkpoint(folder), epochs=epochs)
    found["not interrupted"] = trained(make(OBJECTIVES["TargetKL"](), EagerEngine), EMA(0.9))
    return found


def evaluations(keep: Path) -> dict[str, Tensor]:
    """Return bounds of 95 examples in batches of 10, and codes of two batches of rows."""
    vae = make(ELBO(), EagerEngine)
    x = show(IMAGES)
    vae.model.eval()
    vae.guide.eval()
    programs = vae.model, vae.guide, x
    settings = bounds.Settings(temperatures=5, chains=3)
    with ranks.together():
        importance = bounds.evaluate(*programs, 20, batch_size=10, seed=1, keep=keep)
        annealed = bounds.anneal(*programs, settings, batch_size=10, seed=1)
        codes = in_batches(vae.guide, x.repeat(BATCH // 60, 1, 1), seed=3)
    return {
        "elbo": importance.elbo.values,
        "iwae": importance.bound.values,
        "khat": importance.khat,
        "log_w": annealed.log_w,
        "codes": torch.cat(codes),
    }


def main(folder: Path) -> None:
    torch.manual_seed(5)
    if "RANK" in os.environ:
        dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=180))
    found = {"bounds": evaluations(folder / "kept.pt"), "trainings": trainings(folder)}
    torch.save(found, folder / f"{ranks.number()}.pt")
    if ranks.size() > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        with command_line.one_line_errors(), joining.joined():
            trained(make(ELBO(), EagerEngine), Checkpoint(Path(sys.argv[1])), epochs=10**6)
    main(Path(sys.argv[1]))
