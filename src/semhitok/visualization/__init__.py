"""Pictures, plots and tables for people."""
