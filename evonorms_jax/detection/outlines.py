"""Outlines of pixel masks as polygons, which pycocotools draws back to exactly the same pixels."""

import numpy as np

# Directions of a walk along the edges of pixels, with the inside on the right hand: right, down, left, up.
_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def outline(mask: np.ndarray) -> list[list[float]] | None:
    """The polygons x0, y0, x1, y1, ... along the edges of a mask's pixels, or None if it has a hole.

    Polygons of COCO's format cannot have holes.

    Args:
        mask: bool `[H, W]`.
    """
    edges = _edges(mask)
    polygons = []
    while edges:
        corners, turns = _walk(edges)
        if turns < 0:
            return None  # a walk around a hole turns to the left
        polygons.append([float(value) for row, column in corners for value in (column, row)])
    return polygons


def _edges(mask: np.ndarray) -> dict[tuple[int, int], list[int]]:
    """Directions in which edges leave each corner."""
    padded = np.pad(mask, 1)
    edges: dict[tuple[int, int], list[int]] = {}
    # An edge separates a pixel inside from its neighbour above, on the right, below or on the left.
    for direction, (row, column) in enumerate(((-1, 0), (0, 1), (1, 0), (0, -1))):
        inside = padded & ~np.roll(padded, (-row, -column), (0, 1))
        start = ((0, 0), (0, 1), (1, 1), (1, 0))[direction]
        for place in np.argwhere(inside) - 1:
            edges.setdefault((int(place[0]) + start[0], int(place[1]) + start[1]), []).append(direction)
    return edges


def _walk(edges: dict[tuple[int, int], list[int]]) -> tuple[list[tuple[int, int]], int]:
    """Takes a closed walk out of the edges: its corners, and its right turns less its left turns."""
    first = place = next(iter(edges))
    last = begin = edges[place][0]
    corners, turns = [], 0
    while True:
        leaving = edges[place]
        # Where two pixels touch at a corner, the walk turns right and stays with its own pixel.
        direction = min(leaving, key=lambda each: (last - each + 1) % 4)
        leaving.remove(direction)
        if not leaving:
            del edges[place]
        if direction != last:
            corners.append(place)
            turns += 1 if direction == (last + 1) % 4 else -1
        last = direction
        place = (place[0] + _STEPS[direction][0], place[1] + _STEPS[direction][1])
        if place == first:
            break
    if begin != last:
        corners.append(place)
        turns += 1 if begin == (last + 1) % 4 else -1
    return corners, turns
