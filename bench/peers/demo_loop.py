"""The demonstration as a plain loop over HF transformers: accuracy by length and strategy, for comparison.

The archive is the project's own: `raw` is the example of crates/demo, built with
    cargo build --release -p spectemp-demo --example raw
usage: demo_loop.py RAW --lengths 64,300,1200 --questions 24 [--fps 2] [--keyframes] [--cache DIR] [--out FILE.json]
"""

import argparse
import json
import math
import pathlib
import subprocess
import time
from collections import Counter, defaultdict

import av
import numpy as np
import torch

import demo_pair as pair


def video_file(raw, cache, seed, seconds, fps):
    """Path and plan of a video, encoded once."""
    path = cache / f"{seed}-{seconds}-{fps}.mp4"
    plan = path.with_suffix(".json")
    if not plan.exists():
        painter = subprocess.Popen([raw, str(seed), str(seconds), str(fps)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        subprocess.run(
            f"ffmpeg -v error -y -f rawvideo -pix_fmt rgb24 -s 112x112 -r {fps} -i - -c:v libx264 -preset veryfast"
            f" -crf 25 -pix_fmt yuv420p -threads 1 {path}".split(),
            stdin=painter.stdout,
            check=True,
        )
        plan.write_bytes(painter.stderr.read())
        if painter.wait() != 0:
            raise RuntimeError(f"{raw} failed: {plan.read_text()}")
    return path, json.loads(plan.read_text())


class Video:
    """All frames of a file, decoded in order."""

    def __init__(self, path):
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            self.pts = np.array([float(f.pts * stream.time_base) for f in frames])
            self.pts -= self.pts[0]
            self.keys = np.array([f.key_frame for f in frames])
            self.images = [f.to_ndarray(format="rgb24") for f in frames]
            self.duration = self.pts[-1] + float(1 / stream.average_rate)

    def exact(self, wanted):
        return max(int(np.searchsorted(self.pts, wanted + 1e-6, side="right")) - 1, 0)

    def uniform(self, count, tolerance):
        """(k + 0.5)·D/K; the nearest keyframe within `tolerance` steps where that is over 0."""
        step, chosen = self.duration / count, []
        for k in range(count):
            wanted = (k + 0.5) * step
            index = self.exact(wanted)
            near = [i for i in np.flatnonzero(self.keys) if abs(self.pts[i] - wanted) <= tolerance * step and i not in chosen]
            chosen.append(min(near, key=lambda i: abs(self.pts[i] - wanted)) if near else index)
        return chosen


class Loop:
    """The three strategies; each returns the answer and the frames that the target saw."""

    def __init__(self, tolerance):
        self.target, self.draft, self.tolerance = pair.Model("target"), pair.Model("draft"), tolerance
        self.turns = []

    def say(self, model, role, prompt, images):
        text, ids = model.generate(prompt, images)
        self.turns.append({"role": role, "prompt": prompt, "images": images, "text": text, "ids": ids})
        return text

    def round0(self, video, question, count, final=False):
        frames = video.uniform(count, self.tolerance)
        labels = pair.whole_seconds(video.pts[frames])
        images = [self.target.scale(video.images[i]) for i in frames]
        prompt = pair.first_prompt(self.target, labels, int(np.rint(video.duration)), question, final)
        return prompt, images, self.say(self.target, "target", prompt, images)

    def uniform(self, video, question):
        _, images, text = self.round0(video, question, 16, final=True)
        return pair.tag(text, "answer"), len(images)

    def dense(self, video, span, cap=440):
        start, end = max(span[0], 0), min(span[1], video.duration)
        step = max(1.0, (end - start) / cap)
        times = start + step * np.arange(math.ceil((end - start) / step - 1e-9))
        return [video.exact(t) for t in times]

    def spectemp(self, video, question, rounds=3):
        prompt, images, text = self.round0(video, question, 10)
        for no in range(1, rounds + 1):
            span = pair.numbers(pair.tag(text, "segment"))
            if len(span) != 2:
                break
            frames = self.dense(video, span)
            labels = pair.whole_seconds(video.pts[frames])
            shown = [self.draft.scale(video.images[i]) for i in frames]
            think = (pair.tag(text, "think") or "").strip()
            picks = self.say(self.draft, "draft", pair.draft_prompt(self.draft, labels, question, think), shown)
            wanted = sorted({int(n) for n in pair.numbers(pair.tag(picks, "frame")) if int(n) in labels})
            prompt += text + pair.next_prompt(self.target, wanted, final=no == rounds)
            images = images + [self.target.scale(video.images[frames[labels.index(label)]]) for label in wanted]
            text = self.say(self.target, "target", prompt, images)
        return pair.tag(text, "answer"), len(images)

    def target_uniform(self, video, question, count=6):
        prompt, images, text = self.round0(video, question, 10)
        span = pair.numbers(pair.tag(text, "segment"))
        if len(span) == 2:
            start, end = max(span[0], 0), min(span[1], video.duration)
            frames = [video.exact(start + (k + 0.5) * (end - start) / count) for k in range(count)]
            labels = pair.whole_seconds(video.pts[frames])
            prompt += text + pair.next_prompt(self.target, labels, final=True)
            images = images + [self.target.scale(video.images[i]) for i in frames]
            text = self.say(self.target, "target", prompt, images)
        return pair.tag(text, "answer"), len(images)


def wilson(right, count, z=1.96):
    p, d = right / count, 1 + z * z / count
    centre = (p + z * z / (2 * count)) / d
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / d
    return centre - half, centre + half


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("raw")
    parser.add_argument("--lengths", default="64,300,1200")
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--fps", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--keyframes", action="store_true", help="round 0 takes keyframes within 0.12 of a step")
    parser.add_argument("--strategies", default="spectemp,target_uniform,uniform")
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path("/tmp/spectemp-demo-loop"))
    parser.add_argument("--out", type=pathlib.Path)
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    loop = Loop(0.12 if arguments.keyframes else 0.0)
    rows = []
    for seconds in map(int, arguments.lengths.split(",")):
        right, seen, spent, wrong = Counter(), Counter(), Counter(), defaultdict(list)
        for n in range(arguments.questions):
            path, plan = video_file(arguments.raw, arguments.cache, arguments.seed + n, seconds, arguments.fps)
            video, asked = Video(path), plan["questions"][0]
            for strategy in arguments.strategies.split(","):
                begin = time.monotonic()
                loop.turns.clear()
                answer, frames = getattr(loop, strategy)(video, asked["text"])
                spent[strategy] += time.monotonic() - begin
                right[strategy] += answer == asked["answer"]
                seen[strategy] += frames
                if answer != asked["answer"]:
                    wrong[strategy].append([arguments.seed + n, asked["answer"], *(turn["text"] for turn in loop.turns)])
        for strategy in arguments.strategies.split(","):
            count = arguments.questions
            low, high = wilson(right[strategy], count)
            row = {"seconds": seconds, "strategy": strategy, "questions": count, "right": right[strategy],
                   "low": round(low, 3), "high": round(high, 3), "frames": seen[strategy] / count,
                   "seconds_each": round(spent[strategy] / count, 3)}
            rows.append(row)
            print(json.dumps(row), flush=True)
            if strategy == "spectemp":
                for line in wrong[strategy]:
                    print("  wrong:", line, flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
