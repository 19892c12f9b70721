#!/usr/bin/env bash
# Makes the table of ingredients in RESULTS.md: runs of 30 epochs, each with one change to the recipe
# records/gated_normal.yaml. It prints IWAE_50 of the 6,000 validation images.
# bash scripts/recipes/ablation.sh [DATA_ROOT]
set -euo pipefail

network() { # PART OPTION VALUE: sets an option of encoder and decoder
    echo "--posterior.encoder.$1=$2" "--likelihood.decoder.$1=$2"
}

run() { # NAME OPTIONS...
    pyro-vae train --config scripts/recipes/records/gated_normal.yaml --data_root "$data_root" \
        --epochs 30 --validate_every 30 --num_samples 50 --num_examples 100 \
        --out "runs/ablation/$1" "${@:2}"
    echo "$1: $(tail -n 1 "runs/ablation/$1/metrics.csv")"
}

data_root=${1:-data}
dreg=(--objective IWAE --objective.num_particles 5 --objective.gradient dreg)
local=(--likelihood LocalPixels --likelihood.decoder MLP "--likelihood.decoder.widths=[300,300]"
    --likelihood.decoder.activation Identity --likelihood.decoder.gated true)

run base
run seed --seed 1
run no_warmup --objective.warmup_share 0
run constant_rate --schedule Constant
run constant_rate_average --schedule Constant --average EMA
run no_clipping --clip_norm null
run half_the_rate --lr 0.001
run not_gated $(network gated false) $(network activation SiLU)
run dropout --posterior.encoder.dropout 0.1
run dreg "${dreg[@]}"
run vamp --prior Vamp
run local_pixels "${local[@]}"
run vamp_local_pixels --prior Vamp "${local[@]}"
run vamp_dreg --prior Vamp "${dreg[@]}"
