#!/usr/bin/env bash
# Makes the tables of priors (some with three seeds) and of likelihoods on MNIST in docs/parts.md: 36 runs of a few
# minutes each. bash scripts/recipes/comparison.sh [DATA_ROOT]
set -euo pipefail

run() { # NAME OPTIONS...
    python scripts/svi_train.py --config scripts/recipes/comparison.yaml \
        --data_root "${data_root}" --out "runs/$1" "${@:2}"
}

data_root=${1:-data}
layers=(--posterior Hierarchical --posterior.top_dim 40 --posterior.features 300
    "--posterior.top.encoder.widths=[300,300]" "--posterior.encoder.widths=[300,300]")
ladder=(--posterior Ladder "--posterior.top_dim=[40]" --posterior.features 300
    "--posterior.encoder.widths=[300,300]")

prior() { # SEED NAME OPTIONS...
    run "priors/$2-$1" --seed "$1" "${@:3}"
}

# Small differences need several seeds.
for seed in 0 1 2; do
    for name in StandardNormal LearnedNormal StudentT Laplace; do
        prior $seed "$name" --prior "$name"
    done
    prior $seed Ladder --prior Hierarchical "${ladder[@]}"
    prior $seed HierarchicalVamp --prior Hierarchical --prior.top Vamp "${layers[@]}"
done
for name in Vamp Exemplar Flow LARS; do
    prior 0 "$name" --prior "$name"
done
prior 0 Mixture --prior Mixture --prior.components 100
prior 0 Hierarchical --prior Hierarchical "${layers[@]}"
prior 0 UniformSphere --prior UniformSphere --posterior PowerSpherical
prior 0 Bernoulli --prior Bernoulli --posterior Bernoulli

python scripts/compare.py runs/priors/StandardNormal-0 runs/priors/{[!S]*,StudentT}-0
groups=()
for name in StandardNormal LearnedNormal StudentT Laplace Ladder HierarchicalVamp; do
    groups+=(--group "runs/priors/$name-*")
done
python scripts/compare.py "${groups[@]}"

for likelihood in ContinuousBernoulli Gaussian StudentT Laplace Beta LogitNormal Binomial \
    DiscretizedLogistic; do
    run "likelihoods/$likelihood" --likelihood "$likelihood"
done
run likelihoods/GaussianPerPixel --likelihood Gaussian --likelihood.noise per_pixel
run likelihoods/LogisticMixture --likelihood DiscretizedLogistic --likelihood.components 3
python scripts/compare.py runs/likelihoods/ContinuousBernoulli runs/likelihoods/[!C]*
