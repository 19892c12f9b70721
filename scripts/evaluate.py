"""Bound log p(x) anew for a run that was trained, on its held-out data."""

from pathlib import Path

from pyro_vae import options
from pyro_vae.run import Run


def main() -> None:
    """Evaluate, write, and say what came of it."""
    with options.one_line_errors():
        chosen = options.parse_evaluation()
        run = Run.open(
            Path(chosen.run),
            num_samples=chosen.num_samples,
            num_examples=chosen.num_examples,
            device=chosen.device,
        )
        bounds = run.evaluate()
        run.write_bounds(bounds)
    print(run.report(bounds))


if __name__ == "__main__":
    main()
