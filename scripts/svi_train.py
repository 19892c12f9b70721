"""Train a VAE by stochastic variational inference: the same as `pyro-vae train`."""

from pyro_vae.runs.commands import train

if __name__ == "__main__":
    train()
