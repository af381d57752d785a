"""What a model sees: versioned specs as data, price windows, and one pure engine that serving and training share."""
