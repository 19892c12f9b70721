"""The verbs of `pyro-vae` that read rows of a file and write what a trained model says of them.

Each has the command line of one function of `applying.files_of_rows`, and does what it does.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from jsonargparse import Namespace

from pyro_vae.bounds import Settings
from pyro_vae.runs import work_on_files
from pyro_vae.runs.work_on_files import NUMBERS, PICTURES, How

if TYPE_CHECKING:
    from pyro_vae.runs.applying import Trained, Written


def score(arguments: Sequence[str] | None = None) -> None:
    """Write bounds on log p(x) of each row of a file.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = work_on_files.make_parser(
        "Write bounds on log p(x) of each row of a file: row (from 0), log_p (a lower bound in "
        "nats), mc_se (its Monte Carlo standard error), khat (Pareto k-hat), and percentile (among "
        "validation examples). Annealing adds upper, an upper bound, and its upper_mc_se.",
        NUMBERS,
    )
    parser.add_argument(
        "--method",
        type=Literal["importance", "ais"],
        default="importance",
        help="importance is IWAE_K; ais bounds log p(x) from both sides, by annealing.",
    )
    parser.add_argument(
        "--num_samples",
        type=int,
        default=100,
        help="K, the number of draws of z for each row. Below 100 there is no percentile.",
    )
    parser.add_class_arguments(Settings, "ais", help="The chains of annealing")
    parser.examples = (
        "pyro-vae score runs/vamp --data new.csv --out scores.csv",
        "pyro-vae score runs/vamp --data new.csv --out both.csv --method ais",
    )

    def work(model: "Trained", options: Namespace, how: How) -> "Written":
        from pyro_vae.runs import applying

        settings = parser.instantiate(options).ais
        is_asked = options.method == "ais" or settings != Settings()
        return applying.score_file(
            model,
            options.data,
            options.out,
            options.num_samples,
            options.method,
            settings=settings if is_asked else None,
            **how,
        )

    work_on_files.run(parser, arguments, "scored", work)


def encode(arguments: Sequence[str] | None = None) -> None:
    """Write the codes of each row of a file: mean and deviation of q(z|x).

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = work_on_files.make_parser(
        "Write the codes of each row of a file: mean and scale of q(z|x). Tables have the columns "
        "mean_0, mean_1, .., scale_0, .., and with draws draw0_0, draw0_1, .., draw1_0, ..; .npz "
        "files the arrays mean and scale [N, D], and draw [N, draws, D].",
        NUMBERS,
    )
    parser.add_argument("--draws", type=int, default=0, help="The number of draws from q(z|x).")
    parser.examples = ("pyro-vae encode runs/vamp --data new.csv --out codes.npz",)

    def work(model: "Trained", options: Namespace, how: How) -> "Written":
        from pyro_vae.runs import applying

        return applying.encode_file(
            model,
            options.data,
            options.out,
            options.draws,
            **how,
        )

    work_on_files.run(parser, arguments, "encoded", work)


def reconstruct(arguments: Sequence[str] | None = None) -> None:
    """Write what the model makes of the code of each row of a file.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = work_on_files.make_parser(
        "Write what p(x|z) makes of the code of each row of a file, in the data's own form: means "
        "of numbers, and the most probable categories.",
        PICTURES,
    )
    parser.examples = ("pyro-vae reconstruct runs/vamp --data new.npy --out again.png",)

    def work(model: "Trained", options: Namespace, how: How) -> "Written":
        from pyro_vae.runs import applying

        return applying.reconstruct_file(
            model,
            options.data,
            options.out,
            **how,
        )

    work_on_files.run(parser, arguments, "reconstructed", work)


def impute(arguments: Sequence[str] | None = None) -> None:
    """Write the rows of a file with their missing values imputed.

    Args:
        arguments: the arguments of the command line; by default those of this process.
    """
    parser = work_on_files.make_parser(
        "Write the rows of a file with their missing values imputed: means of numbers, and the "
        "most probable categories, given what is there. Observed values are unchanged. Arrays are "
        "called x, lower, upper [N, ..] and draw [N, draws, ..].",
        NUMBERS,
    )
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="Add the ends of 90 % intervals of missing numbers, in the columns lower_NAME and "
        "upper_NAME. They are empty where a value is observed, and where the draws of a row are "
        "not reliable.",
    )
    parser.add_argument(
        "--draws",
        type=int,
        default=0,
        help="The number of multiple imputations, in the columns draw0_NAME, draw1_NAME, ..",
    )
    parser.add_argument(
        "--num_samples", type=int, default=1000, help="The number of draws of z for each row."
    )
    parser.examples = ("pyro-vae impute runs/vamp --data holes.csv --out whole.csv --intervals",)

    def work(model: "Trained", options: Namespace, how: How) -> "Written":
        from pyro_vae.runs import applying

        return applying.impute_file(
            model,
            options.data,
            options.out,
            options.num_samples,
            draws=options.draws,
            intervals=options.intervals,
            **how,
        )

    work_on_files.run(parser, arguments, "imputed", work)
