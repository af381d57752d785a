"""The error tree of SpotLab: every failure that a room raises on purpose, and where any other came from.

```
SpotLabError
├── TransientError                  trying again may help: Dagster and the scrapers retry
│   ├── StoreUnavailable            Postgres, Redis, MLflow or the archive does not answer
│   ├── SourceUnavailable           the Spot Advisor or an AWS endpoint does not answer
│   ├── Throttled                   AWS asked us to slow down, and botocore's own retries are used up
│   └── MarketDataError             what an evaluation needs is not in the cache
│       ├── MarketDataMissing       never scraped, evicted or expired
│       └── MarketDataStale         there, but older than its time to live
└── PermanentError                  trying again gives the same result: someone has to change something
    ├── SettingsError               a setting is missing, malformed or contradicts another
    ├── LocalStackError             the embedded stores cannot start (port, directory, binary, owner)
    ├── InvalidInput                a value from a person or a client breaks a documented rule
    ├── NotFound                    the named account, version, evaluation or table does not exist
    ├── AccessDenied                AWS refused the role, the external id or an action
    │   ├── WrongAccount            the session belongs to another account than the row
    │   └── AccountSkipped          it is disabled, or its access marked lax or broken: AWS is not asked
    ├── NotAllowed                  the acting user's role does not allow the act
    ├── LoginRefused                e-mail address and password are not those of an active user
    ├── SourceMalformed             a source answered with something else than its documented shape
    │   └── PageLoop                a paginated answer does not come to its end
    ├── FeatureError                features cannot be given to a model
    │   ├── FeatureVersionMismatch  the model was fitted on another feature spec
    │   ├── FeatureMissing          a feature the model expects is not there
    │   └── FeatureOutOfRange       NaN, infinite or outside the range of its spec
    ├── ModelError                  a model may not or cannot serve
    │   ├── ModelUnknown            no such version, or none approved
    │   ├── ModelTampered           the artifact's hash is not the one that was approved
    │   ├── NotProven               no verdict says that it beats the champion, or its calibration is too poor
    │   └── ModelNotConforming      it does not do what any model must do to be served
    ├── NotEnoughData               there is too little history to fit or to judge
    └── IntegrityError              stored data contradicts itself
        └── ArchiveTooNew           a file of the archive has a schema that only a newer SpotLab reads
```

Every message says what was expected, what came, and what to do. No message carries a secret, a token or an
external id. `defs/`, `lab/` and `cli/` translate these errors, once each.
"""

from __future__ import annotations

import traceback
from pathlib import Path


class SpotLabError(Exception):
    """Root of the tree. `remedy` is the sentence that tells the reader what to do next."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message if remedy is None else f"{message} {remedy}")
        self.remedy = remedy


class TransientError(SpotLabError):
    """Trying again may help."""


class StoreUnavailable(TransientError):
    """Postgres, Redis, MLflow or the archive does not answer."""


class SourceUnavailable(TransientError):
    """The Spot Advisor or an AWS endpoint does not answer."""


class Throttled(TransientError):
    """AWS asked us to slow down, and botocore's own retries are used up."""


class MarketDataError(TransientError):
    """What an evaluation needs is not in the cache; the next scrape may bring it."""


class MarketDataMissing(MarketDataError):
    """Never scraped, evicted or expired."""


class MarketDataStale(MarketDataError):
    """There, but older than its time to live."""


class PermanentError(SpotLabError):
    """Trying again gives the same result: someone has to change something."""


class SettingsError(PermanentError):
    """A setting is missing, malformed or contradicts another."""


class LocalStackError(PermanentError):
    """The embedded stores cannot start: a port, a directory, a binary or an owner is wrong."""


class InvalidInput(PermanentError):
    """A value from a person or a client breaks a documented rule."""


class NotFound(PermanentError):
    """The named account, version, evaluation or table does not exist."""


class AccessDenied(PermanentError):
    """AWS refused the role, the external id or an action."""


class WrongAccount(AccessDenied):
    """The session belongs to another AWS account than the registered one."""


class AccountSkipped(AccessDenied):
    """The account is disabled, or its access is marked as lax or broken and AWS is not asked before its next try."""


class NotAllowed(PermanentError):
    """The acting user's role does not allow the act, there is no such user, or they are disabled."""


class LoginRefused(PermanentError):
    """E-mail address and password are not those of an active user; which of them is wrong is not told."""


class SourceMalformed(PermanentError):
    """A source answered with something else than its documented shape."""


class PageLoop(SourceMalformed):
    """A paginated answer repeats its token or exceeds the page cap."""


class FeatureError(PermanentError):
    """Features cannot be given to a model."""


class FeatureVersionMismatch(FeatureError):
    """The model was fitted on another feature spec."""


class FeatureMissing(FeatureError):
    """A feature the model expects is not in the frame."""


class FeatureOutOfRange(FeatureError):
    """A feature is NaN, infinite or outside the range of its spec."""


class ModelError(PermanentError):
    """A model may not or cannot serve."""


class ModelUnknown(ModelError):
    """No such version, or none that is approved."""


class ModelTampered(ModelError):
    """The artifact's hash is not the one that was approved."""


class NotProven(ModelError):
    """Not promoted: no verdict says that it beats the champion, or its probabilities are badly calibrated."""


class ModelNotConforming(ModelError):
    """It does not do what any model must do to be served."""


class NotEnoughData(PermanentError):
    """There is too little history to fit or to judge."""


class IntegrityError(PermanentError):
    """Stored data contradicts itself."""


class ArchiveTooNew(IntegrityError):
    """A file of the archive has a schema that only a newer SpotLab reads."""


def raised_in(error: BaseException) -> str:
    """Where an error came from, in words. The text of a library's error may quote anything, so it is never repeated."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"raised in {Path(place.filename).name}, line {place.lineno}"
