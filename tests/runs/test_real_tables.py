"""Tables that scikit-learn ships, from their files to bounds that hold against known answers."""

from pathlib import Path

import pytest
import torch
from sklearn import datasets

from pyro_vae import bounds
from pyro_vae.bounds import exact, grid
from pyro_vae.runs import config, evaluation
from pyro_vae.runs.run import Run

GIVEN = ["--latent_dim", "2", "--batch_size", "8", "--num_samples", "200"]


def trained(name: str, folder: Path, *options: str) -> Run:
    frame = getattr(datasets, f"load_{name}")(as_frame=True).frame
    frame.to_csv(folder / f"{name}.csv", index=False)
    arguments = ["--data", str(folder / f"{name}.csv"), *GIVEN, *options]
    run = Run.build(folder / "run", config.parse(arguments))
    run.create()
    run.fit()
    run.load_best()
    run.vae.eval()
    return run


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("iris", "real (4 columns), ordered categories (1 column)"), ("linnerud", "counts")],
)
def test_bounds_of_tables_bracket_the_integral(name: str, kinds: str, tmp_path: Path) -> None:
    run = trained(
        name, tmp_path, "--epochs", "10", "--test_fraction", "0.3", "--validation_fraction", "0.3"
    )
    assert str(run.kind) == kinds
    plan = evaluation.Plan(
        method="ais",
        ais=bounds.Settings(temperatures=50, chains=8),
        simulated=0,
        checks=0,
        draws=0,
    )
    result = evaluation.evaluate(run, plan)
    log_p = grid.quadrature(run.vae.model, run.test[run.evaluated], points=300)
    lower, upper = (getattr(result.results["ais"], side) for side in ("lower", "upper"))
    differences = torch.stack([lower.values - log_p, upper.values - log_p])
    errors = differences.std(1) / len(log_p) ** 0.5
    assert (differences.mean(1).abs() < 4 * errors + 0.02).all()
    elbo, iwae = result.importance.elbo, result.importance.iwae[200]
    assert elbo.mean < log_p.mean() and elbo.mean < iwae.mean < log_p.mean() + 0.05


def test_a_linear_decoder_is_factor_analysis(tmp_path: Path) -> None:
    """Its density is normal: its covariance is the loadings' product, plus the noise."""
    linear = ["--likelihood", "Gaussian", "--likelihood.decoder", "Linear", "--columns.all", "real"]
    run = trained("wine", tmp_path, "--epochs", "30", "--drop", "target", *linear)
    vae, x = run.vae.double(), run.test.double()
    with torch.no_grad():
        origin, *units = vae.likelihood(torch.tensor([[0, 0], [1, 0], [0, 1]]).double()).mean
        noise = vae.likelihood(torch.zeros(1, 2).double()).stddev[0]
    loadings = torch.stack(units, 1) - origin[:, None]
    density = torch.distributions.MultivariateNormal(
        origin, loadings @ loadings.mT + torch.diag(noise**2)
    )
    expected = density.log_prob(x)
    assert noise.shape == (13,) and loadings.abs().max() > 1  # proline has large units
    assert torch.allclose(exact.gaussian(vae.model, x), expected, atol=1e-8)
    assert torch.allclose(grid.quadrature(vae.model, x), expected, atol=1e-4)
