"""EvoNorm layers and the search that finds them."""

__version__ = "0.1.0"
