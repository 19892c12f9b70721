"""The noise of single rows: a row has the same noise alone, and among others in any order."""

import torch
from torch import Tensor

from pyro_vae.data import row_hashes
from pyro_vae.kinds import Binarization, Kind
from pyro_vae.programs.random_streams import stream_seed


def shown_by_row(kind: Kind, stored: Tensor, method: Binarization, seed: int) -> Tensor:
    """Return x for stored examples, with noise that depends on each row and the seed alone.

    Args:
        kind: what they are.
        stored: stored examples, shape [N, *shape].
        method: how grey pixels become binary ones.
        seed: the seed of the noise.
    """

    def shown(rows: Tensor, noise: int) -> Tensor:
        return kind.observe_once(kind.binarize(rows, method, noise), noise)

    found, other = shown(stored, 0), shown(stored, 1)
    if ((found == other) | (found.isnan() & other.isnan())).all():  # there is no noise
        return found
    hashes = row_hashes(stored).tolist()
    seeds = [stream_seed(seed, each) for each in hashes]
    rows = stored.split(1)
    return torch.cat([shown(row, noise) for row, noise in zip(rows, seeds, strict=True)])
