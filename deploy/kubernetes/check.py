"""Renders every kustomization and checks each resource against the Kubernetes schema; part of `make check`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

HERE = Path(__file__).parent
VERSION = "1.33"


def render(folder: Path) -> list[dict[str, Any]]:
    """Return the resources: rendered by kustomize if it is installed, otherwise the files that it names."""
    for command in (["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
            return [resource for resource in yaml.safe_load_all(done.stdout) if resource]
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    resources: list[dict[str, Any]] = []
    for name in kustomization["resources"]:
        path = folder / name
        resources += render(path) if path.is_dir() else filter(None, yaml.safe_load_all(path.read_text()))
    for patch in kustomization.get("patches", ()):
        _merge(resources, yaml.safe_load((folder / patch["path"]).read_text()))
    return resources


def _merge(resources: list[dict[str, Any]], patch: dict[str, Any]) -> None:
    """Merge the data of a ConfigMap, the only kind that our overlays change, into the one of its name."""
    for resource in resources:
        if (resource["kind"], resource["metadata"]["name"]) == ("ConfigMap", patch["metadata"]["name"]):
            resource["data"].update(patch["data"])
            return
    raise ValueError(f"no ConfigMap is called {patch['metadata']['name']}")


def problems(resource: dict[str, Any]) -> list[str]:
    """Return what violates the schema or our own rules."""
    name = f"{resource['kind']}/{resource['metadata']['name']}"
    found = []
    try:
        kubernetes_validate.validate(resource, VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        found.append(f"{name}: {'.'.join(map(str, error.path))}: {error.message}")
    if resource["kind"] == "Deployment":
        pod = resource["spec"]["template"]["spec"]
        for container in pod["containers"]:
            found += [
                f"{name}: {container['name']} has no {wanted}"
                for wanted in ("livenessProbe", "readinessProbe", "resources", "securityContext")
                if wanted not in container
            ]
        if "terminationGracePeriodSeconds" not in pod:
            found.append(f"{name}: has no terminationGracePeriodSeconds")
    return found


def main() -> int:
    """Check every kustomization; returns the exit code."""
    found = [
        problem
        for kustomization in sorted(HERE.rglob("kustomization.yaml"))
        for resource in render(kustomization.parent)
        for problem in problems(resource)
    ]
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
