"""Loaders, splits and batching. Nothing here uses the network: data is embedded in a package, or the user's."""
