"""What a recipe costs before it is run: parameters, FLOPs, memory, time and data, from models without weights."""
