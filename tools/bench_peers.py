#!/usr/bin/env python3
"""Peers that staticgrad is measured against: llama.cpp (llama-cpp-python) and PyTorch, on the same work as `staticgrad bench`.

  bench_peers.py make DIR                    random-weight GPT-2 124M as Hugging Face directory and GGUF (f32 f16 bf16 q8_0 q4_0)
  bench_peers.py decode FILE.gguf [THREADS]  llama.cpp: 64 tokens after a prompt of 8
  bench_peers.py prefill FILE.gguf [THREADS] llama.cpp: 512 rows in one call
  bench_peers.py train MODEL BATCH CONTEXT f32|bf16   PyTorch eager, scaled-dot-product attention, fused AdamW; MODEL is `gpt2` or
                                             `shakespeare` (the model inside staticgrad), with random weights

Each measuring call prints one JSON object: {"peer", "unit", "best", "median"}.
"""
import json, os, statistics, sys, time

LAYERS, WIDTH = 12, 768
NAMES = {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
         "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}


def report(peer, unit, values, higher=True):
    best = max(values) if higher else min(values)
    print(json.dumps({"peer": peer, "unit": unit, "best": round(best, 3), "median": round(statistics.median(values), 3)}))


def make(directory):
    import gguf, torch
    from transformers import GPT2Config, GPT2LMHeadModel
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    os.makedirs(directory, exist_ok=True)
    model.save_pretrained(f"{directory}/gpt2")
    weights = {n.removeprefix("transformer."): t.detach().float() for n, t in model.named_parameters()}
    kinds = gguf.GGMLQuantizationType
    for kind in (kinds.F32, kinds.F16, kinds.BF16, kinds.Q8_0, kinds.Q4_0):
        writer = gguf.GGUFWriter(f"{directory}/gpt2.{kind.name.lower()}.gguf", "gpt2")
        writer.add_block_count(LAYERS); writer.add_context_length(1024); writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(4 * WIDTH); writer.add_head_count(12); writer.add_layer_norm_eps(1e-5)
        writer.add_tokenizer_model("gpt2"); writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list([f"t{i}" for i in range(50257)]); writer.add_token_types([1] * 50257)
        writer.add_token_merges(["t 0"]); writer.add_bos_token_id(50256); writer.add_eos_token_id(50256)

        def put(name, tensor, quantised=False):
            data = tensor.contiguous().numpy()
            to = kind if quantised else kinds.F32
            writer.add_tensor(name, data if to == kinds.F32 else gguf.quants.quantize(data, to), raw_dtype=to)

        put("token_embd.weight", weights["wte.weight"], True)
        put("position_embd.weight", weights["wpe.weight"])
        for layer in range(LAYERS):
            for ours, theirs in NAMES.items():
                w = weights[f"h.{layer}.{ours}.weight"]
                put(f"blk.{layer}.{theirs}.weight", w.t() if w.dim() == 2 else w, w.dim() == 2)
                put(f"blk.{layer}.{theirs}.bias", weights[f"h.{layer}.{ours}.bias"])
        put("output_norm.weight", weights["ln_f.weight"]); put("output_norm.bias", weights["ln_f.bias"])
        writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()


def llama(what, path, threads):
    """Measures in a process of its own; where that dies by a signal, once more without llama.cpp's weights in other layouts, and says so: built with AMX, some
    versions die of a tile configuration with words that nobody set."""
    for extra in (True, False):
        child = os.fork()
        if child == 0:
            llama_here(what, path, threads, extra)
            sys.stdout.flush()
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return
        if status > 0:
            break
        print(f"llama.cpp died of signal {-status}", file=sys.stderr)
    sys.exit(1)


def llama_here(what, path, threads, extra):
    # The C interface directly: the convenience class copies every token's logits.
    import llama_cpp as L
    silent = L.llama_log_callback(lambda level, text, data: None)
    L.llama_log_set(silent, None)
    L.llama_backend_init()
    loading = L.llama_model_default_params()
    loading.use_extra_bufts = extra
    model = L.llama_model_load_from_file(path.encode(), loading)
    options = L.llama_context_default_params()
    options.n_ctx, options.n_batch, options.n_ubatch = 1024, 512, 512
    options.n_threads = options.n_threads_batch = threads
    context = L.llama_init_from_model(model, options)
    tokens = (L.llama_token * 512)(*[i * 7919 % 49000 for i in range(512)])

    def run(first, count):
        part = (L.llama_token * count)(*tokens[first:first + count])
        assert L.llama_decode(context, L.llama_batch_get_one(part, count)) == 0
        L.llama_synchronize(context)

    rates = []
    for _ in range(4):
        L.llama_memory_clear(L.llama_get_memory(context), True)
        if what == "decode":
            run(0, 8)
        start = time.perf_counter()
        if what == "decode":
            for i in range(8, 72):
                run(i, 1)
        else:
            run(0, 512)
        rates.append((64 if what == "decode" else 512) / (time.perf_counter() - start))
    report(f"llama.cpp {what} {os.path.basename(path)}{'' if extra else ' without repacked weights'}", "tokens/s", rates[1:])


def train(model, batch, context, precision):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel
    sizes = {"gpt2": {}, "shakespeare": dict(vocab_size=256, n_positions=256, n_embd=192, n_layer=5, n_head=6)}
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    config = GPT2Config(**sizes[model], resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, use_cache=False, attn_implementation="sdpa")
    network = GPT2LMHeadModel(config).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    size = config.vocab_size
    x, y = (torch.randint(0, size, (batch, context)) for _ in range(2))
    times = []
    for _ in range(7):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(network(x).logits.view(-1, size).float(), y.view(-1))
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        times.append(1000 * (time.perf_counter() - start))
    report(f"PyTorch train {model} B={batch} T={context} {precision}", "ms/step", times[2:], higher=False)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "make":
        make(arguments[1])
    elif len(arguments) in (2, 3) and arguments[0] in ("decode", "prefill"):
        llama(arguments[0], arguments[1], int(arguments[2]) if len(arguments) == 3 else os.cpu_count())
    elif len(arguments) == 5 and arguments[0] == "train":
        train(arguments[1], int(arguments[2]), int(arguments[3]), arguments[4])
    else:
        sys.exit(__doc__)
