"""The hardware, versions and date of a result."""

import json

import jax

import evonorms_jax
from evonorms_jax.runs import provenance


def test_provenance_names_devices_versions_and_a_utc_time_as_json():
    found = json.loads(json.dumps([provenance.hardware(), provenance.versions()]))
    hardware, versions = found
    assert hardware["device"] == jax.devices()[0].device_kind and hardware["devices"] == jax.device_count()
    assert versions == {"evonorms_jax": evonorms_jax.__version__, "jax": jax.__version__}
    assert provenance.now().utcoffset().total_seconds() == 0
