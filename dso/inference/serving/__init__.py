"""A small HTTP server in the shape of OpenAI's chat completions: pip install "dso[serve]"."""

from dso.inference.serving.app import create_app
from dso.inference.serving.batching import Batcher, Job
from dso.inference.serving.errors import ApiError
from dso.inference.serving.metrics import Metrics
from dso.inference.serving.schema import ChatRequest, parse
from dso.inference.serving.settings import Serving

__all__ = [
    "ApiError",
    "Batcher",
    "ChatRequest",
    "Job",
    "Metrics",
    "Serving",
    "create_app",
    "parse",
]
