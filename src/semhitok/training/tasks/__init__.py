"""The tasks of the training loop: one file per task, with its configuration next to it."""
