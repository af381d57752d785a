"""Every setting of SpotLab, typed, in one class. No room reads the environment by itself.

Nothing is read at import: `get_settings()` reads the environment (prefix `SPOTLAB_`) at its first call. AWS's own
variables (`AWS_ENDPOINT_URL`, credentials, …) are botocore's and are not repeated here.
"""

from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from spotlab_pipelines.errors import SettingsError

HORIZONS_H = (1, 6, 12)
"""The horizons, in hours, at which every model predicts."""

YEAR_S = 366 * 86400
"""No setting is a longer time: beyond it, times added to a clock leave what Postgres and Python can hold."""

INTERRUPTION_COST_USD_MAX = 1_000_000.0
"""No interruption costs more. A sum of such costs stays far below what a float holds."""

PROJECT_ROOT = Path(__file__).resolve().parent.parent


def default_data_dir() -> Path:
    """Where the embedded stores keep their files: outside the checkout, one directory per checkout.

    As root it lies below /var/lib, because Postgres then runs as an unprivileged user who cannot enter root's home.
    """
    checkout = f"{PROJECT_ROOT.name}-{hashlib.sha256(str(PROJECT_ROOT).encode()).hexdigest()[:8]}"
    if os.geteuid() == 0:
        return Path("/var/lib/spotlab") / checkout
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "spotlab" / checkout


