"""HF transformers as the peer of `spectemp bench model`.

    model_hf.py FOLDER THREADS DEVICE DTYPE

loads a Qwen2.5-VL checkpoint folder (`cpu f32`, `cuda:0 bf16`), or makes one of its config.json with random weights on the device
where it holds none, and answers requests, one JSON object per line on stdin and stdout:
{"work": "vision", "frames": 10, "side": 224}, {"work": "prefill", "tokens": 512},
{"work": "decode", "tokens": 64, "context": 512, "batch": 8}, {"work": "questions", "count": 8, "tokens": 32, "ids": [[...], ...]}.
An answer holds the seconds of one run and values to compare with. Inputs are the formulas of `crates/model/src/bench/ours.rs`.
"""

import json
import os
import sys
import time

import numpy as np
import torch
import transformers
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration

FOLDER, THREADS, DEVICE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
DTYPE = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[4]]

torch.set_num_threads(THREADS)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load(folder):
    if os.path.exists(f"{folder}/model.safetensors"):
        model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=DTYPE, attn_implementation="sdpa")
        return model.to(DEVICE).eval()
    config = AutoConfig.from_pretrained(folder)
    with torch.device(DEVICE):
        return Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=DTYPE, attn_implementation="sdpa").eval()


MODEL = load(FOLDER)
CACHES = {}


def clock():
    if DEVICE != "cpu":
        torch.cuda.synchronize(DEVICE)
    return time.perf_counter(), time.process_time()


def since(start):
    now = clock()
    return {"seconds": now[0] - start[0], "cpu_seconds": now[1] - start[1]}


def token_ids(count, sequences=1):
    ids = [[(i * 7919 + 13 + s * 101) % 997 for i in range(count)] for s in range(sequences)]
    return torch.tensor(ids, device=DEVICE)


def patches(count, values):
    """One temporal copy of each patch, twice: an image is shown to the tower as two equal frames."""
    at = np.arange(count * values, dtype=np.uint64)
    one = ((at * 2654435761 % (1 << 32)).astype(np.float64) / (1 << 31) - 1.0).astype(np.float32)
    one = one.reshape(count, 3, 1, values // 3)
    return torch.from_numpy(np.broadcast_to(one, (count, 3, 2, values // 3)).reshape(count, 2 * values).copy())


def vision(frames, side):
    config = MODEL.config.vision_config
    rows = side // config.patch_size
    grid = torch.tensor([[1, rows, rows]] * frames, device=DEVICE)
    pixels = patches(frames * rows * rows, 3 * config.patch_size**2).to(DEVICE, DTYPE)
    start = clock()
    out = MODEL.model.visual(pixels, grid_thw=grid)
    used = since(start)
    out = getattr(out, "pooler_output", out)
    return {**used, "values": out[-1].tolist()}


def run(ids, past=None):
    return MODEL(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)


def prefill(tokens):
    ids = token_ids(tokens)
    start = clock()
    out = run(ids)
    used = since(start)
    return {**used, "values": out.logits[0, -1, ::101].tolist()}


def greedy(token, past, tokens):
    """Tokens one by one, of all sequences together: the last logits and the tokens of each sequence."""
    chosen = []
    for _ in range(tokens):
        logits = run(token, past).logits[:, -1]
        token = logits.argmax(-1, keepdim=True)
        chosen.append(token)
    return logits, torch.cat(chosen, 1)


def decode(tokens, context, batch):
    if (context, batch) not in CACHES:
        CACHES.clear()
        CACHES[context, batch] = run(token_ids(context, batch)).past_key_values
    past = CACHES[context, batch]
    if past.get_seq_length() > context:
        past.crop(context - past.get_seq_length())
    start = clock()
    logits, chosen = greedy(torch.full((batch, 1), 7, device=DEVICE), past, tokens)
    used = since(start)
    return {**used, "values": logits[0, ::101].tolist(), "tokens": chosen.flatten().tolist()}


def questions(count, context, tokens, ids):
    """All prompts have the same length, so that the batch needs no padding."""
    ids = torch.tensor(ids, device=DEVICE)
    assert len(ids) == count, (len(ids), count)
    start = clock()
    out = run(ids)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    chosen = [token]
    if tokens > 1:
        chosen.append(greedy(token, out.past_key_values, tokens - 1)[1])
    used = since(start)
    return {**used, "values": [1.0], "tokens": torch.cat(chosen, 1).flatten().tolist()}


def answer(request):
    works = {"vision": vision, "prefill": prefill, "decode": decode, "questions": questions}
    work = works[request.pop("work")]
    with torch.inference_mode():
        return work(**request)


versions = f"transformers {transformers.__version__}, torch {torch.__version__}, sdpa, {sys.argv[4]}"
print(json.dumps({"ready": versions, "threads": torch.get_num_threads()}), flush=True)
for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
