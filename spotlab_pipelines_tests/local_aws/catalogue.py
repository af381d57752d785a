"""DescribeInstanceTypes, DescribeAvailabilityZones and the Pricing service's GetProducts, from a recording.

Nothing here is moto's data: a type exists where the recording prices it. On-demand products come with the neighbours
that AWS lists too (dedicated tenancy, unused and allocated capacity reservations, capacity blocks, SQL Server on top,
and for Windows other operations of the same system), so that a reader that does not filter gets wrong prices here as it
would there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from werkzeug.wrappers import Response

from spotlab_pipelines_tests.local_aws.recording import Recording
from spotlab_pipelines_tests.local_aws.wire import (
    AwsError,
    Call,
    ec2_reply,
    json_reply,
    matches,
    page_size,
    page_token,
    read_token,
    service_model,
    to_xml,
)
from spotlab_pipelines_tests.local_aws.zones import account_zones

PRICING_REGIONS = ("us-east-1", "eu-central-1", "ap-south-1")
LOCATIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-1": "US West (N. California)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
    "eu-central-1": "EU (Frankfurt)",
}
_OPERATIONS = {"Linux": "RunInstances", "RHEL": "RunInstances:0010", "SUSE": "RunInstances:000g"}
_PLAIN = {"tenancy": "Shared", "capacitystatus": "Used", "marketoption": "OnDemand", "preInstalledSw": "NA"}
_NEIGHBOURS: tuple[tuple[dict[str, str], float], ...] = (
    # what differs from the plain product, share of its price
    ({}, 1.0),
    ({"capacitystatus": "UnusedCapacityReservation"}, 1.0),
    ({"capacitystatus": "AllocatedCapacityReservation"}, 0.0),
    ({"tenancy": "Dedicated"}, 1.06),
    ({"marketoption": "CapacityBlock"}, 0.8),
    ({"preInstalledSw": "SQL Web", "operation": "RunInstances:0200"}, 1.7),
)
_WINDOWS_NEIGHBOURS: tuple[tuple[dict[str, str], float], ...] = (
    ({"operation": "RunInstances:0800", "licenseModel": "Bring your own license"}, 0.51),
    ({"operation": "RunInstances:0002:box"}, 1.02),
)


@dataclass
class Catalogue:
    """Instance types, zones and on-demand prices of a recording."""

    recording: Recording
    _xml: dict[str, str] = field(default_factory=dict)

    @cached_property
    def offered(self) -> dict[str, list[str]]:
        """The instance types of each region."""
        regions = set(self.recording.regions) | set(self.recording.on_demand["region"])
        return {region: self.recording.offered(region) for region in regions}

    def describe_instance_types(self, call: Call) -> Response:
        """One page of the types of the call's region.

        Raises:
            AwsError: InvalidInstanceType for a type that is not offered there; a bad page size, token or filter.
        """
        offered, asked = self.offered.get(call.region, []), call.params.get("InstanceTypes", [])
        if missing := [name for name in asked if name not in offered]:
            raise AwsError(
                "InvalidInstanceType", f"The following supplied instance types do not exist: [{', '.join(missing)}]"
            )
        if len(asked) > 100:
            raise AwsError("InvalidParameterValue", "At most 100 instance types can be described in one request.")
        filters = call.filters("instance-type", "current-generation", "processor-info.supported-architecture")
        names = [name for name in (sorted(asked) or offered) if self._passes(name, filters)]
        size = page_size(call, default=100, low=5, high=100)
        offset = _offset(call, len(names))
        items = "".join(f"<item>{self._type_xml(name)}</item>" for name in names[offset : offset + size])
        token = page_token({"offset": offset + size}) if offset + size < len(names) else ""
        next_token = f"<nextToken>{token}</nextToken>" if token else ""
        return ec2_reply(call.action, f"<instanceTypeSet>{items}</instanceTypeSet>{next_token}")

    def _passes(self, name: str, filters: dict[str, list[str]]) -> bool:
        entry = self.recording.instance_types[name]
        values = {
            "instance-type": [name],
            "current-generation": [str(entry.get("CurrentGeneration", False)).lower()],
            "processor-info.supported-architecture": entry.get("ProcessorInfo", {}).get("SupportedArchitectures", []),
        }
        return all(any(matches(value, wanted) for value in values[key]) for key, wanted in filters.items())

    def _type_xml(self, name: str) -> str:
        if name not in self._xml:
            shape = service_model("ec2").shape_for("InstanceTypeInfo")
            self._xml[name] = to_xml(shape, self.recording.instance_types[name])
        return self._xml[name]

    @cached_property
    def products(self) -> list[dict[str, str]]:
        """Every product: its attributes, with its price under `usd`; sorted by SKU as AWS's order means nothing."""
        rows = self.recording.on_demand.to_dict("records")
        products = [
            _attributes(self.recording.instance_types.get(row["instance_type"], {}), row) | neighbour
            for row in rows
            for neighbour in _neighbours(row["operating_system"], float(row["usd_per_hour"]))
        ]
        for product in products:
            product["sku"] = _digest(product, 16)
        return sorted(products, key=lambda product: product["sku"])

    def get_products(self, call: Call) -> Response:
        """One page of the price list, filtered by TERM_MATCH.

        Raises:
            AwsError: another service than AmazonEC2, another kind of filter, a bad page size or token.
        """
        if call.params.get("ServiceCode") != "AmazonEC2":
            raise AwsError("NotFoundException", "Service not found; this recording prices AmazonEC2 only.")
        terms: dict[str, list[str]] = {}
        for entry in call.params.get("Filters", []):
            if entry.get("Type") != "TERM_MATCH":
                raise AwsError("InvalidParameterException", "Filter type must be TERM_MATCH.")
            terms.setdefault(entry["Field"], []).append(entry["Value"])
        found = [
            product
            for product in self.products
            if all(product.get(key, "").lower() == value.lower() for key, values in terms.items() for value in values)
        ]
        size = page_size(call, default=100, low=1, high=100)
        offset = _offset(call, len(found))
        reply: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [json.dumps(_offer(product)) for product in found[offset : offset + size]],
        }
        if offset + size < len(found):
            reply["NextToken"] = page_token({"offset": offset + size})
        return json_reply(reply)


