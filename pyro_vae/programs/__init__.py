"""Pyro programs: looked at, run, and compiled."""
