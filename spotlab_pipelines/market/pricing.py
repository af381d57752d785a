"""Where AWS tells on-demand prices, and in which currency. Names only; asking is catalogue.py's."""

from __future__ import annotations

PRICING_REGIONS: dict[str, tuple[str, ...]] = {
    "aws": ("us-east-1", "eu-central-1", "ap-south-1"),
    "aws-cn": ("cn-northwest-1",),
    "aws-us-gov": (),
}
"""Partition -> the regions that serve the Pricing API, as botocore's endpoint data has it.

GovCloud's prices are told in the commercial partition, into which no GovCloud session leads."""

CURRENCIES = {"aws": "USD", "aws-cn": "CNY", "aws-us-gov": "USD"}
"""Partition -> what AWS bills and quotes in, Spot prices included. In a laboratory of aws-cn every figure in USD is one
in CNY, the cost of an interruption too."""


def pricing_region(preferred: str, partition: str) -> str | None:
    """The region to ask for a partition's prices: the preferred one if it can be, None if there is none.

    A preferred region that is not known to serve the API is asked all the same: AWS may have opened another.
    """
    if not PRICING_REGIONS[partition]:
        return None
    elsewhere = {region for other, regions in PRICING_REGIONS.items() if other != partition for region in regions}
    return PRICING_REGIONS[partition][0] if preferred in elsewhere else preferred
