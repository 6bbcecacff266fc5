"""One training loop, many tasks: the loop owns clock, data, checkpoints and logging; a task owns what it trains."""
