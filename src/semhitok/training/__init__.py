"""One training loop, many tasks: the loop owns the clock, data, checkpoints and logging; a task owns what it trains."""
