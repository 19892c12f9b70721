"""Bound log p(x) anew for a run that was trained, on its held-out data."""

from pyro_vae import options
from pyro_vae.run import Run


def main() -> None:
    """Evaluate, write, and say what came of it."""
    with options.one_line_errors():
        chosen = options.parse_evaluation()
        run = Run.open(
            chosen.run,
            data=chosen.data,
            data_root=chosen.data_root,
            device=chosen.device,
            num_samples=chosen.num_samples,
            num_examples=chosen.num_examples,
        )
        refined = run.evaluate(chosen.refine) if chosen.refine else None
        bounds = run.evaluate()
        run.write_bounds(bounds, refined)
        run.draw_bounds(bounds)
        print(run.report(bounds, refined))
        print(run.diagnose())


if __name__ == "__main__":
    main()
