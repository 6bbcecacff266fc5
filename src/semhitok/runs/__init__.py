"""From a recipe to a trained model: prepares data and models, runs and resumes stages, exports the result."""
