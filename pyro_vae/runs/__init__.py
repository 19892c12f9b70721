"""Runs: folders with a configuration, a trained model, and what was measured of it."""
