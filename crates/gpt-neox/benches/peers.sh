#!/usr/bin/env bash
# Ours beside transformers on torch: `bash crates/gpt-neox/benches/peers.sh [FOLDER]`. FOLDER (by default below the target
# folder) gets a virtual environment, two models with random weights (0.9 GB), and the raw timings.
set -euo pipefail
cd "$(dirname "$0")/../../.."
target=${CARGO_TARGET_DIR:-target}
work=${1:-$target/peers}
mkdir -p "$work"
python=${PYTHON:-$work/venv/bin/python}
if [ ! -x "$python" ]; then
    python3 -m venv "$work/venv"
    "$python" -m pip install -q 'torch==2.15.0' 'transformers==5.23.0' 'safetensors==0.8.0' 'numpy==2.4.6'
fi
cargo build -q --release --locked -p gpt-neox --example judge_probes
export THREADS=${THREADS:-2} RAYON_NUM_THREADS=${THREADS:-2} OMP_NUM_THREADS=${THREADS:-2}
exec "$python" crates/gpt-neox/benches/peers.py "$target/release/examples/judge_probes" "$work"
