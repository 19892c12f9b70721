#!/usr/bin/env bash
# Makes the table of posterior collapse and its remedies on MNIST in docs/latent_code.md: nine runs of a few minutes.
# bash scripts/recipes/collapse.sh [DATA_ROOT]
set -euo pipefail

recipes=scripts/recipes/collapse
for cure in plain warmup cyclical small_beta free_bits weak_decoder skip vamp aggressive; do
    python scripts/svi_train.py --config "$recipes/$cure.yaml" --data_root "${1:-data}" \
        --out "runs/collapse/$cure"
done
python scripts/compare.py runs/collapse/plain runs/collapse/[!p]*
