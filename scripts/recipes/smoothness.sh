#!/usr/bin/env bash
# Compares the smoothness of two latent spaces: a VAE's, and a plain autoencoder's (beta = 0).
# bash scripts/recipes/smoothness.sh [DATA_ROOT]
set -euo pipefail

for beta in 1 0; do
    python scripts/svi_train.py --config scripts/recipes/mnist.yaml --data_root "${1:-data}" \
        --latent_dim 10 --epochs 10 --num_samples 50 --objective.beta "$beta" \
        --out "runs/smoothness/beta$beta"
done

# The best bound of the autoencoder is that of its first epoch, which has the smallest KL. So the
# parameters of the last epochs are compared.
python - << 'PYTHON'
from pyro_vae import diagnostics, training
from pyro_vae.runs.run import Run

for beta in (1, 0):
    run = Run.open(f"runs/smoothness/beta{beta}")
    training.resume(run.engine, run.folder)
    run.vae.eval()
    print(f"\nbeta = {beta}\n{diagnostics.smoothness(run.vae, run.test[run.evaluated])}")
PYTHON
