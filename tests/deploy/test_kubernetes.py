"""The Kubernetes resources: against the schemas of Kubernetes, and against what the server does.

No cluster runs here. The output of kustomize is checked if a kubectl with kustomize is installed.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from flashpol.config import Config, load
from testkit.polling import DEADLINE
from testkit.processes import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = {"deployment-loadbalancer": "Deployment", "daemonset-hostport": "DaemonSet"}
VERSIONS = ("1.30", "1.34")  # the oldest with all fields that are used, and a later one
KUSTOMIZE_VERSION = (5, 0)

Resource = dict[str, Any]


def read(path: Path) -> list[Resource]:
    return [resource for resource in yaml.safe_load_all(path.read_text()) if resource]


def kustomizations() -> Iterator[tuple[Path, Resource]]:
    for path in sorted(FOLDER.rglob("kustomization.yaml")):
        [content] = read(path)
        yield path.parent, content


# Patches are parts of resources, which only kustomize completes.
FILES = [
    folder / name
    for folder, content in kustomizations()
    for name in content.get("resources", [])
    if name.endswith(".yaml")
]


def validate(resource: Resource, version: str) -> None:
    kubernetes_validate.validate(resource, version, strict=True)


def of_kind(kind: str, resources: list[Resource]) -> Resource:
    [found] = [resource for resource in resources if resource["kind"] == kind]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_resource_file_fits_the_schemas(path: Path, version: str) -> None:
    for resource in read(path):
        if resource["kind"] == "ServiceMonitor":
            service_monitor(resource)
        else:
            validate(resource, version)


def test_validator_refuses_a_mistyped_field() -> None:
    [deployment] = read(FOLDER / "base" / "deployment.yaml")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(deployment, VERSIONS[0])


def service_monitor(resource: Resource) -> None:
    """Check the fields that are used here by the documentation of the Prometheus operator: no schema is packaged."""
    assert resource["apiVersion"] == "monitoring.coreos.com/v1"
    assert resource["spec"].keys() == {"jobLabel", "selector", "endpoints"}
    [endpoint] = resource["spec"]["endpoints"]
    assert endpoint.keys() == {"port", "path", "interval"}
    assert re.fullmatch(r"[0-9]+s", endpoint["interval"])


def test_every_file_is_named_by_a_kustomization() -> None:
    named = set()
    for folder, content in kustomizations():
        patches = [patch["path"] for patch in content.get("patches", [])]
        generated = [name for each in content.get("configMapGenerator", []) for name in each["files"]]
        others = [*content.get("resources", []), *content.get("components", [])]
        named |= {(folder / name).resolve() for name in (*patches, *generated, *others)}
    assert all(path.exists() for path in named)
    files = {path for path in FOLDER.rglob("*") if path.is_file() and path.name != "kustomization.yaml"}
    assert files == {path for path in named if path.is_file()}


# ---------------------------------------------------------------------------------------- agreement with the server


@pytest.fixture
def config() -> Config:
    return load(FOLDER / "base" / "configuration" / "flashpol.toml")


@pytest.fixture
def pod() -> Resource:
    [deployment] = read(FOLDER / "base" / "deployment.yaml")
    spec: Resource = deployment["spec"]["template"]["spec"]
    return spec


def test_ports_of_the_pod_are_those_of_the_configuration(config: Config, pod: Resource) -> None:
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert config.server.admin is not None
    assert ports == {"flash": config.listeners[0].address.port, "admin": config.server.admin.port}
    assert min(ports.values()) >= 1024, "lower ports need a capability"


def test_config_map_is_mounted_so_that_changes_are_seen(config: Config, pod: Resource) -> None:
    assert config.server.watch > 0
    [mount] = pod["containers"][0]["volumeMounts"]
    assert "subPath" not in mount
    assert pod["containers"][0]["args"] == ["serve", "-c", f"{mount['mountPath']}/flashpol.toml"]
    [content] = [content for folder, content in kustomizations() if folder.name == "base"]
    [generator] = content["configMapGenerator"]
    assert generator["options"]["disableNameSuffixHash"] is True
    assert generator["name"] == pod["volumes"][0]["configMap"]["name"]


def test_pod_has_memory_for_its_connections(config: Config, pod: Resource) -> None:
    limits = config.server.connection_limits
    memory = int(pod["containers"][0]["resources"]["limits"]["memory"].removesuffix("Mi")) << 20
    assert 0 < limits.max_connections * 5_000 < memory - (100 << 20), "5 KB each, and 100 MB for the processes"
    assert limits.max_address_rate == limits.max_address_sessions == 0, "some balancers hide the clients' addresses"


def test_pod_has_time_to_stop(config: Config, pod: Resource) -> None:
    delay = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > delay + config.server.shutdown_timeout + 3


def restricted(pod: Resource) -> None:
    """Assert the Pod Security Standard "restricted", as far as it concerns a pod of this kind."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(volume.keys() in ({"name", "configMap"}, {"name", "secret"}) for volume in pod["volumes"])
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"] is True
        assert "privileged" not in context


