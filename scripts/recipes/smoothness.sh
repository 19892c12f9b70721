#!/usr/bin/env bash
# How smooth the latent space of a VAE is, and that of a plain autoencoder, which is beta = 0.
# bash scripts/recipes/smoothness.sh [DATA_ROOT]
set -euo pipefail

for beta in 1 0; do
    python scripts/svi_train.py --config scripts/recipes/mnist.yaml --data_root "${1:-data}" \
        --latent_dim 10 --epochs 10 --num_samples 50 --objective.beta "$beta" \
        --out "runs/smoothness/beta$beta"
done

# A bound chooses the autoencoder of the first epoch, whose KL is the least: compare the last ones.
python - << 'PYTHON'
from pyro_vae import diagnostics, training
from pyro_vae.runs.run import Run

for beta in (1, 0):
    run = Run.open(f"runs/smoothness/beta{beta}")
    training.resume(run.engine, run.folder)
    run.vae.eval()
    print(f"\nbeta = {beta}\n{diagnostics.smoothness(run.vae, run.test[run.chosen])}")
PYTHON
