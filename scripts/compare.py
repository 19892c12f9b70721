"""Compare runs on the same test images, by paired differences of their bounds on log p(x)."""

from pathlib import Path

from pyro_vae.runs import options
from pyro_vae.runs.comparison import compare_codes, compare_runs


def main() -> None:
    """Compare, and say what came of it."""
    with options.one_line_errors():
        chosen = options.parse_comparison()
        found, codes = compare_runs(chosen.runs), compare_codes(chosen.runs)
        print(f"{found}\n\n{codes}")
        if chosen.figure:
            found.draw(Path(chosen.figure))


if __name__ == "__main__":
    main()
