"""How Alembic runs a migration: on the connection that migrate.py opened, in its transaction and under its lock."""

from alembic import context

from spotlab_pipelines.database.migrate import include_name
from spotlab_pipelines.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    include_name=include_name,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
