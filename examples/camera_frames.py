"""Ask about what a camera or a clip shows.

python examples/camera_frames.py "What do you see?" --video clip.mp4
python examples/camera_frames.py "What do you see?" --video /dev/video0 --format v4l2
"""

import argparse

import av

from omni.client import OmniClient

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question")
parser.add_argument("--video", default="/dev/video0", help="a file, or a camera with --format")
parser.add_argument("--format", help="v4l2 on Linux, avfoundation on macOS, dshow on Windows")
parser.add_argument("--every", type=float, default=1.0, help="seconds between two frames")
parser.add_argument("--frames", type=int, default=5, help="how many to look at")
parser.add_argument("--url", default="http://127.0.0.1:7860")
options = parser.parse_args()

with OmniClient(options.url) as omni, av.open(options.video, format=options.format) as video:
    due, sent = 0.0, 0
    for frame in video.decode(video=0):
        if frame.time is not None and frame.time < due:
            continue
        due = (frame.time or 0.0) + options.every
        # The latest frame is part of the user's next turn: in live talk, send one a second.
        omni.send_image(frame.to_ndarray(format="rgb24"))
        reply = omni.ask(options.question, output_modalities=["text"])
        print(f"{frame.time or 0.0:6.1f} s  {reply.text}")
        sent += 1
        if sent == options.frames:
            break
