"""Who predicts: the adapter, the estimators behind it, the registry of what may be served, and batch scoring."""
