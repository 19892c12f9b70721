"""Evaluate a trained run again: the same as `pyro-vae evaluate`."""

from pyro_vae.runs.commands import evaluate

if __name__ == "__main__":
    evaluate()
