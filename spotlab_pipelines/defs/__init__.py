"""Dagster, thin: assets read their partition keys and call one function of a room. No thinking happens here."""
