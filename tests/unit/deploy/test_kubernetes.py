"""The manifests: composed by kustomize, valid for Kubernetes and the operator, with no more rights than they say."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from slabwatch import __version__, config_file
from slabwatch.expose.app import make_app
from tests.generate import kubernetes
from tests.unit.deploy.schemas import check_object

PROJECT = Path(__file__).parent.parent.parent.parent
MANIFESTS = PROJECT / "deploy" / "kubernetes"
OVERLAYS = ("base", "overlays/operator", "overlays/operator-service", "overlays/storm")
INVALID = (jsonschema.ValidationError, kubernetes_validate.ValidationError)


@functools.cache
def kustomize() -> str | None:
    """kubectl with a kustomize that knows components; Debian 12's own is too old, and no package registry has one."""
    if not shutil.which("kubectl"):
        return None
    command = ["kubectl", "version", "--client"]
    said = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30).stdout
    version = re.search(r"Kustomize Version: v(\d+)", said)
    return "kubectl" if version and int(version[1]) >= 4 else None


@functools.cache
def composed(overlay: str) -> tuple[dict[str, Any], ...]:
    if not kustomize():
        pytest.skip("needs kubectl with kustomize 4 or newer, which no package registry has for Debian 12")
    command = ["kubectl", "kustomize", str(MANIFESTS / overlay)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert result.stderr == ""  # deprecations
    return tuple(yaml.safe_load_all(result.stdout))


def of_kind(overlay: str, kind: str) -> list[dict[str, Any]]:
    return [found for found in composed(overlay) if found["kind"] == kind]


def raw(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((MANIFESTS / path).read_text())
    return loaded


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_valid(overlay: str) -> None:
    for found in composed(overlay):
        check_object(found)
        assert "namespace" in found["metadata"] or found["kind"] == "Namespace"


@pytest.mark.parametrize("path", ["base/daemonset.yaml", "base/service.yaml", "base/namespace.yaml",
                                  "components/podmonitor/podmonitor.yaml",
                                  "components/servicemonitor/servicemonitor.yaml"])  # fmt: skip
def test_every_file_is_valid(path: str) -> None:
    found = raw(path)
    check_object(found)
    found["spec" if "spec" in found else "metadata"]["surprise"] = 1
    if found["kind"] != "Namespace":
        with pytest.raises(INVALID):
            check_object(found)


def test_rules_and_dashboards_are_valid_as_they_will_be(tmp_path: Path) -> None:
    (tmp_path / "deploy" / "prometheus" / "tests").mkdir(parents=True)
    (tmp_path / "deploy" / "grafana" / "dashboards").mkdir(parents=True)
    text = (
        "# why\ngroups:\n  - name: g\n    rules:\n      - alert: A\n        expr: |-\n          up\n            == 0\n"
    )
    (tmp_path / "deploy" / "prometheus" / "slabwatch-alerts.yml").write_text(text)
    (tmp_path / "deploy" / "prometheus" / "prometheus.yml").write_text("global: {}\n")
    board = '{\n  "title": "Fleet: \\"{{x}}\\" # no comment"\n}\n'
    (tmp_path / "deploy" / "grafana" / "dashboards" / "slabwatch-fleet.json").write_text(board)
    (rule,) = yaml.safe_load_all(kubernetes.rules(tmp_path))
    check_object(rule)
    assert rule["metadata"]["name"] == "slabwatch-alerts"
    assert rule["spec"] == yaml.safe_load(text)
    (dashboard,) = yaml.safe_load_all(kubernetes.dashboards(tmp_path))
    check_object(dashboard)
    assert dashboard["metadata"]["name"] == "slabwatch-dashboard-fleet"
    assert json.loads(dashboard["data"]["slabwatch-fleet.json"]) == json.loads(board)


def test_all_rules_and_dashboards_are_there() -> None:
    loaded = [yaml.safe_load(path.read_text()) for path in sorted((PROJECT / "deploy" / "prometheus").glob("*.yml"))]
    wanted = [found for found in loaded if "groups" in found]
    made = [found for found in yaml.safe_load_all(kubernetes.rules(PROJECT)) if found]
    assert [found["spec"] for found in made] == wanted
    boards = sorted((PROJECT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    maps = [found for found in yaml.safe_load_all(kubernetes.dashboards(PROJECT)) if found]
    assert [json.loads(text) for found in maps for text in found["data"].values()] == [
        json.loads(path.read_text()) for path in boards
    ]
    assert all(len(json.dumps(found)) < 1024 * 1024 for found in maps)  # the most that a ConfigMap may hold


def test_what_is_composed_is_what_is_there() -> None:
    """Without kustomize: every path that is named is there, and every file is named."""
    named: set[Path] = set()
    for path in sorted(MANIFESTS.rglob("kustomization.yaml")):
        kustomization = yaml.safe_load(path.read_text())
        generators = kustomization.get("configMapGenerator", [])
        names = [
            *kustomization.get("resources", []),
            *kustomization.get("components", []),
            *(patch["path"] for patch in kustomization.get("patches", [])),
            *(file for generator in generators for file in generator["files"]),
        ]
        assert names
        for name in names:
            target = (path.parent / name).resolve()
            assert target.exists(), f"{path}: {name}"
            named.add(target / "kustomization.yaml" if target.is_dir() else target)
    tops = {(MANIFESTS / overlay / "kustomization.yaml").resolve() for overlay in OVERLAYS}
    files = {path.resolve() for path in MANIFESTS.rglob("*") if path.is_file() and path.name != "README.md"}
    assert files == named | tops


def test_the_watcher_has_no_rights() -> None:
    (pod,) = (raw("base/daemonset.yaml")["spec"]["template"]["spec"],)
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "capabilities": {"drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }
    assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    of_the_host = {volume["name"] for volume in pod["volumes"] if "hostPath" in volume}
    assert of_the_host == {"proc", "sys"}
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] in of_the_host]
    assert [mount["mountPath"] for mount in mounts] == ["/host/proc", "/host/sys"]
    assert all(mount["readOnly"] is True for mount in mounts)


def test_only_the_overlay_permits_storms(tmp_path: Path) -> None:
    permitted = {}
    for overlay in ("base", "overlays/storm"):
        file = MANIFESTS / overlay / "slabwatch.toml"
        loaded = config_file.load(file)
        permitted[overlay] = (loaded.storm.enabled, loaded.shrink.enabled)
        assert loaded.metrics.address() == ("0.0.0.0", 9934)
    assert permitted == {"base": (False, False), "overlays/storm": (True, True)}


def test_the_storms_pod_sees_the_nodes_own_files() -> None:
    (daemons,) = of_kind("overlays/storm", "DaemonSet")
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["privileged"] is True
    assert "drop" not in container["securityContext"].get("capabilities", {})
    assert "--root" not in container["args"]
    assert pod["hostPID"] is True
    assert pod["nodeSelector"]["slabwatch/storm"] == "allowed"
    assert [volume["name"] for volume in pod["volumes"] if "hostPath" in volume] == ["sys"]
    assert {"name": "sys", "mountPath": "/sys"} in container["volumeMounts"]
    assert {found["metadata"]["name"] for found in of_kind("overlays/storm", "Namespace")} == {"slabwatch-storm"}


@pytest.mark.parametrize("kind", ["podmonitor", "servicemonitor"])
def test_a_node_s_series_go_on_in_its_next_pod(kind: str) -> None:
    """Rules look six hours back at series with the same labels, and the operator adds the pod's name to them."""
    spec = raw(f"components/{kind}/{kind}.yaml")["spec"]
    (endpoint,) = spec.get("podMetricsEndpoints") or spec["endpoints"]
    named, dropped = endpoint["relabelings"]
    assert named == {"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "instance"}
    assert dropped == {"action": "labeldrop", "regex": "pod"}


def test_probes_and_ports_are_the_daemons() -> None:
    (container,) = raw("base/daemonset.yaml")["spec"]["template"]["spec"]["containers"]
    routes = {route.resource.canonical for route in make_app_routes() if route.resource}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in routes
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["name"]
    assert container["ports"][0]["containerPort"] == 9934


def make_app_routes() -> Any:
    return make_app(None, lambda: None, lambda: None).router.routes()  # type: ignore[arg-type]


def test_the_image_is_this_version() -> None:
    assert raw("base/kustomization.yaml")["images"] == [{"name": "slabwatch", "newTag": __version__}]
