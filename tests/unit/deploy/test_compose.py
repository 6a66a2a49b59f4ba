"""The compose file: valid, with nothing in it that is not there, and for this host alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from slabwatch import __version__
from tests.requirements import need
from tests.unit.deploy.schemas import check_compose

COMPOSE = Path(__file__).parent.parent.parent.parent / "deploy" / "compose"
GRAFANA = COMPOSE.parent / "grafana"


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return loaded


def test_it_is_valid() -> None:
    check_compose(compose())
    wrong = compose()
    wrong["services"]["slabwatch"]["surprise"] = True
    with pytest.raises(jsonschema.ValidationError):
        check_compose(wrong)


def test_what_is_mounted_is_there_and_read_only() -> None:
    mounts = [mount for service in compose()["services"].values() for mount in service["volumes"]]
    bound = [mount for mount in mounts if isinstance(mount, dict)]
    assert len(bound) >= 6
    for mount in bound:
        assert (COMPOSE / mount["source"]).exists(), mount
        assert mount["read_only"] is True
    named = {mount.split(":")[0] for mount in mounts if isinstance(mount, str)}
    assert named == set(compose()["volumes"])


def test_the_image_is_built_from_this_tree() -> None:
    service = compose()["services"]["slabwatch"]
    assert service["image"] == f"slabwatch:{__version__}"
    assert (COMPOSE / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    assert service["cap_drop"] == ["ALL"]


def test_only_this_host_can_reach_it() -> None:
    published = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_grafana_is_told_what_its_files_ask_for() -> None:
    provisioned = [path.read_text() for path in (GRAFANA / "provisioning").rglob("*.yml")]
    wanted = {name for text in provisioned for name in re.findall(r"\$\{(\w+)\}", text)}
    assert wanted <= set(compose()["services"]["grafana"]["environment"])
    targets = {mount["target"] for mount in compose()["services"]["grafana"]["volumes"] if isinstance(mount, dict)}
    looked_in = {path for text in provisioned for path in re.findall(r"path: (/var/lib/grafana\S+)", text)}
    assert looked_in
    assert looked_in <= targets


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    need(shutil.which("promtool") is not None, "promtool")
    shutil.copy(COMPOSE / "prometheus.yml", tmp_path)
    shutil.copytree(COMPOSE.parent / "prometheus", tmp_path / "slabwatch")
    check = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    result = subprocess.run(check, check=False, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r"SUCCESS: \d+ rules found", result.stdout)) == len(
        list((COMPOSE.parent / "prometheus").glob("slabwatch-*.yml"))
    )
