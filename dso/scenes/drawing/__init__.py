"""Scenes as pictures, drawn from vector shapes, and the regions of their pixels."""

from dso.scenes.drawing.render import REGIONS, SIZES, Masks, PersonMasks, Region, masks, render

__all__ = ["REGIONS", "SIZES", "Masks", "PersonMasks", "Region", "masks", "render"]
