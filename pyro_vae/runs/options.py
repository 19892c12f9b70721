"""The options of a run: what `config.yaml` holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pyro_vae import likelihoods, objectives, posteriors, priors, training
from pyro_vae.kinds import Binarization, Kind
from pyro_vae.likelihoods import Likelihood
from pyro_vae.objectives import Objective
from pyro_vae.posteriors import Posterior
from pyro_vae.priors import Prior
from pyro_vae.programs.random_streams import stream_seed
from pyro_vae.runs.checked_fields import at_least, check_fields, positive, random_seed, share

EPOCHS = 200  # of runs whose length is not given
BATCH_SIZE = 100  # of runs whose batch size is not given, if there are so many training examples
HIDING = 1  # the random stream of the choice of hidden values


@dataclass
class Options:
    """Everything that is needed to repeat a run.

    Args:
        data: digits, mnist, fashion_mnist, kmnist, emnist, cifar10, svhn, or the path of a .npy or
            .npz or .csv or .tsv or .parquet or .pt or .h5ad file, or of a folder of pictures.
        columns: Kinds of columns by name, instead of those that were inferred: binary, real,
            positive, counts, categories, or ordered, with its order ("ordered low < high"). The
            name `all` stands for all columns or pixels of an array. Names with dots, commas or
            spaces are written as '{"mass, kg": real, a.b: counts}'.
        drop: Names of columns to leave out, with commas between them. A name that holds a comma is
            written in double quotes, as in '"mass, kg",id'.
        labels: The name of the column or array that holds labels. They are no part of the data, and
            serve to probe the code.
        image_size: The height and width of pictures in a folder, in pixels.
        data_root: The folder that holds torchvision's data sets; missing ones are downloaded to it.
        data_seed: Seed of the split, of static binarization, and of the noise in validation and
            test examples.
        validation_fraction: The share of the training examples that is set aside for validation.
        test_fraction: The share set aside for testing, if the data have no test set.
        condition: Names of columns that are given, with commas between them: the model is p(x|z, y)
            of the other columns x, the guide q(z|x, y), and bounds are on log p(x|y). `labels`
            stands for the labels of images.
        hold_out_entries: The share of known values that are hidden from training and from the
            bounds, at random, to see how well they are imputed.
        binarization: How grey pixels become binary ones for a binary likelihood: drawn again in
            every step (dynamic), drawn once (static), or compared with one half (threshold).
        latent_dim: The dimension of z.
        prior: p(z).
        likelihood: p(x|z), with its decoder network. By default it follows from the kind of the
            data.
        posterior: q(z|x), with its encoder network.
        objective: What training maximises.
        epochs: The number of passes over the training examples; by default 200, or as many as
            the budget allows.
        budget: The time that training may take, such as 90s, 10min or 1.5h. Schedules stretch to
            it. A run with a budget cannot be repeated bit for bit.
        batch_size: The number of examples in a step; by default 100, or all training examples if
            there are fewer.
        batch_doublings: How often the batch size is doubled, after equal parts of training.
        lr: The learning rate.
        schedule: How the learning rate changes in the course of training.
        optimizer: How gradients become steps.
        clip_norm: The largest norm of the gradient of the loss, summed over the batch; larger
            gradients are scaled down. By default there is no limit.
        average: An average of the parameters over the steps, which is then evaluated in place of
            the last ones. By default there is none.
        validate_by: The bound on log p(x) of validation examples, by which the best epoch is chosen
            and training stops early. It is that of the objective, or ELBO, or IWAE_K with a number
            K of draws, such as IWAE_50.
        validate_every: The number of epochs from one validation to the next.
        patience: Training ends when the best validation bound is this number of epochs old. By
            default it does not end early.
        checkpoint_minutes: The time from one checkpoint to the next within an epoch, in minutes.
            There is one after each epoch anyway.
        engine: How training steps are computed: by Pyro's SVI (eager), or by one compiled graph
            (compiled). auto compiles if training is long enough to save time by it.
        precision: The precision of matrix products in training. bfloat16 is faster on some
            processors, and slower on others. auto measures which, and takes it for the compiled
            engine only.
        seed: Seed of the initial parameters, and of all noise in training and evaluation.
        diagnose_every: The latent code is diagnosed each time after this number of epochs; 0 turns
            it off.
        log: Where the numbers of metrics.csv are sent after each epoch, too: tensorboard (open them
            with tensorboard --logdir RUN), or wandb (Weights & Biases). Its package has to be
            installed.
        aggressive: The largest number of steps of the guide alone before each step of the model, as
            long as the mutual information of x and z grows (He et al. 2019); 0 turns it off.
        device: Where to compute: cpu, cuda, or cuda:1 for the second GPU. auto chooses a GPU if
            there is one.
        init_from: The folder of a trained run, with the same parts and shapes, from whose
            parameters training starts: to go on with other data.
        num_samples: K, the number of draws of z for each test example, to bound log p(x).
        num_examples: The number of test examples, chosen at random, to bound log p(x) on.
        fingerprint: What identifies the data, in whatever order their examples are. A run writes it
            into its config.yaml, and refuses other data.
    """

    data: str = "digits"
    columns: dict[str, str] = field(default_factory=dict)
    drop: str | None = None
    labels: str | None = None
    image_size: int | None = at_least(1, None, most=10_000)
    data_root: str = "data"
    data_seed: int = random_seed(0)
    validation_fraction: float = 0.1
    test_fraction: float = 0.1
    condition: str | None = None
    hold_out_entries: float | None = share(None)
    binarization: Binarization = "dynamic"
    latent_dim: int = positive(8)
    prior: Callable[[int], Prior] = priors.StandardNormal
    likelihood: Callable[[int, Kind], Likelihood] = likelihoods.ByKind
    posterior: Callable[[Sequence[int], int], Posterior] = posteriors.Normal
    objective: Callable[[], Objective] = objectives.ELBO
    epochs: int | None = positive(None)
    budget: str | None = None
    batch_size: int | None = positive(None)
    batch_doublings: int = at_least(0, 0, most=30)
    lr: float = positive(1e-3, most=1e6)
    schedule: Callable[[float], training.Schedule] = training.Constant
    optimizer: Callable[[], training.Optimizer] = training.Adam
    clip_norm: float | None = positive(None)
    average: Callable[[], training.Averaging] | None = None
    validate_by: str = "objective"
    validate_every: int = at_least(1, 1)
    patience: int | None = at_least(1, None)
    checkpoint_minutes: float = positive(10.0)
    engine: Literal["auto", "compiled", "eager"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    seed: int = random_seed(0)
    diagnose_every: int = at_least(0, 5)
    log: Literal["tensorboard", "wandb"] | None = None
    aggressive: int = at_least(0, 0)
    device: str = "auto"
    init_from: str | None = None
    num_samples: int = positive(5000)
    num_examples: int = at_least(2, 1000)  # a single one has no standard error
    fingerprint: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def last_epoch(self) -> int | None:
        """The number of the last epoch; None if only the budget limits training."""
        if self.epochs is None and self.budget is None:
            return EPOCHS
        return self.epochs

    @property
    def examples_in_step(self) -> int:
        """The number of examples in the first step, if there are so many."""
        return BATCH_SIZE if self.batch_size is None else self.batch_size

    @property
    def noise_seeds(self) -> tuple[int, int, int]:
        """Seeds of independent noise in training, validation and test examples."""
        first, second, third = (3 * self.data_seed + i for i in range(3))
        return first, second, third

    @property
    def hiding_seed(self) -> int:
        """The seed of the choice of values that are hidden: none of those of the noise in them."""
        return stream_seed(self.data_seed, HIDING)
