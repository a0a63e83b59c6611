"""Largest difference of exported models' logits from the original's, relative to the largest logit.

Usage: logits.py ORIGINAL_DIR EXPORT...   prints one number per export. An export is a directory, loaded by transformers, or a
GGUF file, loaded by llama.cpp with f32 keys and values.
"""
import sys
import numpy as np
import torch
from transformers import AutoModelForCausalLM

TOKENS = [5, 17, 3, 90, 41, 2, 66, 12, 8, 29, 77, 50, 31, 1, 95, 60]


def by_transformers(path):
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([[t % model.config.vocab_size for t in TOKENS]])).logits[0].numpy()


def by_llama_cpp(path):
    from llama_cpp import Llama, GGML_TYPE_F32
    model = Llama(path, n_ctx=len(TOKENS), logits_all=True, verbose=False, n_threads=1, flash_attn=False,
                  type_k=GGML_TYPE_F32, type_v=GGML_TYPE_F32)
    model.eval([t % model.n_vocab() for t in TOKENS])
    return np.array(model.scores[:len(TOKENS)])


def main():
    original = by_transformers(sys.argv[1])
    for path in sys.argv[2:]:
        logits = by_llama_cpp(path) if path.endswith(".gguf") else by_transformers(path)
        assert logits.shape == original.shape, (path, logits.shape, original.shape)
        print(np.abs(logits - original).max() / np.abs(original).max())


main()
