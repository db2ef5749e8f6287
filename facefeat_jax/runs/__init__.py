"""A run's folder: config, model description, checkpoints, logs, the identity of its data."""
