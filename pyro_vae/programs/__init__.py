"""Pyro programs: how their traces are read, where their noise comes from, how they are compiled."""
