"""RegNetZ in the sizes of timm: inverted bottlenecks whose convolutions are over groups of channels.

Dollar et al. 2021, "Fast and Accurate Model Scaling" (arXiv 2103.06877). The sizes C16 and D8 are timm's own,
where the number is that of the channels of a group: `regnetz_c16` and `regnetz_d8` in timm 1.0.31, with its
padding. Squeeze-excite has a quarter of the channels inside the block, which are as many as come into it.
"""

import functools

from flax import linen as nn

from evonorms_jax.models.inverted_bottleneck import InvertedBottleneckNet, InvertedStage


def _stages(*rows: tuple[int, int, int]) -> tuple[InvertedStage, ...]:
    """Stages by their channels, blocks and stride."""
    return tuple(InvertedStage(*row, expansion=4, kernel=3, squeeze=1.0) for row in rows)


_RegNetZ = functools.partial(InvertedBottleneckNet, squeeze_activation=nn.relu, symmetric=True)
RegNetZC16 = functools.partial(
    _RegNetZ,
    stages=_stages((48, 2, 2), (96, 6, 2), (192, 12, 2), (288, 2, 2)),
    stem_features=32,
    head_features=1536,
    group_size=16,
)
RegNetZD8 = functools.partial(
    _RegNetZ,
    stages=_stages((64, 3, 1), (128, 6, 2), (256, 12, 2), (384, 3, 2)),
    stem_features=64,
    deep_stem=True,
    head_features=1792,
    group_size=8,
)
