"""What one does with a loaded model, in Python."""
