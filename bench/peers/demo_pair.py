"""The demonstration pair in HF transformers: prompts as text, frames as arrays, greedy generation on the CPU in f32."""

import pathlib
import re

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from transformers import Qwen2_5_VLForConditionalGeneration

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models" / "demo"
MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
PATCH, MERGE = 14, 2
END = "<|im_end|>"


class Model:
    """One checkpoint of the pair. `side`: frames are side x side pixels."""

    def __init__(self, role):
        folder = MODELS / role
        self.side = {"target": 56, "draft": 28}[role]
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        tokens = (self.side // PATCH // MERGE) ** 2
        self.image_text = "<|vision_start|>" + "<|image_pad|>" * tokens + "<|vision_end|>"
        self.image_id = self.model.config.image_token_id
        self.end_id = self.tokenizer.token_to_id(END)

    def scale(self, frame):
        """A frame [H, W, 3] u8 at the size that the model sees."""
        return np.asarray(Image.fromarray(frame).resize((self.side, self.side), Image.BICUBIC))

    def patches(self, images):
        """Images [side, side, 3] u8 as rows of patches in merge-block order, both temporal copies equal."""
        grid = self.side // PATCH
        x = (np.stack(images).astype(np.float32) / 255 - MEAN) / STD
        x = x.reshape(len(images), grid // MERGE, MERGE, PATCH, grid // MERGE, MERGE, PATCH, 3)
        x = x.transpose(0, 1, 4, 2, 5, 7, 3, 6).reshape(len(images) * grid * grid, 3, 1, PATCH, PATCH)
        rows = np.repeat(x, 2, axis=2).reshape(len(images) * grid * grid, -1)
        return torch.from_numpy(rows), torch.tensor([[1, grid, grid]] * len(images))

    def ids(self, prompt):
        return self.tokenizer.encode(prompt, add_special_tokens=False).ids

    @torch.no_grad()
    def generate(self, prompt, images, max_new_tokens=64):
        """The text after `prompt` (images already expanded, one `image_text` per entry of `images`), and its ids."""
        ids = torch.tensor([self.ids(prompt)])
        pixels, grids = self.patches(images)
        out = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == self.image_id).int(),
            pixel_values=pixels,
            image_grid_thw=grids,
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )[0, ids.shape[1] :].tolist()
        if out and out[-1] == self.end_id:
            out = out[:-1]
        return self.tokenizer.decode(out, skip_special_tokens=False), out


def tag(text, name):
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.S)
    return found.group(1) if found else None


def numbers(text):
    return [float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", text or "")]


def whole_seconds(times):
    """Labels: whole seconds (half to even), strictly rising."""
    labels, last = [], -1
    for time in times:
        last = max(int(np.rint(time)), last + 1)
        labels.append(last)
    return labels


def shown(model, labels):
    return "".join(f"{label}{model.image_text}" for label in labels)


def first_prompt(target, labels, duration, question, final=False):
    demand = "\nAnswer now." if final else ""
    return (
        f"<|im_start|>user\n0 {shown(target, labels)}{duration}\n{question}{demand}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def next_prompt(target, labels, final=False):
    """What follows the target's last text."""
    demand = "\nAnswer now." if final else ""
    return f"{END}\n<|im_start|>user\n{shown(target, labels)}{demand}<|im_end|>\n<|im_start|>assistant\n"


def draft_prompt(draft, labels, question, think):
    return (
        f"<|im_start|>user\n{shown(draft, labels)}\n{question} {think}<|im_end|>\n<|im_start|>assistant\n"
    )
