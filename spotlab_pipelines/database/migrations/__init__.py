"""Alembic's steps, numbered and written by hand: each says in its name and docstring what it does."""
