"""Plain NumPy forms, in float64 and with loops, of the pure functions of a detector."""

import numpy as np


def overlap(first, second):
    """Intersection over union of two boxes."""
    y0, x0 = np.maximum(first[:2], second[:2])
    y1, x1 = np.minimum(first[2:], second[2:])
    shared = max(0.0, y1 - y0) * max(0.0, x1 - x0)
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - shared
    return shared / union if union > 0 else 0.0


def overlaps(first, second):
    """All pairs, in float64 of the float32 values that the code under test sees."""
    first, second = (np.asarray(boxes, np.float64) for boxes in (first, second))
    return np.array([[overlap(one, other) for other in second] for one in first]).reshape(
        len(first), len(second)
    )


def greedy_suppression(boxes, scores, valid, threshold, groups=None):
    """Indices of the boxes that a greedy loop keeps, by falling score and then by index."""
    order = sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i))
    kept = []
    for i in order:
        rivals = [j for j in kept if groups is None or groups[i] == groups[j]]
        if all(np.float32(overlap(boxes[i], boxes[j])) <= np.float32(threshold) for j in rivals):
            kept.append(i)
    return kept


def roi_align(pyramid, region, level, bins, *, aligned=True, ratio=2):
    """Features `[K, K, C]` of one region of one image; `pyramid` has maps `[H, W, C]` by level."""
    features = np.asarray(pyramid[level], np.float64)
    y0, x0, y1, x1 = np.asarray(region, np.float64) / 2**level - (0.5 if aligned else 0.0)
    result = np.zeros((bins, bins, features.shape[-1]))
    for i in range(bins):
        for j in range(bins):
            for a in range(ratio):
                for b in range(ratio):
                    y = y0 + (i + (a + 0.5) / ratio) * (y1 - y0) / bins
                    x = x0 + (j + (b + 0.5) / ratio) * (x1 - x0) / bins
                    result[i, j] += bilinear(features, y, x) / ratio**2
    return result


def bilinear(features, y, x):
    """The value at a coordinate, which is clamped to the map."""
    y, x = np.clip(y, 0, features.shape[0] - 1), np.clip(x, 0, features.shape[1] - 1)
    low_y, low_x = int(y), int(x)
    high_y, high_x = min(low_y + 1, features.shape[0] - 1), min(low_x + 1, features.shape[1] - 1)
    upper = features[low_y, low_x] * (1 - x + low_x) + features[low_y, high_x] * (x - low_x)
    lower = features[high_y, low_x] * (1 - x + low_x) + features[high_y, high_x] * (x - low_x)
    return upper * (1 - y + low_y) + lower * (y - low_y)


def random_boxes(rng, count, extent=64.0, least=4.0, most=40.0):
    """Boxes float32 with sides between `least` and `most` whose centres lie in the canvas."""
    size = rng.uniform(least, most, (count, 2))
    centre = rng.uniform(0, extent, (count, 2))
    return np.concatenate([centre - size / 2, centre + size / 2], 1).astype(np.float32)
