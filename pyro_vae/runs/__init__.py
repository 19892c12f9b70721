"""Runs: folders with a configuration, a trained model, and the results of its evaluation.

In the order of the work:

| file | content |
|---|---|
| `commands` | the command `pyro-vae` and its verbs |
| `verbs_on_rows` | its verbs that read rows of a file: score, encode, reconstruct, impute |
| `verbs_on_models` | its verbs that read a model alone: sample, export |
| `work_on_files` | what these verbs share: options, how they start and stop, what they say |
| `command_line` | the command lines of the verbs, and errors that are one line |
| `joining` | processes that torchrun starts: they join a group, and the first one speaks |
| `speaking` | what commands say beside results: notes, progress, `--quiet` |
| `options` | `Options`: the options of a run, which `config.yaml` holds |
| `checked_fields` | options whose values are checked |
| `training_help` | the help of `pyro-vae train`, and what is misspelt, which need no PyTorch |
| `part_names` | the names of the classes that options take, without importing them |
| `spelling` | what a user may have meant by a name that does not exist |
| `parser`, `config` | options as text: parsed, read from `config.yaml`, and written to it |
| `trust`, `bounded_yaml` | what a file of options may say: it executes nothing, and is small |
| `run` | `Run`: what the options describe, built: data, VAE, engine |
| `trainer` | how a run is trained: its engine and its callbacks |
| `run_data` | the data of a run: loaded, split, checked against its fingerprint, and shown |
| `conditions`, `hidden_entries` | columns that are given; values that are hidden, to be imputed |
| `parts_of_vae` | the VAE, from the parts that the options name |
| `data_form` | what a run remembers of its data, in `data.pt` |
| `validation_scores` | log p(x) of validation examples, in `scores.pt` |
| `plan` | what an evaluation measures |
| `evaluation`, `refined` | what is measured of a run: bounds, and all else |
| `model_diagnostics` | what is measured beside bounds: checks, imputation, classes, the code |
| `foreign_programs` | bounds of anybody's Pyro programs, from the command line |
| `report` | the results as text |
| `reporting/` | the report: a page for a run, and one for a comparison |
| `hard_examples` | the test examples of the lowest likelihood, or with the loosest bound |
| `files` | the results as files and figures; the list of figures |
| `results_folder` | where the results go: replaced together, and kept by what was asked |
| `draw_figure` | figures in the style of runs, in which the current folder has no say |
| `comparison` | runs, compared with each other from what is in their folders |
| `run_groups` | groups of runs, compared over their seeds |
| `applying/` | a trained model at work on new data: `pyro_vae.load` |
| `devices` | the device that a user names, and what a processor can do |
| `memory` | how much memory a run needs: what cannot fit is refused |
| `malloc` | how the process reuses the memory that it frees |
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyro_vae.runs.run import Run

__all__ = ["Run"]

if not TYPE_CHECKING:  # type checkers read the import above

    def __getattr__(name: str) -> Any:
        """Import `Run` at its first use: it needs PyTorch, and help texts do not."""
        if name != "Run":
            raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
        from pyro_vae.runs.run import Run

        return Run


def __dir__() -> list[str]:
    """List `Run` also before its first use."""
    return sorted({*globals(), *__all__})
