"""The figures of the generated market: zones, sizes, real on-demand prices, and what is set by hand.

On-demand prices are AWS's public ones, rounded; how the market moves is generator.py's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

ZONES = {
    "us-east-1": ("us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d"),
    "eu-west-1": ("eu-west-1a", "eu-west-1b", "eu-west-1c"),
}
SIZES = ("large", "xlarge", "2xlarge", "4xlarge")
# Linux on-demand prices of the `large` size, USD per hour: us-east-1, eu-west-1; they double with each size.
LARGE_USD = {
    "m5": (0.096, 0.107),
    "m5a": (0.086, 0.096),
    "m6g": (0.077, 0.086),
    "c5": (0.085, 0.096),
    "c5a": (0.077, 0.086),
    "c6g": (0.068, 0.073),
    "r5": (0.126, 0.141),
    "r6g": (0.1008, 0.113),
}
OTHER_USD = {
    "t3.medium": (0.0416, 0.0456),
    "t3.large": (0.0832, 0.0912),
    "t3.xlarge": (0.1664, 0.1824),
    "t3.2xlarge": (0.3328, 0.3648),
    "g4dn.xlarge": (0.526, 0.587),
    "g4dn.2xlarge": (0.752, 0.838),
    "g4dn.4xlarge": (1.204, 1.343),
    "g4dn.8xlarge": (2.176, 2.426),
}
WINDOWS_FAMILIES = ("m5", "c5", "t3")
WINDOWS_USD_PER_VCPU = {"t3": 0.0092}
BASE_WINDOWS_USD_PER_VCPU = 0.046

SCARCE = {
    ("us-east-1", "g4dn.xlarge"): 2.4,
    ("us-east-1", "g4dn.2xlarge"): 2.3,
    ("us-east-1", "g4dn.4xlarge"): 2.4,
    ("us-east-1", "g4dn.8xlarge"): 2.2,
    ("us-east-1", "r5.4xlarge"): 2.3,
    ("eu-west-1", "r5.4xlarge"): 2.3,
    ("us-east-1", "m5.2xlarge"): 2.2,
    ("eu-west-1", "c5.xlarge"): 2.2,
    ("us-east-1", "r6g.4xlarge"): 2.1,
    ("eu-west-1", "r6g.4xlarge"): 2.1,
}
PRICE_SHARE = {
    ("us-east-1", "c5.4xlarge"): 0.93,
    ("us-east-1", "r5.2xlarge"): 0.80,
    ("eu-west-1", "m5.xlarge"): 0.88,
    ("us-east-1", "m6g.4xlarge"): 1.00,
    ("eu-west-1", "m6g.4xlarge"): 1.04,
}
RANGES = (("<5%", 5, 0), ("5-10%", 11, 1), ("10-15%", 16, 2), ("15-20%", 22, 3), (">20%", 100, 4))
BUCKET_ENDS = (0.05, 0.10, 0.15, 0.20)


def pools_of(rng: np.random.Generator) -> pd.DataFrame:
    """One row a pool: what it is, its on-demand price, how scarce, what share of on-demand it costs."""
    rows = []
    for position, (region, zones) in enumerate(ZONES.items()):
        for name, usd in _linux_prices(position).items():
            level = SCARCE.get((region, name), float(np.clip(rng.normal(0.25, 0.55), -1.2, 1.1)))
            share = PRICE_SHARE.get((region, name), float(np.clip(rng.normal(0.36, 0.06), 0.22, 0.55)))
            family = name.partition(".")[0]
            for zone in zones:
                zone_share, zone_level = float(np.exp(rng.normal(0, 0.09))), float(rng.normal(0, 0.15))
                pool = {"region": region, "instance_type": name, "zone": zone, "family": family, "on_demand": usd}
                # Dear types are dear in every zone: the zones of the others differ.
                pool |= {"share": share * (zone_share if share < 0.8 else 1.0), "level": level + zone_level}
                rows.append({**pool, "product": "Linux/UNIX"})
                if family in WINDOWS_FAMILIES:
                    rows.append({**pool, "product": "Windows"})
    pools = pd.DataFrame(rows)
    vcpus = {name: entry["VCpuInfo"]["DefaultVCpus"] for name, entry in metadata().items()}
    licence = pools["family"].map(WINDOWS_USD_PER_VCPU).fillna(BASE_WINDOWS_USD_PER_VCPU)
    pools["licence"] = (licence * pools["instance_type"].map(vcpus)).where(pools["product"] == "Windows", 0.0)
    return pools


def _linux_prices(position: int) -> dict[str, float]:
    prices = {
        f"{family}.{size}": round(usd[position] * 2**step, 4)
        for family, usd in LARGE_USD.items()
        for step, size in enumerate(SIZES)
    }
    return prices | {name: usd[position] for name, usd in OTHER_USD.items()}


def metadata() -> dict[str, dict[str, Any]]:
    """Real instance types in the EC2 API's shape, by name."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    return INSTANCE_TYPES
