"""The data sets, each in a file that says all that is known of it: a new file here is a new data set."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from bench.accuracy.dataset import DataSet

DATASETS: dict[str, DataSet] = {
    dataset.name: dataset
    for dataset in (import_module(f"{__name__}.{module.name}").DATASET for module in iter_modules(__path__))
}
"""By name."""


def find(name: str) -> DataSet | None:
    """The data set of this name, in capitals or not."""
    for dataset in DATASETS.values():
        if name.lower() in (dataset.name.lower(), dataset.also):
            return dataset
    return None
