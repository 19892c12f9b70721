"""Compare runs on the same test images, by paired differences of their bounds on log p(x)."""

from pyro_vae import options
from pyro_vae.comparison import compare_runs


def main() -> None:
    """Compare, and say what came of it."""
    with options.one_line_errors():
        print(compare_runs(options.parse_comparison()))


if __name__ == "__main__":
    main()
