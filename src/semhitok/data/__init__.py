"""Images for training and evaluation: sources on disk, decoding, fitting, order and batches."""
