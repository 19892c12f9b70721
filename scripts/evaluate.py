"""Evaluate a trained run again: bounds on log p(x) of its test examples, and diagnostics."""

from pyro_vae.runs import command_line, evaluation, files, malloc, report
from pyro_vae.runs.run import Run


def main() -> None:
    """Evaluate, write the files, and print the results."""
    malloc.keep_freed()
    with command_line.one_line_errors():
        options = command_line.parse_evaluation()
    with command_line.one_line_errors(options, "- the same command continues where it stopped"):
        plan = command_line.make_plan(options)
        run = Run.open(
            options.run,
            trust_code=options.trust_code,
            data=options.data,
            data_root=options.data_root,
            device=options.device,
            num_samples=options.num_samples,
            num_examples=options.num_examples,
        )
        result = evaluation.evaluate(run, plan)
        files.write_evaluation(run, result)
        print(report.report(run, result))


if __name__ == "__main__":
    main()
