#!/usr/bin/env bash
# How smooth the latent space of a VAE is, and that of a plain autoencoder, which is beta = 0.
# bash scripts/recipes/smoothness.sh [DATA_ROOT]
set -euo pipefail

for beta in 1 0; do
    python scripts/svi_train.py --config scripts/recipes/mnist.yaml --data_root "${1:-data}" \
        --latent_dim 10 --epochs 10 --num_samples 50 --objective.beta "$beta" \
        --out "runs/smoothness/beta$beta"
done
