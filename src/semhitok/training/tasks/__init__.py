"""What the training loop can train: one file per task, with its configuration beside it."""
