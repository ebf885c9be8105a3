"""Using a trained adapter: answers at any strength, one by one or side by side."""

from dso.inference.choosing import Promise, choose
from dso.inference.decoding import Answer, Decoding, Heard, Request, decode
from dso.inference.pipeline import SteeredPipeline, load
from dso.inference.record import Record, read_record, write_record

__all__ = [
    "Answer",
    "Decoding",
    "Heard",
    "Promise",
    "Record",
    "Request",
    "SteeredPipeline",
    "choose",
    "decode",
    "load",
    "read_record",
    "write_record",
]