def test_pod_is_restricted(pod: Resource) -> None:
    restricted(pod)


# ------------------------------------------------------------------------------------------------ output of kustomize


def _has_kustomize() -> bool:
    if not shutil.which("kubectl"):
        return False
    done = subprocess.run(
        ["kubectl", "version", "--client", "-o", "json"], capture_output=True, timeout=4 * DEADLINE, check=False
    )
    if done.returncode:
        return False
    found = re.match(r"v([0-9]+)\.([0-9]+)", json.loads(done.stdout).get("kustomizeVersion", ""))
    return bool(found) and (int(found[1]), int(found[2])) >= KUSTOMIZE_VERSION  # type: ignore[index]


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[Resource]]:
    if not _has_kustomize():
        pytest.skip("no kubectl with kustomize 5")
    done = subprocess.run(
        ["kubectl", "kustomize", FOLDER / "overlays" / request.param],
        capture_output=True, text=True, timeout=4 * DEADLINE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return request.param, list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay_with_tls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Resource:
    """The workload of an overlay that names the component for TLS too."""
    if not _has_kustomize():
        pytest.skip("no kubectl with kustomize 5")
    folder = tmp_path_factory.mktemp("kubernetes") / "kubernetes"
    shutil.copytree(FOLDER, folder)
    path = folder / "overlays" / request.param / "kustomization.yaml"
    path.write_text(path.read_text().replace("components:\n", "components:\n  - ../../components/tls\n"))
    command = ["kubectl", "kustomize", path.parent]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * DEADLINE, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return of_kind(OVERLAYS[request.param], list(yaml.safe_load_all(done.stdout)))


@pytest.mark.slow
def test_overlay_with_tls_gives_the_key_to_the_pods_group_alone(overlay_with_tls: Resource) -> None:
    for version in VERSIONS:
        validate(overlay_with_tls, version)
    pod = overlay_with_tls["spec"]["template"]["spec"]
    restricted(pod)
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"] == 65532
    [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert secret["defaultMode"] == 0o440
    mounts = {mount["name"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts.keys() == {"configuration", "certificates"}
    assert "subPath" not in mounts["certificates"]
    guide = (ROOT / "docs" / "guide" / "containers.md").read_text()
    assert f'chain = "{mounts["certificates"]["mountPath"]}/tls.crt"' in guide
    assert f'key = "{mounts["certificates"]["mountPath"]}/tls.key"' in guide


@pytest.mark.slow
def test_overlay_fits_the_schemas(overlay: tuple[str, list[Resource]]) -> None:
    name, resources = overlay
    for resource in resources:
        if resource["kind"] == "ServiceMonitor":
            service_monitor(resource)
        else:
            for version in VERSIONS:
                validate(resource, version)
    restricted(of_kind(OVERLAYS[name], resources)["spec"]["template"]["spec"])


@pytest.mark.slow
def test_overlay_serves_on_port_843(overlay: tuple[str, list[Resource]]) -> None:
    name, resources = overlay
    container = of_kind(OVERLAYS[name], resources)["spec"]["template"]["spec"]["containers"][0]
    hosts = [port.get("hostPort") for port in container["ports"] if port["name"] == "flash"]
    services = [
        port["port"]
        for resource in resources
        if resource["kind"] == "Service"
        for port in resource["spec"]["ports"]
        if port["targetPort"] == "flash"
    ]
    assert (hosts, services) == {"daemonset-hostport": ([843], []), "deployment-loadbalancer": ([None], [843])}[name]


@pytest.mark.slow
def test_overlay_selectors_find_their_pods(overlay: tuple[str, list[Resource]]) -> None:
    """Every selector matches the pods, and the monitor its Service."""
    name, resources = overlay
    labels = of_kind(OVERLAYS[name], resources)["spec"]["template"]["metadata"]["labels"].items()
    for resource in resources:
        spec = resource.get("spec", {})
        selector = {
            "Service": spec.get("selector"),
            "NetworkPolicy": spec.get("podSelector", {}).get("matchLabels"),
            "PodDisruptionBudget": spec.get("selector", {}).get("matchLabels"),
            OVERLAYS[name]: spec.get("selector", {}).get("matchLabels"),
        }.get(resource["kind"])
        assert selector is None or (selector and selector.items() <= labels), resource["kind"]
        assert resource["kind"] == "Namespace" or resource["metadata"]["namespace"] == "flashpol"
    wanted = of_kind("ServiceMonitor", resources)["spec"]
    found = [
        service
        for service in resources
        if service["kind"] == "Service"
        and wanted["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    [service] = found
    assert wanted["endpoints"][0]["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert of_kind("ConfigMap", resources)["data"].keys() == {"flashpol.toml", "policy.xml"}
