"""Requests that the page of the API shows; each can be sent as it is."""

from __future__ import annotations

from typing import Any

_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLv"
    "AAAAAElFTkSuQmCC"
)

CHAT: dict[str, Any] = {
    "text": {
        "summary": "A question",
        "value": {
            "model": "omni",
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        },
    },
    "stream": {
        "summary": "A stream",
        "value": {
            "model": "omni",
            "messages": [{"role": "user", "content": "Tell me about the sea."}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    },
    "picture": {
        "summary": "A picture",
        "value": {
            "model": "omni",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": _PIXEL}},
                    ],
                }
            ],
        },
    },
    "speech": {
        "summary": "A spoken answer",
        "value": {
            "model": "omni",
            "modalities": ["text", "audio"],
            "audio": {"voice": "alloy", "format": "mp3"},
            "messages": [{"role": "user", "content": "Say hello."}],
        },
    },
    "tools": {
        "summary": "A tool",
        "value": {
            "model": "omni",
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "get_weather",
                        "description": "The weather of a city",
                        "parameters": {
                            "type": "object",
                            "properties": {"city": {"type": "string"}},
                            "required": ["city"],
                        },
                    },
                }
            ],
        },
    },
}

SPEECH: dict[str, Any] = {
    "mp3": {
        "summary": "An MP3",
        "value": {"model": "omni", "voice": "alloy", "input": "Good morning. How are you?"},
    },
    "wav": {
        "summary": "A WAV, slower",
        "value": {
            "model": "omni",
            "voice": "auto",
            "input": "Good morning. 你好。",
            "response_format": "wav",
            "speed": 0.9,
        },
    },
}

TRANSCRIPTION: dict[str, Any] = {
    "text": {
        "summary": "Only the words",
        "value": {"file": "@question.wav", "response_format": "text"},
    },
    "words": {
        "summary": "With the times of words",
        "value": {
            "file": "@question.wav",
            "response_format": "verbose_json",
            "timestamp_granularities[]": "word",
        },
    },
}

EMBEDDINGS: dict[str, Any] = {
    "texts": {
        "summary": "Two sentences",
        "value": {
            "model": "use-multilingual-v3",
            "input": ["Where is the station?", "车站在哪里？"],
        },
    },
}

IMAGES: dict[str, Any] = {
    "apple": {"summary": "One picture", "value": {"prompt": "a red apple"}},
    "stars": {
        "summary": "Two of them, with a seed",
        "value": {"prompt": "三颗蓝色的星星", "n": 2, "size": "512x512", "seed": 7},
    },
}

SEARCH: dict[str, Any] = {
    "words": {
        "summary": "By description, with a price",
        "value": {"query": "red floral dress, long, under 50", "limit": 5},
    },
    "chinese": {"summary": "In Chinese", "value": {"query": "50元以下的红色连衣裙"}},
    "picture": {"summary": "What looks alike", "value": {"image": _PIXEL}},
}

VISION: dict[str, Any] = {
    "caption": {"summary": "Describe", "value": {"images": [_PIXEL]}},
    "questions": {
        "summary": "Ask, and match",
        "value": {
            "images": [_PIXEL],
            "questions": ["Is there a red square?"],
            "sentences": ["A red square.", "A cat on a sofa."],
        },
    },
}

ANSWERS: dict[str, Any] = {
    "questions": {
        "summary": "Two questions about a recording",
        "value": {"file": "@meeting.mp3", "ask": ["What was decided?", "Who was there?"]},
    },
    "words": {"summary": "Only what is said", "value": {"file": "@call.wav", "words": "true"}},
}
