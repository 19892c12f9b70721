"""Runs: folders with a configuration, a trained model, and the results of its evaluation."""

from pyro_vae.runs.run import Run

__all__ = ["Run"]
