"""Room for running a model with a trap replaced and measuring what changes; nothing is built here yet."""