def describe_availability_zones(call: Call, account_id: str) -> Response:
    """The region's zones under the account's own names.

    Raises:
        AwsError: an unknown zone or filter.
    """
    zones = account_zones(account_id, call.region)
    filters = call.filters("zone-name", "zone-id", "region-name", "state", "zone-type", "opt-in-status")
    asked_names, asked_ids = call.params.get("ZoneNames", []), call.params.get("ZoneIds", [])
    if unknown := [name for name in asked_names if name not in zones]:
        raise AwsError("InvalidParameterValue", f"Invalid availability zone: [{', '.join(unknown)}]")
    rows = [_zone(name, zone_id, call.region) for name, zone_id in zones.items()]
    shape = service_model("ec2").shape_for("AvailabilityZone")
    keys = {"zone-name": "ZoneName", "zone-id": "ZoneId", "region-name": "RegionName", "state": "State"}
    keys |= {"zone-type": "ZoneType", "opt-in-status": "OptInStatus"}
    items = "".join(
        f"<item>{to_xml(shape, row)}</item>"
        for row in rows
        if (not asked_names or row["ZoneName"] in asked_names)
        and (not asked_ids or row["ZoneId"] in asked_ids)
        and all(matches(row[keys[name]], values) for name, values in filters.items())
    )
    return ec2_reply(call.action, f"<availabilityZoneInfo>{items}</availabilityZoneInfo>")


def _zone(name: str, zone_id: str, region: str) -> dict[str, str]:
    return {
        "ZoneName": name,
        "ZoneId": zone_id,
        "State": "available",
        "OptInStatus": "opt-in-not-required",
        "RegionName": region,
        "GroupName": f"{region}-zg-1",
        "NetworkBorderGroup": region,
        "ZoneType": "availability-zone",
    }


def _attributes(entry: dict[str, Any], row: dict[Any, Any]) -> dict[str, str]:
    region: str = row["region"]
    system: str = row["operating_system"]
    return {
        "servicecode": "AmazonEC2",
        "servicename": "Amazon Elastic Compute Cloud",
        "productFamily": "Compute Instance",
        "instanceType": row["instance_type"],
        "regionCode": region,
        "location": LOCATIONS.get(region, region),
        "locationType": "AWS Region",
        "operatingSystem": system,
        "operation": _OPERATIONS.get(system, "RunInstances:0002"),
        "licenseModel": "No License required",
        "vcpu": str(entry.get("VCpuInfo", {}).get("DefaultVCpus", "")),
        "memory": f"{entry.get('MemoryInfo', {}).get('SizeInMiB', 0) / 1024:g} GiB",
        "currentGeneration": "Yes" if entry.get("CurrentGeneration") else "No",
    }


def _neighbours(system: str, usd: float) -> list[dict[str, str]]:
    others = _WINDOWS_NEIGHBOURS if system == "Windows" else ()
    return [_PLAIN | differs | {"usd": f"{usd * share:.10f}"} for differs, share in (*_NEIGHBOURS, *others)]


def _offer(product: dict[str, str]) -> dict[str, Any]:
    sku, code = product["sku"], "JRTCKXETXF"
    attributes = {key: value for key, value in product.items() if key not in ("sku", "usd", "productFamily")}
    dimension = {
        "unit": "Hrs",
        "endRange": "Inf",
        "description": f"${product['usd']} per {product['tenancy']} {product['instanceType']} Instance Hour",
        "appliesTo": [],
        "rateCode": f"{sku}.{code}.6YS6EN2CT7",
        "beginRange": "0",
        "pricePerUnit": {"USD": product["usd"]},
    }
    term = {
        "priceDimensions": {f"{sku}.{code}.6YS6EN2CT7": dimension},
        "sku": sku,
        "effectiveDate": "2021-01-01T00:00:00Z",
        "offerTermCode": code,
        "termAttributes": {},
    }
    return {
        "product": {"productFamily": product["productFamily"], "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {f"{sku}.{code}": term}},
        "version": "20210101000000",
        "publicationDate": "2021-01-01T00:00:00Z",
    }


def _digest(value: Any, length: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length].upper()


def _offset(call: Call, count: int) -> int:
    token = call.params.get("NextToken")
    offset = int(read_token(token).get("offset", -1)) if token else 0
    if not 0 <= offset <= count:
        raise AwsError("InvalidParameterValue", f"The token '{token}' is invalid")
    return offset
