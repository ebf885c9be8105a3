"""Using a trained adapter: answers at any strength, one by one or side by side."""

from dso.inference.decoding import Answer, Decoding, Heard, Request, decode
from dso.inference.pipeline import SteeredPipeline, load

__all__ = ["Answer", "Decoding", "Heard", "Request", "SteeredPipeline", "decode", "load"]
