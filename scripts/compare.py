"""Compare runs on the same test examples: the same as `pyro-vae compare`."""

import sys

from pyro_vae.__main__ import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
