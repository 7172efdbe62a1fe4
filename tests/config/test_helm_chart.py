"""The chart: Helm makes of it what Kubernetes takes, and the pod of it is one that the gateway can live in."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mcp_gateway.config.environment import put_over, variables_of
from mcp_gateway.config.version import VERSION
from tests.config.image_root import instructions

CONFIG = Path(__file__).parents[2] / "config"
HELM = Path(sys.executable).parent / "helm"
EVERYTHING = (
    "--set=ingress.enabled=true,ingress.className=nginx,ingress.tlsSecret=tls,ingress.host=gateway.example.org",
    "--set=serviceMonitor.enabled=true,persistence.storageClass=fast,imagePullSecrets[0].name=registry",
    "--set=env[0].name=SEARCH_TOKEN,env[0].value=x,envFrom[0].secretRef.name=more,podAnnotations.team=b",
    "--set=nodeSelector.disk=ssd,tolerations[0].operator=Exists,allowedHosts={mcp.example.com}",
)


def helm(*arguments: str) -> str:
    done = subprocess.run([HELM, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*options: str) -> dict[str, dict[str, Any]]:
    """{kind: resource}"""
    text = helm("template", "team", str(CONFIG / "helm"), "--namespace", "tools", *options)
    return {each["kind"]: each for each in yaml.safe_load_all(text) if each is not None}


def pod(resources: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = resources["StatefulSet"]["spec"]["template"]["spec"]
    return found


def test_the_linter_finds_nothing() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CONFIG / "helm"))


@pytest.mark.parametrize(
    "options", [(), EVERYTHING, ("--set=persistence.enabled=false",)], ids=["plain", "everything", "no disk"]
)
def test_kubernetes_takes_what_it_makes(options: tuple[str, ...]) -> None:
    resources = rendered(*options)
    assert {"ConfigMap", "Service", "StatefulSet"} <= set(resources)
    assert ("Ingress" in resources, "ServiceMonitor" in resources) == (options == EVERYTHING, options == EVERYTHING)
    for kind, resource in resources.items():
        if kind != "ServiceMonitor":  # of the operator, not of Kubernetes
            kubernetes_validate.validate(resource, "1.37", strict=True)
    volumes = {each["name"] for each in pod(resources)["volumes"]}
    volumes |= {each["metadata"]["name"] for each in resources["StatefulSet"]["spec"].get("volumeClaimTemplates", ())}
    assert {each["name"] for each in pod(resources)["containers"][0]["volumeMounts"]} == volumes == {"settings", "state", "tmp"}


def test_the_pod_is_asked_by_the_names_it_has_and_is_given_time_to_drain() -> None:
    resources = rendered(*EVERYTHING, "--set=drainTimeout=45")
    container = pod(resources)["containers"][0]
    given = variables_of({each["name"]: each["value"] for each in container["env"]})
    settings, problems = put_over(tomllib.loads(resources["ConfigMap"]["data"]["gateway.toml"]), given)
    assert problems == {}
    assert settings["gateway"]["drain_timeout"] == 45
    service = resources["Service"]["metadata"]["name"]
    expected = {service, f"{service}.tools", f"{service}.tools.svc", "mcp.example.com", "gateway.example.org"}
    assert set(settings["gateway"]["allowed_hosts"]) == expected
    assert pod(resources)["terminationGracePeriodSeconds"] > 45 + 5 + 2


def test_the_pod_runs_the_image_as_its_user_on_its_port_with_its_folders() -> None:
    container = pod(rendered())["containers"][0]
    steps = {each.word: each.rest for each in instructions((CONFIG / "Dockerfile").read_text())}
    security = pod(rendered())["securityContext"]
    assert steps["USER"] == f"{security['runAsUser']}:{security['runAsGroup']}"
    assert steps["EXPOSE"] == str(container["ports"][0]["containerPort"])
    assert steps["VOLUME"] in {each["mountPath"] for each in container["volumeMounts"]}
    assert container["image"] == f"mcp-gateway:{VERSION}"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_another_text_of_the_settings_is_another_pod(tmp_path: Path) -> None:
    settings = tmp_path / "gateway.toml"
    settings.write_text('[[backends]]\nname = "a"\nreplicas = ["http://a/mcp"]\n')
    changed = rendered(f"--set-file=settings={settings}")
    assert changed["ConfigMap"]["data"]["gateway.toml"] == settings.read_text()
    stamp = "checksum/settings"
    before, after = (each["StatefulSet"]["spec"]["template"]["metadata"]["annotations"][stamp] for each in (rendered(), changed))
    assert before != after


def test_compose_starts_what_there_is() -> None:
    services = yaml.safe_load((CONFIG / "compose.yml").read_text())
    for name, service in services["services"].items():
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            known = (CONFIG / source).is_file() if source.startswith("./") else source in services["volumes"]
            assert known, (name, mount)
        for config in service.get("configs", ()):
            yaml.safe_load(services["configs"][config["source"]]["content"])
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
    gateway = services["services"]["gateway"]
    assert (CONFIG / gateway["build"]["context"] / gateway["build"]["dockerfile"]).resolve() == CONFIG / "Dockerfile"
    assert "gateway" in json.loads(gateway["environment"]["MCP_GATEWAY__GATEWAY__ALLOWED_HOSTS"])
    prometheus = yaml.safe_load(services["configs"]["prometheus"]["content"])
    assert prometheus["scrape_configs"][0]["static_configs"][0]["targets"] == ["gateway:4000"]
    datasource = yaml.safe_load(services["configs"]["grafana-datasource"]["content"])["datasources"][0]
    used = (CONFIG / "grafana-dashboard.json").read_text()
    assert datasource["type"] == "prometheus"
    assert datasource["uid"] in used or "${datasource}" in used or "DS_" in used
