"""Compare runs on the same test images, by paired differences of their bounds on log p(x)."""

from pyro_vae import options
from pyro_vae.comparison import compare_codes, compare_runs


def main() -> None:
    """Compare, and say what came of it."""
    with options.one_line_errors():
        folders = options.parse_comparison()
        tables = compare_runs(folders), compare_codes(folders)
        print("\n\n".join(tables))


if __name__ == "__main__":
    main()
