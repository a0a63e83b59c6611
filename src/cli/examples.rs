//! Examples that `--help` shows under each command. A test parses every line.

/// Of the program.
pub const ALL: &str = "Examples:
  staticgrad run \"ROMEO:\"
  staticgrad train --model gpt2 --set V=256 --set L=2 --context 128 --data a.txt --steps 99 --out me
  staticgrad run --model SmolLM2.gguf \"Once upon a time\" --max-tokens 40
  staticgrad compile gpt2 --size medium --rows 1024 --step-rows 64 -o gpt2.plan
  staticgrad eval --model ./gpt2 --tokens in.safetensors --out out.safetensors
  staticgrad bench --what decode --model ./gpt2 --json";

pub const RUN: &str = "Examples:
  staticgrad run \"ROMEO:\" --max-tokens 200 --temperature 0.8 --seed 7
  staticgrad run --model SmolLM2.gguf \"Once upon a time\" --max-tokens 40
  staticgrad run --model gpt2.plan --weights ./gpt2 \"Hello\" --threads 2";

pub const EVAL: &str = "Examples:
  staticgrad eval --model ./gpt2 --tokens in.safetensors --out out.safetensors
  staticgrad eval --model ./gpt2 --tokens in.safetensors --out out.safetensors --grads";

pub const COMPILE: &str = "Examples:
  staticgrad compile gpt2 --size medium --rows 1024 --step-rows 64 -o gpt2.plan
  staticgrad compile llama --set L=2 --emit lowered
  staticgrad compile ./gpt2 --weights ./gpt2 -o model.plan
  staticgrad compile gpt2 --mode train --slots 4 --rows 64 --fuse-optimizer --memory-budget 300MiB";

pub const TRAIN: &str = "Examples:
  staticgrad train --model gpt2 --set V=256 --set L=2 --context 128 --data a.txt --steps 99 --out me
  staticgrad train --model ./gpt2 --data train.bin --val val.bin --context 64 --steps 99 --out tuned
  staticgrad train --model SmolLM2.gguf --lora-rank 8 --data a.txt --context 99 --steps 99 --out ad
  staticgrad train --resume --out tuned";

pub const TOKENIZE: &str = "Examples:
  staticgrad tokenize input.txt --tokenizer gpt2 --sections --val-fraction 0.1 -o train.bin
  staticgrad tokenize a.txt b.txt --tokenizer ./SmolLM2 -o train.bin";

pub const CHECK: &str = "Examples:
  staticgrad check --model gpt2_124M.bin --state gpt2_124M_debug_state.bin";

pub const PERPLEXITY: &str = "Examples:
  staticgrad perplexity --model ./gpt2 --text wiki.txt --stride 512
  staticgrad perplexity --text input.txt --last-fraction 0.1 --stride 256";

pub const ACCURACY: &str = "Examples:
  staticgrad accuracy --model ./gpt2 --data hellaswag_val.bin --limit 100";

pub const EXPORT: &str = "Examples:
  staticgrad export --model me --to gguf --type q8_0 --out me.gguf
  staticgrad export --model SmolLM2.gguf --to hf --type bf16 --out smollm2";

pub const MERGE: &str = "Examples:
  staticgrad merge --model SmolLM2.gguf --adapter ad --out merged";

pub const BENCH: &str = "Examples:
  staticgrad bench --what roofline
  staticgrad bench --what decode --model ./gpt2 --json";
