"""The pipeline registers candidates; which version is served is the owner's to say, and so is that it was approved."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

PIPELINE = "spotlab_pipeline"
TABLE = "model_registry"
OF_A_CANDIDATE = (
    "version, family, number, feature_spec, horizons_h, artifact_uri, artifact_sha256, mlflow_run_id, "
    "mlflow_model_id, metrics, reference, training_sha256, registered_by"
)


def upgrade() -> None:
    """Take the rest from it."""
    op.execute(f"revoke insert, update on {TABLE} from {PIPELINE}")
    op.execute(f"grant insert ({OF_A_CANDIDATE}) on {TABLE} to {PIPELINE}")
    op.execute(
        f"create policy serving_is_the_owners on audit_log as restrictive for insert to {PIPELINE} "
        "with check (outcome <> 'done' or action not in ('approve_model', 'promote_model', 'retire_model'))"
    )


def downgrade() -> None:
    """Give it back."""
    op.execute("drop policy serving_is_the_owners on audit_log")
    op.execute(f"revoke insert ({OF_A_CANDIDATE}) on {TABLE} from {PIPELINE}")
    op.execute(f"grant insert, update on {TABLE} to {PIPELINE}")
