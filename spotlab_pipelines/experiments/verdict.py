"""Whether a challenger beats the champion: one paired comparison on the same rows, looked at a limited number of times.

Interruptions cluster (one shortage takes many instances within minutes), so rows are not independent: the bootstrap
draws whole blocks of (region, day). A shortage may last for days, and a horizon reaches over midnight, so the days of a
region are not independent either: intervals are as much wider as the blocks' own persistence says. Pure; which rows are
compared and who may act on it is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from spotlab_pipelines.database.tables import VERDICTS
from spotlab_pipelines.experiments.boundaries import level_at
from spotlab_pipelines.experiments.scorecard import check_pairs

PROMOTE, HOLD, REJECT, INSUFFICIENT = VERDICTS
SMALLEST = 1e-15
"""Probabilities are kept this far from 0 and 1 in the log loss, which a certain and wrong one would make infinite."""

SKILL_EVENTS_MIN = 10
"""Of the rarer outcome, below which a skill has no interval: its spread would be that of two or three accidents."""

DRAWS = 10_000
SEED = 20_260_131

PERSISTENCE_MAX = 0.9
"""The most that one day's difference is taken to say of the next one's, as correlation."""
LAGS = 30
"""How many days two blocks may lie apart and still be taken to go together."""

Draw = Callable[[int], np.ndarray]
"""Number of blocks k -> (draws, k) how often each draw takes each block."""


@dataclass(frozen=True)
class VerdictRules:
    """What is promised and what is asked for.

    Attributes:
        alpha: chance of promoting a challenger that is no better, over all looks together; the same for rejecting.
        looks_max: how often the comparison may be looked at.
        events_min, blocks_min: of the rarer outcome, an interruption counted once, and of (region, day) blocks below
            which nothing is said.
    """

    alpha: float = 0.05
    looks_max: int = 30
    events_min: int = 50
    blocks_min: int = 20


@dataclass(frozen=True)
class Difference:
    """Champion's loss minus challenger's, per row: above 0 the challenger is better.

    Attributes:
        low, high: the interval of this look; infinite if the look is so early that nothing could be shown.
        information: 1 / variance of `mean`; what later looks must know of this one.
    """

    mean: float
    low: float
    high: float
    information: float


@dataclass(frozen=True)
class Verdict:
    """The outcome of one look. `information` belongs into the next look's `earlier`; nan if this was none."""

    verdict: str
    why: str
    look: int
    n: int
    events: int
    blocks: int
    brier: Difference | None
    log_loss: Difference | None

    @property
    def information(self) -> float:
        """The Brier difference's information, by which the looks' boundaries follow from each other."""
        return float("nan") if self.brier is None else self.brier.information


def judge(
    outcome: np.ndarray,
    champion: np.ndarray,
    challenger: np.ndarray,
    block: np.ndarray,
    *,
    interruption: np.ndarray | None = None,
    earlier: Sequence[float] = (),
    rules: VerdictRules | None = None,
    draw: Draw | None = None,
) -> Verdict:
    """Compare two versions' (n,) probabilities on the same rows.

    Promote: the challenger's Brier score is better and its log loss not worse, at this look's level. Reject: its Brier
    score is worse. A look at too little data is none: it spends nothing.

    Args:
        outcome: (n,) 1 interrupted, 0 survived.
        block: (n,) integers, the (region, day) of each row; a region's next day is the next integer.
        interruption: (n,) integers, which interruption each interrupted row is of: one that several windows foresaw
            counts once. By default each row's own.
        earlier: `information` of the looks before, in their order.

    Raises:
        InvalidInput: an outcome or a probability that cannot be.
    """
    rules = rules or VerdictRules()
    if len(outcome) == 0:
        return _too_little(rules, len(earlier), 0, 0, 0)
    outcome, champion, challenger = check_pairs(outcome, champion, challenger)
    days, number = np.unique(block, return_inverse=True)
    n, events, blocks = len(outcome), _rarer(outcome, interruption), len(days)
    if len(earlier) >= rules.looks_max:
        why = f"All {rules.looks_max} looks are used up; a newly registered version may be compared afresh."
        return Verdict(HOLD, why, len(earlier), n, events, blocks, None, None)
    if events < rules.events_min or blocks < rules.blocks_min:
        return _too_little(rules, len(earlier), n, events, blocks)
    sizes = np.bincount(number).astype(float)
    gains = [
        np.bincount(number, weights=loss(outcome, champion) - loss(outcome, challenger)) for loss in (_brier, _log_loss)
    ]
    look = len(earlier) + 1
    spread = ratio_error(gains[0], sizes, days)
    if spread == 0:
        return Verdict(HOLD, "The two versions say the same.", len(earlier), n, events, blocks, None, None)
    level = level_at([*earlier, 1 / spread**2], rules.looks_max, rules.alpha)
    brier, log_loss = (block_interval(each, sizes, level, days, draw) for each in gains)
    verdict = PROMOTE if brier.low > 0 and log_loss.high >= 0 else REJECT if brier.high < 0 else HOLD
    why = _why(verdict, brier, log_loss, f"{n} predictions with {events} interruptions in {blocks} region-days")
    return Verdict(verdict, f"{why} Look {look} of {rules.looks_max}.", look, n, events, blocks, brier, log_loss)


