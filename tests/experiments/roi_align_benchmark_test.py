"""The benchmark of RoIAlign reports both forms. Times are never asserted."""

from evonorms_jax.detection.roi_align import RoiAlign
from experiments.benchmarks import roi_align


def test_both_forms_have_a_row():
    pyramid, regions = roi_align.inputs(1, 16, 2, 3, range(2, 4))
    assert {level: x.shape for level, x in pyramid.items()} == {2: (1, 4, 4, 3), 3: (1, 2, 2, 3)}
    assert regions.shape == (1, 2, 4) and (regions[..., 2:] > regions[..., :2]).all()
    rows = roi_align.measure(pyramid, regions, RoiAlign(sampling_ratio=1), 2, 1)
    assert [row["method"] for row in rows] == ["gather", "matmul"]
    assert all(row["milliseconds"] > 0 for row in rows)
    assert [row["ratio"] for row in rows] == [1, rows[1]["milliseconds"] / rows[0]["milliseconds"]]
    assert len(roi_align.table(rows).columns) == 4
