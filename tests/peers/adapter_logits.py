"""Logits of an adapter on its base model, computed by PEFT, against those of a file.

Usage: adapter_logits.py BASE_DIR ADAPTER_DIR TOKENS.safetensors LOGITS.safetensors   prints two numbers, relative to the largest logit: the largest
difference of PEFT's logits from the file's, and from those of the base model alone.
"""
import sys
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def main():
    base, adapter, tokens, logits = sys.argv[1:]
    tokens, logits = load_file(tokens)["tokens"].long(), load_file(logits)["logits"]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    with torch.no_grad():
        plain = model(tokens).logits
        adapted = PeftModel.from_pretrained(model, adapter).eval()(tokens).logits
    print((adapted - logits).abs().max().item() / logits.abs().max().item())
    print((adapted - plain).abs().max().item() / logits.abs().max().item())


main()
