#!/usr/bin/env bash
# Makes the table of every prior's bounds from both sides in docs/bounds.md: 18 short runs on the digits, about
# fifteen minutes in all. bash scripts/recipes/brackets.sh
set -euo pipefail

run() { # NAME OPTIONS...
    python scripts/svi_train.py --epochs 20 --num_samples 500 --num_examples 100 \
        --out "runs/brackets/$1" "${@:2}"
    python scripts/evaluate.py "runs/brackets/$1" --method ais --ais.temperatures 100 --simulated 100 \
        --checks 0
}

for prior in StandardNormal LearnedNormal StudentT Laplace Mixture Vamp Exemplar Flow LARS AR1; do
    run "$prior" --prior "$prior"
done
run UniformSphere --prior UniformSphere --posterior PowerSpherical
for prior in Bernoulli Categorical; do
    run "$prior" --prior "$prior" --posterior "$prior" --latent_dim 40
done
layers=(--prior Hierarchical --posterior Hierarchical)
run Hierarchical "${layers[@]}"
run HierarchicalVamp "${layers[@]}" --prior.top Vamp
run HierarchicalSphere "${layers[@]}" --prior.top UniformSphere --posterior.top PowerSpherical
for top in Bernoulli Categorical; do
    run "Hierarchical$top" "${layers[@]}" --prior.top "$top" --posterior.top "$top"
done
python scripts/compare.py runs/brackets/StandardNormal runs/brackets/[!S]* runs/brackets/StudentT
