"""Checks a manifest against the schema of its kind, where a key that the schema does not have is an error too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate  # type: ignore[import-untyped]

SCHEMAS = Path(__file__).parent.parent.parent / "fixtures" / "schemas"
KUBERNETES = "1.37"
_OPERATOR = ("PodMonitor", "ServiceMonitor", "PrometheusRule")


def check_object(manifest: Mapping[str, Any]) -> None:
    """One Kubernetes object. Raises a ValidationError that says where and what."""
    if manifest["apiVersion"] == "monitoring.coreos.com/v1" and manifest["kind"] in _OPERATOR:
        schema = json.loads((SCHEMAS / f"{manifest['kind']}.json").read_text())
        jsonschema.validate(manifest, _strict(schema))
    else:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def check_compose(manifest: Mapping[str, Any]) -> None:
    """A compose file. Its schema is strict by itself."""
    schema = json.loads((SCHEMAS / "compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(manifest)


def _strict(schema: Any) -> Any:
    """A structural schema of a CustomResourceDefinition as JSON Schema without unknown keys."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if isinstance(made.get("pattern"), str) and "(?i)" in made["pattern"]:
        made["pattern"] = "(?i)" + made["pattern"].replace("(?i)", "")  # Go has flags anywhere, Python in front
    if made.pop("x-kubernetes-int-or-string", False):
        made["type"] = ["integer", "string"]
    if "properties" in made and isinstance(made.get("type"), str) and "additionalProperties" not in made:
        made["additionalProperties"] = bool(made.get("x-kubernetes-preserve-unknown-fields"))
    if made.get("type") == "object" and "metadata" in made.get("properties", {}):
        made["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return made
