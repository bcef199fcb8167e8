"""Weights that are in memory: a module, its state dict, or any mapping of names to arrays."""
