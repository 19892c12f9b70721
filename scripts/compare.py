"""Compare runs on the same test images, by paired differences of their bounds on log p(x)."""

from pyro_vae import options
from pyro_vae.run import compare


def main() -> None:
    """Compare, and say what came of it."""
    with options.one_line_errors():
        print(compare(options.parse_comparison()))


if __name__ == "__main__":
    main()
