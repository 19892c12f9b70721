#!/usr/bin/env bash
# Makes the tables of priors and of likelihoods on MNIST in docs/parts.md: 23 runs of a few minutes each.
# bash scripts/recipes/comparison.sh [DATA_ROOT]
set -euo pipefail

run() { # NAME OPTIONS...
    python scripts/svi_train.py --config scripts/recipes/comparison.yaml \
        --data_root "${data_root}" --out "runs/$1" "${@:2}"
}

data_root=${1:-data}
layers=(--posterior Hierarchical --posterior.top_dim 40 --posterior.features 300
    "--posterior.top.encoder.widths=[300,300]" "--posterior.encoder.widths=[300,300]")

run priors/StandardNormal
for prior in LearnedNormal StudentT Laplace Vamp Exemplar Flow LARS; do
    run "priors/$prior" --prior "$prior"
done
run priors/Mixture --prior Mixture --prior.components 100
run priors/Hierarchical --prior Hierarchical "${layers[@]}"
run priors/HierarchicalVamp --prior Hierarchical --prior.top Vamp "${layers[@]}"
run priors/UniformSphere --prior UniformSphere --posterior PowerSpherical
run priors/Bernoulli --prior Bernoulli --posterior Bernoulli
python scripts/compare.py runs/priors/StandardNormal runs/priors/[!S]* runs/priors/StudentT

for likelihood in ContinuousBernoulli Gaussian StudentT Laplace Beta LogitNormal Binomial \
    DiscretizedLogistic; do
    run "likelihoods/$likelihood" --likelihood "$likelihood"
done
run likelihoods/GaussianPerPixel --likelihood Gaussian --likelihood.noise per_pixel
run likelihoods/LogisticMixture --likelihood DiscretizedLogistic --likelihood.components 3
python scripts/compare.py runs/likelihoods/ContinuousBernoulli runs/likelihoods/[!C]*
