"""The embedded default: a real Postgres and a real Redis, started here when no URL is set.

What is stored in them is `database/`'s. Nothing here knows a table or a key.
"""

from spotlab_pipelines.local.stores import Started, StoreStatus, StoreUrls, down, status, store_urls, up

__all__ = ["Started", "StoreStatus", "StoreUrls", "down", "status", "store_urls", "up"]
