"""From a recipe to a trained model: data and models prepared, stages run, resumed, exported."""
