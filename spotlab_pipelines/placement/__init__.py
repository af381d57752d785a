"""What to do with each instance: the LINEAR rules over the frozen features and predictions."""
