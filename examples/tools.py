"""Let the assistant call Python functions.

python examples/tools.py "How late is it in Tokyo?"
"""

import argparse
from datetime import datetime
from zoneinfo import ZoneInfo

from omni.client import OmniClient

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("question")
parser.add_argument("--url", default="http://127.0.0.1:7860")
options = parser.parse_args()


def get_time(time_zone: str) -> str:
    """Tell the date and time of a place.

    Args:
        time_zone: IANA name of its time zone, like Asia/Tokyo or Europe/Paris.

    """
    return datetime.now(ZoneInfo(time_zone)).strftime("%A, %H:%M")


def add(a: float, b: float) -> float:
    """Add two numbers."""
    return a + b


with OmniClient(options.url) as omni:
    reply = omni.ask(options.question, tools=[get_time, add], output_modalities=["text"])
for call in reply.tool_calls:
    print(f"{call.name}({call.arguments}) -> {call.output}")
print(reply.text)
