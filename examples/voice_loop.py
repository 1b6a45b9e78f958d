"""Talk in a terminal: microphone and speaker, and speaking over an answer stops it.

pip install 'omni-assistant[audio]'
python examples/voice_loop.py            # wear headphones, or the assistant hears itself
"""

import argparse
import asyncio
import contextlib

from omni.client import AsyncOmniClient
from omni.client.devices import Microphone, Speaker
from omni.errors import OmniError

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", default="http://127.0.0.1:7860")
parser.add_argument("--microphone", help="a device that `python -m sounddevice` lists")
parser.add_argument("--speaker")
options = parser.parse_args()


async def listen(omni: AsyncOmniClient, microphone: Microphone) -> None:
    """Send all that the microphone hears."""
    async for chunk in microphone:
        await omni.send_audio(chunk)


async def talk(omni: AsyncOmniClient, speaker: Speaker) -> None:
    """Play the answers, and fall silent when the user speaks."""
    async for event in omni.events():
        if chunk := event.sound:
            speaker.play(chunk, event.item_id)
        elif event.type == "input_audio_buffer.speech_started":
            if heard := speaker.clear():
                await omni.truncate(heard.item_id, heard.heard_ms)
        elif event.type == "conversation.item.input_audio_transcription.completed":
            print("You: ", event.transcript)
        elif event.type == "response.output_audio_transcript.done":
            print("Omni:", event.transcript)
        elif event.type == "client.disconnected":
            speaker.clear()
            print("(the connection is lost; trying again)")


async def main() -> None:
    """Talk until Ctrl-C."""
    async with (
        AsyncOmniClient(options.url) as omni,
        Speaker(options.speaker) as speaker,
        Microphone(options.microphone) as microphone,
        asyncio.TaskGroup() as tasks,
    ):
        print("Speak; Ctrl-C ends.")
        tasks.create_task(listen(omni, microphone))
        tasks.create_task(talk(omni, speaker))


with contextlib.suppress(KeyboardInterrupt):
    try:
        asyncio.run(main())
    except* OmniError as errors:
        raise SystemExit(str(errors.exceptions[0])) from None
