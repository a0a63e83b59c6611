#!/usr/bin/env bash
# Runs `staticgrad bench` and its peers in turn and prints tables of ratios: llama.cpp, then training against PyTorch. $PEERS names a Python with llama-cpp-python, torch,
# transformers and gguf.    Usage: PEERS=python tools/bench_vs_peers.sh [ROUNDS] [MODEL.gguf …]
# llama.cpp keeps keys and values in f16: quantised models have rows with ours in bf16 beside those in f32.
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
printf '%-8s %-32s %-5s %12s %12s %8s %10s\n' what model K/V staticgrad llama.cpp ratio "of limit"
for model in "$@"; do
    kv_types="f32"
    [[ "$(basename "$model")" != *[qQ][0-9]_* ]] || kv_types="f32 bf16"
    for what in decode prefill; do for kv in $kv_types; do
        for _ in $(seq "$rounds"); do
            target/release/staticgrad bench --what "$what" --model "$model" --kv-type "$kv" --repeat 3 --json
            "$PEERS" tools/bench_peers.py "$what" "$model" 2>/dev/null
        done | "$PEERS" -c '
import json, statistics, sys
lines = [json.loads(l) for l in sys.stdin]
ours = [l for l in lines if "what" in l]; peer = [l for l in lines if "peer" in l]
ratio = statistics.median(o["best"] / p["best"] for o, p in zip(ours, peer))
a, b = (statistics.median(l["best"] for l in side) for side in (ours, peer))
limit = statistics.median(l["percent_of_limit"] for l in ours)
print(f"{sys.argv[1]:<8} {sys.argv[2]:<32} {sys.argv[3]:<5} {a:12.1f} {b:12.1f} {ratio:8.2f} {limit:9.1f}%")' "$what" "$(basename "$model")" "$kv"
    done; done
done

# MODEL BATCH CONTEXT PRECISION, then how staticgrad is told about the model.
train() {
    local name="$1 $2x$3" batch="$2" context="$3" precision="$4" peer="$1"
    shift 4
    for _ in $(seq "$rounds"); do
        target/release/staticgrad bench --what train --batch "$batch" --context "$context" --precision "$precision" --json "$@"
        "$PEERS" tools/bench_peers.py train "$peer" "$batch" "$context" "$precision" 2>/dev/null
    done | "$PEERS" -c '
import json, statistics, sys
lines = [json.loads(l) for l in sys.stdin]
ours = [l for l in lines if "what" in l]; peer = [l for l in lines if "peer" in l]
ratio = statistics.median(p["best"] / o["best"] for o, p in zip(ours, peer))
a, b, products, stream = (statistics.median(l[key] for l in side) for side, key in
    ((ours, "best"), (peer, "best"), (ours, "products_percent_of_peak"), (ours, "optimiser_percent_of_stream")))
print(f"{sys.argv[1]:<24} {sys.argv[2]:<8} {a:12.1f} {b:12.1f} {ratio:8.2f} {products:9.1f}% {stream:9.1f}%")' "$name" "$precision"
}
echo
printf '%-24s %-8s %12s %12s %8s %10s %10s\n' "train, ms/step" type staticgrad PyTorch ratio products optimiser
for precision in f32 bf16; do
    train gpt2 4 64 "$precision"
    train gpt2 1 1024 "$precision" --repeat 3
    train shakespeare 32 256 "$precision" --set V=256 --set T=256 --set C=192 --set L=5 --set H=6
done
