"""Evaluate a trained run again: the same as `pyro-vae evaluate`."""

import sys

from pyro_vae.__main__ import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
