"""llama.cpp as a peer of `spectemp bench model`: prefill and decode of the language model.

    llama_cpp.py FOLDER THREADS DEVICE DTYPE     (needs xllamacpp, gguf==0.19.0, numpy and safetensors)

writes the checkpoint's language model as a GGUF file beside it (`f32` or `q8_0`), serves it in this process and answers
requests, one JSON object per line on stdin and stdout: {"work": "prefill", "tokens": 512},
{"work": "decode", "tokens": 64, "context": 512, "batch": 8}.

A decode's time is the difference between writing twice as many tokens and writing that many, all sequences at once, so that
the prompts and what serves them are not part of it. Prompts are those of `crates/model/src/bench/ours.rs`.
"""

import json
import pathlib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import gguf
import numpy as np
import xllamacpp
from safetensors.numpy import load_file

FOLDER, THREADS, DTYPE = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[4]
SLOTS, SLOT_TOKENS = 16, 704
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
WHOLE = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}


def tensors():
    for name, values in load_file(FOLDER / "model.safetensors").items():
        name = name.removeprefix("model.").removeprefix("language_model.")
        if name in WHOLE:
            yield WHOLE[name], values
        elif name.startswith("layers."):
            _, layer, rest = name.split(".", 2)
            part, leaf = rest.rsplit(".", 1)
            yield f"blk.{layer}.{PARTS[part]}.{leaf}", values


def convert(path):
    config = json.loads((FOLDER / "config.json").read_text())["text_config"]
    rope = config["rope_parameters"]
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "qwen2vl")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_sections(rope["mrope_section"] + [0])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    # Requests hold ids and their answers are not read: any words do.
    writer.add_token_list([f"[{id}]" for id in range(config["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * config["vocab_size"])
    writer.add_token_merges(["[ 0"])
    writer.add_eos_token_id(config["vocab_size"] - 5)
    writer.add_add_bos_token(False)
    for name, values in tensors():
        values = np.ascontiguousarray(values.astype(np.float32))
        if DTYPE == "q8_0" and values.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(path)


def start(path):
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_parallel = SLOTS
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.cpuparams.n_threads = THREADS
    params.cpuparams_batch.n_threads = THREADS
    params.n_gpu_layers = 0
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.warmup = True
    params.verbosity = -1
    return xllamacpp.Server(params)


def complete(ids, tokens):
    request = {"prompt": ids, "n_predict": tokens, "ignore_eos": True, "cache_prompt": False, "temperature": 0.0}
    answer = SERVER.handle_completions(request)
    answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
    if "timings" not in answer:
        raise RuntimeError(str(answer)[:500])
    return answer["timings"]


def token_ids(count, sequence):
    return [(i * 7919 + 13 + sequence * 101) % 997 for i in range(count)]


def written(tokens, context, batch):
    """Seconds on the clock and on the processors until all sequences have written so many tokens."""
    start = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(batch) as pool:
        for timings in pool.map(lambda sequence: complete(token_ids(context, sequence), tokens), range(batch)):
            assert timings["predicted_n"] == tokens, timings
    return time.perf_counter() - start[0], time.process_time() - start[1]


def answer(request):
    work = request["work"]
    if work == "prefill":
        start = time.process_time()
        timings = complete(token_ids(request["tokens"], 0), 1)
        return {"seconds": timings["prompt_ms"] / 1e3, "cpu_seconds": time.process_time() - start, "values": []}
    assert work == "decode", work
    once = written(request["tokens"], request["context"], request["batch"])
    twice = written(2 * request["tokens"], request["context"], request["batch"])
    return {"seconds": twice[0] - once[0], "cpu_seconds": twice[1] - once[1], "values": []}


FILE = FOLDER / f"llama-{DTYPE}.gguf"
if not FILE.exists():
    convert(FILE)
SERVER = start(FILE)
print(json.dumps({"ready": f"llama.cpp (xllamacpp {xllamacpp.__version__}), {DTYPE}", "threads": THREADS}), flush=True)
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