def block_interval(
    gains: np.ndarray, sizes: np.ndarray, level: float, days: np.ndarray, draw: Draw | None = None
) -> Difference:
    """The mean gain per row and its interval at `level` in each tail, by a studentised bootstrap over blocks.

    Studentised (Efron & Tibshirani 1993, ch. 12), because plain percentiles of few and skewed blocks are too narrow. A
    level that the draws cannot resolve gives an infinite interval.

    Args:
        gains, sizes: (k,) sum of the rows' gains and number of rows of each block.
        days: (k,) the blocks' integers, ascending: a region's next day is the next one.
    """
    mean, error = gains.sum() / sizes.sum(), ratio_error(gains, sizes, days)
    if error == 0:
        return Difference(float(mean), float(mean), float(mean), float("inf"))
    information, taken = float(error**-2), (draw or draw_blocks)(len(gains))
    if level * len(taken) < 1:
        return Difference(float(mean), -np.inf, np.inf, information)
    drawn = taken @ np.column_stack([gains, sizes, gains**2, gains * sizes, sizes**2])
    gain, size, gain2, both, size2 = drawn.T
    means = gain / size
    errors = np.sqrt(np.maximum(gain2 - 2 * means * both + means**2 * size2, 0.0) * _small(len(gains))) / size
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.where(errors > 0, (means - mean) / errors, np.copysign(np.inf, means - mean))
    low, high = np.quantile(pivots, [level, 1 - level], method="inverted_cdf")
    return Difference(float(mean), float(mean - high * error), float(mean - low * error), information)


def gain_interval(
    outcome: np.ndarray,
    reference: np.ndarray,
    predicted: np.ndarray,
    block: np.ndarray,
    interruption: np.ndarray | None = None,
    level: float = 0.025,
) -> Difference:
    """How much lower the Brier score of `predicted` is than that of `reference`, (n,) each on the same rows.

    At `level` in each tail, by the same bootstrap. With a single block, or with fewer than `SKILL_EVENTS_MIN` of the
    rarer outcome, nothing is known of the spread, and the interval is infinite. The rest is as in `judge`.
    """
    days, number = np.unique(block, return_inverse=True)
    gains = np.bincount(number, weights=_brier(outcome, reference) - _brier(outcome, predicted))
    sizes = np.bincount(number).astype(float)
    if len(sizes) == 1 or _rarer(outcome, interruption) < SKILL_EVENTS_MIN:
        return Difference(float(gains.sum() / sizes.sum()), -np.inf, np.inf, 0.0)
    return block_interval(gains, sizes, level, days)


