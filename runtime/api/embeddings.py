"""``POST /v1/embeddings``."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Request
from pydantic import Field

from omni.errors import InputError
from runtime.api.chat_body import Strict
from runtime.api.examples import EMBEDDINGS as EXAMPLES
from runtime.api.models import EMBEDDINGS, check_model
from runtime.api.slot import ready_hub, while_connected
from runtime.hub import Hub
from runtime.wire import encode_base64

router = APIRouter(tags=["embeddings"])

MAX_TEXTS = 2048


class EmbeddingsRequest(Strict):
    """Texts to embed."""

    input: str | list[str] | list[int] | list[list[int]] = Field(
        description="A text, or up to 2048. Tokens are not supported."
    )
    model: str = EMBEDDINGS
    encoding_format: Literal["float", "base64"] = Field(
        default="float", description="`base64` is of 32-bit little-endian floats."
    )
    dimensions: int | None = Field(default=None, description="Only 512, which it always is.")
    user: str | None = Field(default=None, description="Ignored.")


@router.post("/v1/embeddings", summary="Turn texts into vectors of their meaning")
async def create_embeddings(
    request: Request, body: Annotated[EmbeddingsRequest, Body(openapi_examples=EXAMPLES)]
) -> dict[str, Any]:
    """The cosine of two vectors says how alike the texts mean, in 16 languages and across them.

    The first request fetches the model (33 MB). Of a long text the first 2048 tokens count.
    """
    hub = ready_hub(request)
    if not body.model.startswith("text-embedding-"):  # OpenAI's, which stock clients ask for
        check_model(hub, body.model)
    texts = _texts(body)
    vectors, tokens = await while_connected(request, _embed(hub, texts, body.dimensions))
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": vector.tolist()
            if body.encoding_format == "float"
            else encode_base64(vector.astype("<f4").tobytes()),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": EMBEDDINGS, "usage": usage}


async def _embed(hub: Hub, texts: list[str], dimensions: int | None) -> tuple[Any, int]:
    async with hub.embedding:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(hub.pool, partial(_vectors, texts, dimensions))


def _vectors(texts: list[str], dimensions: int | None) -> tuple[Any, int]:
    """The vectors (N, 512) and how many tokens were read; blocks."""
    from omni import embedding  # loads torch, which a server of other parts does not need

    if dimensions not in (None, embedding.DIMENSIONS):
        raise InputError(
            f"the vectors of {EMBEDDINGS} have {embedding.DIMENSIONS} dimensions, not "
            f"{dimensions}; leave 'dimensions' out",
            param="dimensions",
            code="unsupported",
        )
    embedder = embedding.embedder()
    return embedder.encode(texts), sum(embedder.tokens(texts))


def _texts(body: EmbeddingsRequest) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise InputError(
            "'input' has token numbers, which mean something else to this model; send text",
            param="input",
            code="unsupported",
        )
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise InputError(f"'input' has {len(texts)} texts; send 1 to {MAX_TEXTS}", param="input")
    for index, text in enumerate(texts):
        if not text.strip():
            raise InputError(
                f"text {index} of 'input' is empty; every text needs a word", param="input"
            )
    return texts
