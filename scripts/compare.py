"""Compare runs on the same test examples, by paired differences of their bounds on log p(x)."""

from pathlib import Path

from pyro_vae.runs import command_line
from pyro_vae.runs.comparison import compare_codes, compare_runs


def main() -> None:
    """Compare bounds and latent codes, print both tables, and draw a figure."""
    with command_line.one_line_errors():
        options = command_line.parse_comparison()
    with command_line.one_line_errors(options):
        comparison, codes = compare_runs(options.runs), compare_codes(options.runs)
        print(f"{comparison}\n\n{codes}")
        if options.figure:
            comparison.draw(Path(options.figure))


if __name__ == "__main__":
    main()
