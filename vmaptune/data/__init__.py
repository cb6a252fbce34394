"""Loaders, splits and batching. Nothing here uses the network: data is embedded in a package, or the user's."""

from vmaptune.data.splits import Splits, split_classification

__all__ = ["Splits", "split_classification"]
