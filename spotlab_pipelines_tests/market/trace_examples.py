"""Small files in the shapes of the public traces: probes, events of instances, ticks, added and removed nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pandas as pd

from spotlab_pipelines.market.trace_statement import Told, TraceStatement

STATEMENT = TraceStatement(
    time="ts",
    region=Told("region"),
    zone=Told("az"),
    instance_type=Told("instance_type"),
    product=Told(value="Linux/UNIX"),
    available=(("available", "1"),),
    failed=(("available", "0"),),
)
"""For `probes_file`."""
OF_EVENTS = TraceStatement(
    time="ts",
    region=Told(value="us-east-1"),
    zone=Told("az"),
    instance_type=Told("instance_type"),
    product=Told(value="Linux/UNIX"),
    available=(("event", "created"), ("event", "running")),
    failed=(("event", "not_running"),),
    ignored=(("event", "create_failed"), ("event", "deleted")),
    kinds={"created": "launch", "running": "running", "not_running": "interruption"},
)
CONSTANT = replace(OF_EVENTS, zone=Told(value="use1-az1"), instance_type=Told(value="p3.2xlarge"), ignored=(), kinds={})
"""OF_EVENTS is for EVENTS; CONSTANT names one pool for a file that names none."""
EVENTS = """ts,event,instance,instance_type,az
2020-03-15 10:07:33+00:00,created,i000,p3.2xlarge,us-east-1b
2020-03-15 10:21:22+00:00,running,i000,p3.2xlarge,us-east-1b
2020-03-15 10:21:24+00:00,create_failed,,p2.8xlarge,
2020-03-15 10:31:22+00:00,not_running,i000,p3.2xlarge,us-east-1b
2020-03-15 10:41:22+00:00,deleted,i001,p2.xlarge,us-east-1c
"""
NODES = "0,add,node1\n0,add,node2\n60000,remove,node1\n"


def probes(n: int = 6) -> pd.DataFrame:
    """Probes of two pools every ten minutes, of which the third and fourth of the second pool fail."""
    times = pd.date_range("2022-10-26T22:05Z", periods=n, freq="10min").as_unit("us")
    parts = [
        pd.DataFrame({"ts": times, "region": "us-west-2", "az": az, "instance_type": "p3.2xlarge", "available": 1})
        for az in ("us-west-2a", "us-west-2b")
    ]
    parts[1].loc[[2, 3], "available"] = 0
    return pd.concat(parts, ignore_index=True)


def probes_file(folder: Path, frame: pd.DataFrame | None = None, name: str = "probes.parquet") -> Path:
    """A Parquet file of probes."""
    path = folder / name
    (probes() if frame is None else frame).to_parquet(path)
    return path


def ticks_file(folder: Path) -> Path:
    """Whether an instance ran, every 34 seconds, as one JSON object of lists."""
    path = folder / "ticks.json"
    path.write_bytes(
        orjson.dumps({"metadata": {"gap_seconds": 34}, "data": [0, 1, 1, 0], "prices": [1.0, 1.0, 1.1, 1]})
    )
    return path
