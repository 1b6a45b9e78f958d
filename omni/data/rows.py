"""A sample as a row of a table, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from omni.data.sample import Medium, Message, Sample
from omni.data.tables import pa

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("modality", pa.string()),
        (
            "messages",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        (
                            "parts",
                            pa.list_(pa.struct([("text", pa.string()), ("medium", pa.int32())])),
                        ),
                    ]
                )
            ),
        ),
        (
            "media",
            pa.list_(
                pa.struct([("kind", pa.string()), ("format", pa.string()), ("data", pa.binary())])
            ),
        ),
        ("meta", pa.string()),
        ("rejected", pa.string()),
    ]
)


def from_row(row: Mapping[str, Any]) -> Sample:
    """The sample of a row. Raises `InputError`, KeyError, TypeError or ValueError for a bad one."""
    messages = tuple(
        Message(
            m["role"], tuple(p["medium"] if p["text"] is None else p["text"] for p in m["parts"])
        )
        for m in row["messages"]
    )
    media = tuple(Medium(m["kind"], m["data"], m["format"]) for m in row["media"])
    meta = json.loads(row["meta"])
    sample = Sample(row["id"], row["modality"], messages, media, meta, row["rejected"])
    sample.check()
    return sample


def to_row(sample: Sample) -> dict[str, Any]:
    """The row of a sample. Raises `InputError` for a sample that makes no sense."""
    sample.check()
    return {
        "id": sample.id,
        "modality": sample.modality,
        "messages": [
            {
                "role": m.role,
                "parts": [
                    {"text": None, "medium": p}
                    if isinstance(p, int)
                    else {"text": p, "medium": None}
                    for p in m.parts
                ],
            }
            for m in sample.messages
        ],
        "media": [{"kind": m.kind, "format": m.format, "data": m.data} for m in sample.media],
        "meta": json.dumps(sample.meta, ensure_ascii=False, sort_keys=True),
        "rejected": sample.rejected,
    }
