#!/usr/bin/env bash
# Makes the tables of priors (three seeds each) and of likelihoods on MNIST in docs/parts.md: 49 runs of a few
# minutes each. bash scripts/recipes/comparison.sh [DATA_ROOT]
set -euo pipefail

run() { # NAME OPTIONS...
    python scripts/svi_train.py --config scripts/recipes/comparison.yaml \
        --data_root "${data_root}" --out "runs/$1" "${@:2}"
}

data_root=${1:-data}
layers=(--posterior Hierarchical --posterior.top_dim 40 --posterior.features 300
    "--posterior.top.encoder.widths=[300,300]" "--posterior.encoder.widths=[300,300]")

for seed in 0 1 2; do
    prior() { # NAME OPTIONS...
        run "priors/$1-$seed" --seed "$seed" "${@:2}"
    }
    for name in StandardNormal LearnedNormal StudentT Laplace Vamp Exemplar Flow LARS; do
        prior "$name" --prior "$name"
    done
    prior Mixture --prior Mixture --prior.components 100
    prior Hierarchical --prior Hierarchical "${layers[@]}"
    prior HierarchicalVamp --prior Hierarchical --prior.top Vamp "${layers[@]}"
    prior UniformSphere --prior UniformSphere --posterior PowerSpherical
    prior Bernoulli --prior Bernoulli --posterior Bernoulli
done
groups=()
for name in StandardNormal LearnedNormal StudentT Laplace Mixture Vamp Exemplar Flow LARS Hierarchical \
    HierarchicalVamp UniformSphere Bernoulli; do
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
