"""Bound log p(x) anew for a run that was trained, on its held-out data."""

from pyro_vae.runs import evaluation, memory, options
from pyro_vae.runs.run import Run


def main() -> None:
    """Evaluate, write, and say what came of it."""
    memory.keep_freed()
    with options.one_line_errors("- the same command goes on where it stopped"):
        chosen = options.parse_evaluation()
        plan = options.plan(chosen)
        run = Run.open(
            chosen.run,
            data=chosen.data,
            data_root=chosen.data_root,
            device=chosen.device,
            num_samples=chosen.num_samples,
            num_examples=chosen.num_examples,
        )
        found = evaluation.evaluate(run, plan)
        evaluation.write(run, found)
        print(evaluation.report(run, found))


if __name__ == "__main__":
    main()
