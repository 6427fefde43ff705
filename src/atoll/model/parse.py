"""config.json and weight headers -> ModelCard."""
