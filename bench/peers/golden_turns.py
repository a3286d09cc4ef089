"""Golden turns of the demonstration pair: what HF transformers writes for given frames and prompts.

usage: golden_turns.py RAW OUT_DIR     (RAW: the example `raw` of crates/demo, see demo_loop.py)

OUT_DIR/turns.safetensors holds the frames as the models see them: `target` [n, 56, 56, 3] and `draft` [m, 28, 28, 3], u8.
OUT_DIR/turns.json lists the turns: `messages` (parts are a text, the index of an image, or what the model generated
before, with its ids), `prompt_ids`, and the greedy output as `text` and `ids` without the end token. `gap` is the
smallest difference of the two highest logits: an implementation's error must stay below half of it.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

import demo_loop
import demo_pair as pair

WANTED = {"look_up": 3, "digit_in_round_0": 2, "draft_pick": 3, "later_answer": 3, "next_segment": 2, "answer_now": 3}


class Recorder(demo_loop.Loop):
    """The loop, keeping each turn with its messages."""

    def __init__(self):
        super().__init__(0.12)
        self.frames = {"target": [], "draft": []}
        self.golden = {kind: [] for kind in WANTED}

    def index(self, role, image):
        known = self.frames[role]
        for i, other in enumerate(known):
            if np.array_equal(other, image):
                return i
        known.append(image)
        return len(known) - 1

    def keep(self, turn, earlier):
        """`earlier`: the target's turns before this one, in the same context."""
        kind = kind_of(turn, earlier)
        ids = (self.target if turn["role"] == "target" else self.draft).ids(turn["prompt"])
        if len(self.golden[kind]) == WANTED[kind] or any(known["prompt_ids"] == ids for known in self.golden[kind]):
            return
        model = self.target if turn["role"] == "target" else self.draft
        gap = smallest_gap(model, turn)
        if gap < 1e-3:
            return
        self.golden[kind].append({
            "kind": kind,
            "role": turn["role"],
            "messages": self.messages(model, turn, earlier),
            "prompt_ids": ids,
            "text": turn["text"],
            "ids": turn["ids"],
            "gap": round(gap, 5),
        })

    def messages(self, model, turn, earlier):
        images, generated = iter(turn["images"]), iter(earlier)
        messages = []
        for block in turn["prompt"].split("<|im_start|>")[1:-1]:
            role, content = block.split("\n", 1)
            content = content.removesuffix("\n").removesuffix(pair.END)
            if role == "assistant":
                said = next(generated)
                assert content == said["text"]
                parts = [{"generated": content, "ids": said["ids"]}]
            else:
                parts = []
                for i, text in enumerate(content.split(model.image_text)):
                    if i:
                        parts.append({"image": self.index(turn["role"], next(images))})
                    if text:
                        parts.append({"text": text})
            messages.append({"role": role, "parts": parts})
        return messages


def kind_of(turn, earlier):
    if turn["role"] == "draft":
        return "draft_pick"
    if "\nAnswer now." in turn["prompt"]:
        return "answer_now"
    answered = pair.tag(turn["text"], "answer") is not None
    if earlier:
        return "later_answer" if answered else "next_segment"
    return "digit_in_round_0" if answered else "look_up"


@torch.no_grad()
def smallest_gap(model, turn):
    """One pass over prompt and output; its argmax must be the output, end token included."""
    prompt = model.ids(turn["prompt"])
    output = turn["ids"] + [model.end_id]
    ids = torch.tensor([prompt + output])
    pixels, grids = model.patches(turn["images"])
    logits = model.model(
        input_ids=ids, mm_token_type_ids=(ids == model.image_id).int(), pixel_values=pixels, image_grid_thw=grids
    ).logits[0, len(prompt) - 1 : -1]
    top = logits.topk(2).values
    assert logits.argmax(-1).tolist() == output, "one pass and generation differ"
    return float((top[:, 0] - top[:, 1]).min())


def record(recorder, video, question):
    for strategy in ("spectemp", "target_uniform", "uniform"):
        recorder.turns.clear()
        getattr(recorder, strategy)(video, question)
        earlier = []
        for turn in recorder.turns:
            recorder.keep(turn, earlier if turn["role"] == "target" else [])
            if turn["role"] == "target":
                earlier = earlier + [turn]


def record_wrong_frames(recorder, video, question):
    """A later round whose frames show no digit: the target asks for another segment."""
    recorder.turns.clear()
    prompt, images, text = recorder.round0(video, question, 10)
    span = pair.numbers(pair.tag(text, "segment"))
    if len(span) != 2:
        return
    frames = [video.exact(span[0] + 2), video.exact(span[0] + 4)]
    prompt += text + pair.next_prompt(recorder.target, pair.whole_seconds(video.pts[frames]))
    images = images + [recorder.target.scale(video.images[i]) for i in frames]
    recorder.say(recorder.target, "target", prompt, images)
    recorder.keep(recorder.turns[1], recorder.turns[:1])


def main():
    raw, out = sys.argv[1], pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    cache = pathlib.Path("/tmp/spectemp-golden-turns")
    cache.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    recorder = Recorder()
    # One video of five minutes for a long draft turn; the rest short, to keep the files small.
    for n in range(200):
        path, plan = demo_loop.video_file(raw, cache, 9000 + n, 300 if n == 0 else 64, 2)
        video, question = demo_loop.Video(path), plan["questions"][0]["text"]
        record(recorder, video, question)
        record_wrong_frames(recorder, video, question)
        if all(len(turns) == WANTED[kind] for kind, turns in recorder.golden.items()):
            break
    turns = [turn for kind in recorder.golden.values() for turn in kind]
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    (out / "turns.json").write_text(json.dumps({"made_with": versions, "turns": turns}, separators=(",", ":")) + "\n")
    tensors = out / "turns.safetensors"
    save_file({role: np.stack(frames) for role, frames in recorder.frames.items()}, tensors)
    tensors.chmod(0o644)
    for turn in turns:
        print(turn["kind"], turn["gap"], turn["text"])


if __name__ == "__main__":
    main()
