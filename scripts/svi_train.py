"""Train a VAE by stochastic variational inference, and bound log p(x) on held-out data."""

import datetime
import sys
from pathlib import Path

from pyro_vae.runs import command_line, evaluation, files, malloc, report
from pyro_vae.runs.run import Run


def main() -> None:
    """Train, evaluate, draw figures, and print the results."""
    malloc.keep_freed()
    with command_line.one_line_errors():
        options = command_line.parse_training()
    with command_line.one_line_errors(options):
        started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = Path(options.data).stem
        folder = Path(options.resume or options.out or f"runs/{name}-{started}")
        run = Run.build(folder, options)
        if options.resume:
            run.resume()
        else:
            run.create()
        print(run, file=sys.stderr)

    to_continue = f"- continue with: python scripts/svi_train.py --resume {folder}"
    with command_line.one_line_errors(options, to_continue):
        history = run.fit()
        result = evaluation.evaluate(run)
        files.write_evaluation(run, result)
        files.write_training(run, history)
        print(report.report(run, result))


if __name__ == "__main__":
    main()
