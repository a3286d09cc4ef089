"""The SpecTemp loop with HF transformers, as the peer of `spectemp bench loop`.

    loop_hf.py TARGET DRAFT THREADS DEVICE DTYPE

loads both checkpoint folders (`cpu f32`, `cuda:0 bf16`), or makes models of their config.json with random weights on the device
where they hold none, and answers requests, one JSON object per line on stdin and stdout:
{"work": "loop", "questions": [[turn, ...], ...]}. A turn names its model and holds the prompt's ids, the sides and colours of
its frames, and the tokens that were generated. It is done as the papers' scripts do it: the frames go through the image
processor and the tower, the whole context is prefilled, then tokens are generated one by one. So that both sides do the
same work the given tokens are fed; `equal_tokens` counts those that this model would have chosen, too.
"""

import json
import os
import sys
import time

import numpy as np
import torch
import transformers
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

TARGET, DRAFT, THREADS, DEVICE = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
DTYPE = {"f32": torch.float32, "bf16": torch.bfloat16}[sys.argv[5]]

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


MODELS = {"target": load(TARGET), "draft": load(DRAFT)}
PROCESSOR = Qwen2VLImageProcessor()


def generate(model, turn):
    """Tokens of `turn` that the model would have chosen."""
    side = turn["side"]
    frames = [np.full((side, side, 3), colour, np.uint8) for colour in turn["colours"]]
    images = PROCESSOR(images=frames, return_tensors="pt")
    ids = torch.tensor([turn["ids"]], device=DEVICE)
    kinds = (ids == model.config.image_token_id).to(torch.int32)
    out = model(
        input_ids=ids,
        mm_token_type_ids=kinds,
        pixel_values=images["pixel_values"].to(DEVICE, DTYPE),
        image_grid_thw=images["image_grid_thw"].to(DEVICE),
        use_cache=True,
        logits_to_keep=1,
    )
    equal = 0
    for at, token in enumerate(turn["forced"]):
        equal += int(out.logits[0, -1].argmax()) == token
        if at + 1 < len(turn["forced"]):
            out = model(
                input_ids=torch.tensor([[token]], device=DEVICE),
                past_key_values=out.past_key_values,
                use_cache=True,
                logits_to_keep=1,
            )
    return equal


def answer(request):
    start = time.perf_counter(), time.process_time()
    equal = sum(generate(MODELS[turn["model"]], turn) for turns in request["questions"] for turn in turns)
    now = time.perf_counter(), time.process_time()
    return {
        "seconds": now[0] - start[0],
        "cpu_seconds": now[1] - start[1],
        "values": [],
        "equal_tokens": equal,
    }


versions = f"transformers {transformers.__version__}, torch {torch.__version__}, sdpa, {sys.argv[5]}"
print(json.dumps({"ready": versions, "threads": torch.get_num_threads()}), flush=True)
for line in sys.stdin:
    with torch.inference_mode():
        print(json.dumps(answer(json.loads(line))), flush=True)
