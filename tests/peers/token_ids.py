"""Token ids of a text file's lines. Usage: token_ids.py LINES SOURCE...   A source is a directory with a tokenizer.json,
loaded by transformers, or a GGUF file, loaded by llama.cpp. Prints, source by source, one line of ids per line of text."""
import sys


def encoder(path):
    if path.endswith(".gguf"):
        from llama_cpp import Llama
        model = Llama(path, vocab_only=True, verbose=False)
        return lambda text: model.tokenize(text.encode(), add_bos=True, special=True)
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(path)
    return lambda text: tokenizer(text)["input_ids"]


def main():
    lines = open(sys.argv[1], encoding="utf-8").read().split("\n")
    for path in sys.argv[2:]:
        encode = encoder(path)
        for line in lines:
            print(*encode(line))


main()
