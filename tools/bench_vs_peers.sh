#!/usr/bin/env bash
# Runs `staticgrad bench` and its peers in turn and prints a table of ratios. $PEERS names a Python with llama-cpp-python, torch,
# transformers and gguf.    Usage: PEERS=python tools/bench_vs_peers.sh [ROUNDS] [MODEL.gguf …]
# Without models: random-weight GPT-2 124M in f32, f16, bf16, q8_0 and q4_0, made once in the cache folder, and SmolLM2.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PEERS:?set PEERS to a Python that has llama-cpp-python, torch, transformers and gguf}"
rounds="${1:-3}"; shift || true
cache="${STATICGRAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/staticgrad}"
cargo build --release -q
if [ $# -eq 0 ]; then
    [ -e "$cache/bench/gpt2.q4_0.gguf" ] || "$PEERS" tools/bench_peers.py make "$cache/bench"
    set -- "$cache"/bench/gpt2.{f32,f16,bf16,q8_0,q4_0}.gguf "$(tools/fetch_smollm2.sh)"
fi
echo "$(date +%F), $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) threads, median of $rounds pairs"
printf '%-8s %-32s %12s %12s %8s %10s\n' what model staticgrad llama.cpp ratio "of limit"
for model in "$@"; do
    for what in decode prefill; do
        for _ in $(seq "$rounds"); do
            target/release/staticgrad bench --what "$what" --model "$model" --repeat 3 --json
            "$PEERS" tools/bench_peers.py "$what" "$model" 2>/dev/null
        done | "$PEERS" -c '
import json, statistics, sys
lines = [json.loads(l) for l in sys.stdin]
ours = [l for l in lines if "what" in l]; peer = [l for l in lines if "peer" in l]
ratio = statistics.median(o["best"] / p["best"] for o, p in zip(ours, peer))
a, b = (statistics.median(l["best"] for l in side) for side in (ours, peer))
limit = statistics.median(l["percent_of_limit"] for l in ours)
print(f"{sys.argv[1]:<8} {sys.argv[2]:<32} {a:12.1f} {b:12.1f} {ratio:8.2f} {limit:9.1f}%")' "$what" "$(basename "$model")"
    done
done
