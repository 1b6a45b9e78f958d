"""Ask one question and print the answer as it comes.

python examples/ask.py "What is the capital of France?" --image cat.jpg --speak answer.wav
"""

import argparse

from omni.client import OmniClient

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question")
parser.add_argument("--url", default="http://127.0.0.1:7860")
parser.add_argument("--image", help="a picture that the question is about")
parser.add_argument("--speak", help="save the spoken answer in this WAV file")
options = parser.parse_args()

modalities = ["audio"] if options.speak else ["text"]
with (
    OmniClient(options.url) as omni,
    omni.stream(options.question, image=options.image, output_modalities=modalities) as answer,
):
    for piece in answer:
        print(piece.text, end="", flush=True)
print()
if options.speak:
    answer.reply.save(options.speak)
