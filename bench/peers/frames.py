"""One row of `spectemp bench frames`: uniform frames of a video behind a URL, read by another library.

usage: frames.py READER MODE URL FRAMES SECONDS
  READER  pyav | decord | torchcodec-approximate | torchcodec-exact
  MODE    exact (the frame shown at each time) | keyframe (the nearest keyframe)
Prints one JSON line: milliseconds from opening to the last frame at 448x252 and processor time (imports not counted),
frames decoded where the library tells, frames returned, peak resident memory, and what of it the imports took.
"""

import json
import sys
import time

WIDTH, HEIGHT = 448, 252


def memory_mib():
    # Not getrusage: its maximum starts with the memory of the process that started this one.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def pyav(url, times, mode):
    decoded, frames = 0, []
    with av.open(url) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for wanted in times:
            container.seek(int(wanted / stream.time_base), stream=stream, backward=True)
            shown = None
            for frame in container.decode(stream):
                decoded += 1
                if mode == "keyframe":
                    shown = frame
                    break
                if frame.time > wanted + 1e-6:
                    break
                shown = frame
            frames.append(shown.to_ndarray(width=WIDTH, height=HEIGHT, format="rgb24"))
    return frames, decoded


def decord_reader(url, times, mode):
    reader = decord.VideoReader(url, width=WIDTH, height=HEIGHT)
    rate = reader.get_avg_fps()
    wanted = [min(int(t * rate), len(reader) - 1) for t in times]
    if mode == "keyframe":
        keyframes = reader.get_key_indices()
        wanted = [min(keyframes, key=lambda k: abs(k - n)) for n in wanted]
    return list(reader.get_batch(wanted).asnumpy()), None


def torchcodec(url, times, seek_mode):
    decoder = VideoDecoder(url, seek_mode=seek_mode)
    batch = decoder.get_frames_played_at(seconds=times).data
    small = interpolate(batch.float(), size=(HEIGHT, WIDTH), mode="bicubic", antialias=True)
    return list(small), None


reader, mode, url, count, seconds = sys.argv[1:]
count, seconds = int(count), float(seconds)
times = [(k + 0.5) * seconds / count for k in range(count)]
if reader == "pyav":
    import av
elif reader == "decord":
    import decord
else:
    from torch.nn.functional import interpolate
    from torchcodec.decoders import VideoDecoder
imported = memory_mib()

started, worked = time.perf_counter(), time.process_time()
if reader == "pyav":
    frames, decoded = pyav(url, times, mode)
elif reader == "decord":
    frames, decoded = decord_reader(url, times, mode)
else:
    frames, decoded = torchcodec(url, times, reader.removeprefix("torchcodec-"))
ms = (time.perf_counter() - started) * 1000
cpu_ms = (time.process_time() - worked) * 1000
print(json.dumps({
    "ms": ms,
    "cpu_ms": cpu_ms,
    "decoded": decoded,
    "returned": len(frames),
    "peak_memory_mib": memory_mib(),
    "import_memory_mib": imported,
}))
