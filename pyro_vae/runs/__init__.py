"""Runs: folders with a configuration, a trained model, and the results of its evaluation."""
