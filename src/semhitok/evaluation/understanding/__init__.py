"""Answers about composed scenes, and what is reached without looking."""
