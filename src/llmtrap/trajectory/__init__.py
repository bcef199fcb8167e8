"""A training run through its checkpoints: what changed at each step, when each trap appeared, how it grew."""
