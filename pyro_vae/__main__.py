"""`python -m pyro_vae` is the command `pyro-vae`."""

import os
import sys

from pyro_vae.runs.commands import main

if __name__ == "__main__":
    # Python puts the current folder first on the path. Modules in it may be a stranger's.
    if not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]:
        del sys.path[0]
    main()
