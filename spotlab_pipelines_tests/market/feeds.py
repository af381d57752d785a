"""The Spot Advisor's feed by hand, for tests of several rooms."""

from __future__ import annotations

from typing import Any

from spotlab_pipelines.market.parse_advisor import RANGE_LABELS


def whole_feed(spot_advisor: Any) -> dict[str, Any]:
    """A feed as AWS publishes it, with these regions."""
    tops = (5, 11, 16, 22, 100)
    return {
        "global_rate": "<10%",
        "ranges": [
            {"index": index, "label": label, "dots": index, "max": tops[index]}
            for index, label in enumerate(RANGE_LABELS)
        ],
        "instance_types": {"m5.large": {"cores": 2, "ram_gb": 8.0, "emr": True}},
        "spot_advisor": spot_advisor,
    }
