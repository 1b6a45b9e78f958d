"""All routes of plain HTTP."""

from fastapi import APIRouter

from runtime.api.answers import router as answers
from runtime.api.chat import router as chat
from runtime.api.client_secrets import router as client_secrets
from runtime.api.docs import router as docs
from runtime.api.embeddings import router as embeddings
from runtime.api.images import router as images
from runtime.api.models import router as models
from runtime.api.search import router as search
from runtime.api.sessions import router as sessions
from runtime.api.speech import router as speech
from runtime.api.transcriptions import router as transcriptions
from runtime.api.vision import router as vision

router = APIRouter()
for part in (
    *(models, chat, transcriptions, speech, images, answers, embeddings, search, vision),
    *(client_secrets, sessions, docs),
):
    router.include_router(part)
