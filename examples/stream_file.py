"""Speak a recording to the server in real time, as a microphone would, and save the answer.

python examples/stream_file.py question.wav answer.wav
"""

import argparse
import asyncio

import numpy as np

from omni.client import AsyncOmniClient, save_wav, speak_in_real_time
from omni.types import AudioChunk

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("recording")
parser.add_argument("answer")
parser.add_argument("--url", default="http://127.0.0.1:7860")
options = parser.parse_args()


async def main() -> None:
    """Speak, and listen meanwhile: the server finds the end of the question by itself."""
    sound = []
    async with AsyncOmniClient(options.url) as omni:
        speaking = asyncio.create_task(
            speak_in_real_time(omni, options.recording, tail_silence=30.0)
        )
        async for event in omni.events():
            if event.type == "conversation.item.input_audio_transcription.completed":
                print("You: ", event.transcript)
            elif chunk := event.sound:
                sound.append(chunk.pcm)
            elif event.type == "response.output_audio_transcript.done":
                print("Omni:", event.transcript)
            elif event.type == "response.done" and event.response["status"] == "completed":
                print("first sound after", event.response["timings"].get("first_audio"), "ms")
                break
        speaking.cancel()
    save_wav(options.answer, AudioChunk(np.concatenate(sound), 24_000))


asyncio.run(main())