class Settings(BaseSettings):
    """All settings; each is the environment variable `SPOTLAB_<NAME>` in capitals."""

    model_config = SettingsConfigDict(env_prefix="SPOTLAB_", extra="ignore", frozen=True)

    # Stores
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Files of the embedded stores, the local archive and Dagster's logs.",
    )
    database_url: SecretStr | None = Field(
        default=None,
        description="Postgres of your own, postgresql://user:password@host:port/spotlab; unset: the embedded one.",
    )
    dagster_database: str = Field(default="dagster", description="Name of Dagster's database on the same server.")
    mlflow_database: str = Field(default="mlflow", description="Name of MLflow's database on the same server.")
    redis_url: SecretStr | None = Field(
        default=None, description="Redis of your own, redis://…; unset starts the embedded one."
    )
    archive_url: str | None = Field(
        default=None,
        description="Parquet archive: a folder or s3://bucket/prefix. Default: the folder archive in data_dir.",
    )
    mlruns_dir: Path = Field(
        default=PROJECT_ROOT / "mlruns", description="Where MLflow keeps artifacts; it never holds MLflow's metadata."
    )
    local_binaries: Literal["machine-first", "wheels"] = Field(
        default="machine-first", description="Where the embedded stores' programs come from."
    )
    database_pool_size: int = Field(default=5, ge=1, le=100, description="Open Postgres connections kept per process.")

    # Ports of the servers that `make dev` and `make demo` start
    dagster_port: int = Field(default=3000, ge=1, le=65535, description="Dagster UI.")
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="MLflow UI.")

    mlflow_ui_url: str | None = Field(
        default=None,
        description="Where people see MLflow, for links in the Dagster UI. Default: the local server on MLflow's port.",
    )

    # SpotLab's own AWS credentials
    aws_cn_profile: str | None = Field(
        default=None,
        description="AWS profile with SpotLab's credentials for aws-cn. Default: the process's usual ones.",
    )
    aws_us_gov_profile: str | None = Field(
        default=None,
        description="AWS profile with SpotLab's credentials for aws-us-gov. Default: the process's usual ones.",
    )

    # Access to accounts
    access_denials_max: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Refused AssumeRole calls in a row after which an account is marked access_broken and skipped.",
    )
    access_retry_s: float = Field(
        default=21600.0,
        ge=0.0,
        le=YEAR_S,
        description="Seconds for which an account whose access is marked broken or lax is left alone.",
    )
    access_recheck_s: float = Field(
        default=86400.0,
        ge=0.0,
        le=YEAR_S,
        description="Seconds after which an account's role is tried anew without an external id and with a wrong one.",
    )

    # Market
    advisor_url: str = Field(
        default="https://spot-bid-advisor.s3.amazonaws.com/spot-advisor-data.json",
        description="Spot Advisor feed: an http(s):// or s3:// URL.",
    )
    advisor_max_loss_share: float = Field(
        default=0.1,
        ge=0.0,
        le=1.0,
        description="Share of regions, of types or of entries that the Advisor may lose from one scrape to the next; a"
        " feed that lost more is refused as truncated.",
    )
    catalogue_account_id: str | None = Field(
        default=None,
        description="Account that reads types and prices for all. Default: the first active one that lets us in.",
    )
    pricing_region: str = Field(
        default="us-east-1",
        description="Region of the Pricing API: us-east-1, eu-central-1 or ap-south-1. China's prices are asked for in"
        " cn-northwest-1; GovCloud has no such region.",
    )
    products: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("Linux/UNIX",),
        description="Product descriptions always scraped, comma-separated; a fleet's own products are added.",
    )
    price_window_days: int = Field(
        default=7,
        ge=1,
        le=90,
        description="Days of price history in the cache and in features.",
    )
    price_history_days: int = Field(
        default=90,
        ge=1,
        le=90,
        description="Days of prices that the first scrape of a type and product takes; AWS keeps 90.",
    )
    price_overlap_s: int = Field(
        default=600,
        ge=0,
        le=86400,
        description="Seconds before the last scrape from which the next one asks for prices again: rows may come late.",
    )
    archive_settle_s: int = Field(
        default=7200,
        ge=60,
        le=7 * 86400,
        description="Seconds after which no scrape can still own a file of the archive: none takes longer.",
    )
    spot_risk_ttl_s: int = Field(default=3600, ge=60, le=YEAR_S, description="Time to live of spot_risk:* in Redis.")
    price_history_ttl_s: int = Field(
        default=3600, ge=60, le=YEAR_S, description="Time to live of spot_price_history:* in Redis."
    )
    instance_metadata_ttl_s: int = Field(
        default=86400,
        ge=60,
        le=YEAR_S,
        description="Time to live of instance_metadata:* in Redis.",
    )
    http_timeout_s: float = Field(default=20.0, gt=0, le=3600, description="Time-out of one HTTP request to a source.")
    max_pages: int = Field(
        default=2000,
        ge=1,
        le=1_000_000,
        description="Pages of one AWS listing after which it is taken for a loop.",
    )

    # Features and decisions
    open_bucket_rate: float = Field(
        default=0.30,
        gt=0.20,
        lt=1.0,
        description="Monthly interruption rate that stands for the Advisor's open last bucket, [20 %, 100 %].",
    )
    safe_interruption_rate_max: float = Field(
        default=0.20,
        gt=0.0,
        le=1.0,
        description="A pool is safe if the upper end of its Advisor bucket is at most this monthly rate.",
    )
    flexibility_factor: float = Field(
        default=2.0,
        ge=1.0,
        le=16.0,
        description="A candidate has at most this multiple of an instance's vCPU and memory.",
    )
    minimum_gain: float = Field(
        default=0.05,
        ge=0.0,
        lt=1.0,
        description="Share of the current type's on-demand price that a switch must save per hour.",
    )
    drift_psi_warn: float = Field(
        default=0.2,
        gt=0.0,
        le=100.0,
        description="PSI of a feature against its version's training, beyond chance, from which the asset check warns.",
    )
    decision_horizon_h: Literal[1, 6, 12] = Field(default=6, description="Horizon of the expected cost, in hours.")
    interruption_cost_usd: float = Field(
        default=1.0,
        ge=0.0,
        le=INTERRUPTION_COST_USD_MAX,
        description="What one interruption costs, for accounts that were registered without a figure of their own.",
    )

    # Scorecards and verdicts
    scorecard_days: int = Field(
        default=30, ge=1, le=3660, description="Days of predictions that scorecards and comparisons look back on."
    )
    promote_ece_max: float = Field(
        default=0.05,
        gt=0.0,
        le=1.0,
        description="Calibration error (ECE) up to which a version with the verdict promote may become the champion.",
    )
    promote_ratio_max: float = Field(
        default=2.0,
        gt=1.0,
        le=1000.0,
        description=(
            "How many times the share of predictions that came true, or how small a part of it, a version may predict"
            " on average to become the champion."
        ),
    )
    promote_predictions_min: int = Field(
        default=1000,
        ge=1,
        le=1_000_000_000,
        description="Predictions with a known outcome that a promotion's verdict and calibration must rest on.",
    )

    # The log
    log_months_ahead: int = Field(
        default=3, ge=1, le=24, description="Months for which the experiment log's partitions are made ahead."
    )
    log_retention_months: int = Field(
        default=24,
        ge=2,
        le=600,
        description="Whole months of the experiment log that are kept; older ones are dropped.",
    )

    # Evaluations
    evaluation_interval_s: int = Field(
        default=1800, ge=60, le=86400, description="How often an account is evaluated, unless it says otherwise."
    )

    @field_validator("products", mode="before")
    @classmethod
    def _split_products(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def mlflow_ui(self) -> str:
        """The address of MLflow's UI, without a slash at its end."""
        return (self.mlflow_ui_url or f"http://127.0.0.1:{self.mlflow_port}").rstrip("/")

    @property
    def own_profiles(self) -> dict[str, str]:
        """The AWS profiles with SpotLab's own credentials, by partition, where one is named."""
        profiles = {"aws-cn": self.aws_cn_profile, "aws-us-gov": self.aws_us_gov_profile}
        return {partition: profile for partition, profile in profiles.items() if profile}

    @property
    def archive_location(self) -> str:
        """The archive's folder or s3:// URL."""
        return self.archive_url or str(self.data_dir / "archive")

    @property
    def archive_settle(self) -> timedelta:
        """`archive_settle_s` as a duration."""
        return timedelta(seconds=self.archive_settle_s)

    @property
    def price_window(self) -> timedelta:
        """`price_window_days` as a duration."""
        return timedelta(days=self.price_window_days)


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read from the environment once.

    Raises:
        SettingsError: a variable is malformed; the message names it, never its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"SPOTLAB_{'_'.join(str(part) for part in item['loc']).upper()}: {item['msg']}" for item in error.errors()
        )
        raise SettingsError(f"Settings are not valid: {problems}.", remedy="Correct or unset the variable.") from None
