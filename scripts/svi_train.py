"""Train a VAE by stochastic variational inference, and bound log p(x) on held-out data."""

import datetime
import sys
from pathlib import Path

from pyro_vae import training
from pyro_vae.runs import evaluation, memory, options
from pyro_vae.runs.run import Run


def main() -> None:
    """Train, evaluate, draw, and say what came of it."""
    memory.keep_freed()
    with options.one_line_errors():
        chosen = options.parse()
        started = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        name = Path(chosen.data).stem
        folder = Path(chosen.resume or chosen.out or f"runs/{name}-{started}")
        run = Run(folder, chosen)
        if chosen.resume:
            run.resume()
        else:
            run.create()
        print(run, file=sys.stderr)

    with options.one_line_errors(f"- go on with: python scripts/svi_train.py --resume {folder}"):
        history = training.fit(
            run.engine,
            run.train,
            run.observe,
            epochs=run.options.epochs,
            batch_size=run.options.batch_size,
            seed=run.options.seed,
            callbacks=run.callbacks(),
        )
        run.load_best()
        found = evaluation.evaluate(run)
        evaluation.write(run, found)
        run.draw_model(history)
        print(evaluation.report(run, found))


if __name__ == "__main__":
    main()
