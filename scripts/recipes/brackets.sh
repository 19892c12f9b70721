#!/usr/bin/env bash
# Makes the table of every prior's bounds from both sides in docs/bounds.md: 18 short runs on the digits, half
# an hour of one core in all. bash scripts/recipes/brackets.sh
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

python - << 'PYTHON'
import json
from pathlib import Path

print(
    f"{'prior':24} {'IWAE_500':>9} {'AIS, lower':>11} {'MC error':>8} {'AIS, upper':>11} {'MC error':>8} "
    f"{'simulated':>10} {'se':>7}"
)
for file in sorted(Path("runs/brackets").glob("*/bounds.json"), key=lambda f: f.stat().st_mtime):
    found = json.loads(file.read_text())
    lower, upper, gap = found["ais"]["lower"], found["ais"]["upper"], found["simulated"]["gap"]
    print(
        f"{file.parent.name:24} {found['iwae']['500']['mean']:9.3f} {lower['mean']:11.4f} "
        f"{lower['mc_se']:8.4f} {upper['mean']:11.4f} {upper['mc_se']:8.4f} {gap['mean']:+10.4f} "
        f"{gap['se']:7.4f}"
    )
PYTHON
