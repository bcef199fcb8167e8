"""How usual a model's numbers are: real checkpoints, audited, and each left out of the reference in turn."""
