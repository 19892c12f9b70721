"""Compare runs on the same test examples: the same as `pyro-vae compare`."""

from pyro_vae.runs.commands import compare

if __name__ == "__main__":
    compare()
