"""Measures of images, codes and features: pure functions and running statistics."""
