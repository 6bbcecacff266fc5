"""Pictures, plots and Markdown tables."""
