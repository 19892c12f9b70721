"""Train a VAE by stochastic variational inference: the same as `pyro-vae train`."""

import sys

from pyro_vae.__main__ import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
