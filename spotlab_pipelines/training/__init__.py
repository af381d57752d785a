"""New models: point-in-time examples from what really happened, and the fitting of the first versions."""