def skill_interval(
    outcome: np.ndarray,
    predicted: np.ndarray,
    block: np.ndarray,
    interruption: np.ndarray | None = None,
    level: float = 0.025,
) -> Difference | None:
    """The Brier skill of (n,) predictions and its interval as of `gain_interval`; None without both outcomes.

    It is the gain over who says the base rate each time, taken as known, in units of its Brier score; none is above 1.
    """
    base = outcome.mean()
    if not 0 < base < 1:
        return None
    unit = base * (1 - base)
    found = gain_interval(outcome, np.full(len(outcome), base), predicted, block, interruption, level)
    high = min(found.high / unit, 1.0) if np.isfinite(found.low) else np.inf
    return Difference(found.mean / unit, found.low / unit, high, found.information * unit**2)


def ratio_error(gains: np.ndarray, sizes: np.ndarray, days: np.ndarray) -> float:
    """Standard error of sum(gains) / sum(sizes) over k blocks (linearised ratio estimator); arguments as above."""
    residual = gains - gains.sum() / sizes.sum() * sizes
    alone = np.sqrt(_small(len(gains)) * residual @ residual) / sizes.sum()
    return float(alone * np.sqrt(persistence_inflation(residual, days)))


def persistence_inflation(residual: np.ndarray, days: np.ndarray) -> float:
    """How many times the variance of k blocks' sum is that of independent ones, at least 1; `days` as above.

    As of a first-order autoregression within each region: the correlation of a day with the next one, over all regions
    together and freed of its bias in short series (Kendall 1954), fades with every further day between two blocks.
    """
    days, k = np.asarray(days), len(days)
    after = np.flatnonzero(np.diff(days) == 1)
    product = residual[after] @ residual[after + 1]
    scale = np.sqrt((residual[after] @ residual[after]) * (residual[after + 1] @ residual[after + 1]))
    if len(after) < 2 or scale == 0:
        return 1.0
    correlation = product / scale
    correlation = float(np.clip(correlation + (1 + 3 * correlation) / len(after), 0.0, PERSISTENCE_MAX))
    if correlation == 0:
        return 1.0
    lag = np.subtract.outer(days, days)
    pairs = np.bincount(lag[(lag > 0) & (lag <= LAGS)], minlength=LAGS + 1)
    return 1.0 + 2.0 * float(pairs @ correlation ** np.arange(LAGS + 1)) / k


def draw_blocks(blocks: int, draws: int = DRAWS) -> np.ndarray:
    """(draws, blocks) how often each draw takes each block; the same every time, so that a verdict repeats."""
    generator = np.random.default_rng([SEED, blocks, draws])
    return generator.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws).astype(np.float32)


def _rarer(outcome: np.ndarray, interruption: np.ndarray | None) -> int:
    """How often the rarer outcome was seen, an interruption that several rows are of counted once."""
    hit = outcome == 1
    interruptions = int(hit.sum()) if interruption is None else len(np.unique(interruption[hit]))
    return min(interruptions, int((~hit).sum()))


def _small(blocks: int) -> float:
    return blocks / (blocks - 1)


def _brier(outcome: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return (predicted - outcome) ** 2


def _log_loss(outcome: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    right = np.where(outcome == 1, predicted, 1 - predicted)
    return -np.log(np.maximum(right, SMALLEST))


def _too_little(rules: VerdictRules, looks: int, n: int, events: int, blocks: int) -> Verdict:
    asked = f"{rules.events_min} of the rarer outcome in {rules.blocks_min} region-days are asked for"
    why = f"{asked}; there are {events} in {blocks} ({n} predictions)."
    if n == 0:
        why = f"No prediction of both has an outcome yet; {asked}."
    return Verdict(INSUFFICIENT, why, looks, n, events, blocks, None, None)


def _why(verdict: str, brier: Difference, log_loss: Difference, rows: str) -> str:
    found = f"Brier score lower by {brier.mean:.5f} [{brier.low:.5f}, {brier.high:.5f}] on {rows}"
    if verdict == PROMOTE:
        return f"The challenger is better: {found}."
    if verdict == REJECT:
        return f"The challenger is worse: {found}."
    if brier.low > 0:
        loss = f"{log_loss.mean:.5f} [{log_loss.low:.5f}, {log_loss.high:.5f}]"
        return f"Better, but worse in log loss ({loss}): {found}."
    return f"No difference is shown: {found}."
