#!/usr/bin/env bash
# Ours beside transformers on torch: `bash crates/gpt-neox/benches/peers.sh [FOLDER]`. FOLDER (by default below the target
# folder) gets a virtual environment, two models with random weights (0.9 GB), and the raw timings. PROGRAM names a built
# `judge_probes`, PYTHON a Python that has torch and transformers; DEVICE and FEATURES are for a GPU.
set -euo pipefail
cd "$(dirname "$0")/../../.."
target=${CARGO_TARGET_DIR:-target}
work=${1:-$target/peers}
mkdir -p "$work"
python=${PYTHON:-$work/venv/bin/python}
if ! command -v "$python" > /dev/null; then
    python3 -m venv "$work/venv"
    "$python" -m pip install -q 'torch==2.15.0' 'transformers==5.23.0' 'safetensors==0.8.0' 'numpy==2.4.6'
fi
if [ -z "${PROGRAM:-}" ]; then
    cargo build -q --release --locked -p gpt-neox --features "${FEATURES:-}" --example judge_probes
    PROGRAM=$target/release/examples/judge_probes
fi
export THREADS=${THREADS:-2} RAYON_NUM_THREADS=${THREADS:-2} OMP_NUM_THREADS=${THREADS:-2}
exec "$python" crates/gpt-neox/benches/peers.py "$PROGRAM" "$work"
