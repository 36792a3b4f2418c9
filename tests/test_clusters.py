"""The files that start the stages on clusters: by the clusters' own schemas, and by what we read of them."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from score_core.config.parsing import LAUNCH_PREFIX, load_runtime
from score_core.config.runtime import Launch
from tasks.commands.sampler import main as serve

ROOT = Path(__file__).resolve().parents[1]
MACHINES = ROOT / "launch/on_machines"
SAYS = "#!/bin/bash\nenv\n"  # a command that says what it was given


def documents(name: str) -> dict[str, Any]:
    """The objects in a file for Kubernetes, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all((ROOT / "launch/kubernetes" / name).read_text())}


def wrong(schema: dict[str, Any], content: Any) -> list[str]:
    return [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(content)
    ]


def schema_of(name: str) -> dict[str, Any]:
    return json.loads((ROOT / f"tests/schemas/{name}.json").read_text())


def launch_of(environment: dict[str, str]) -> Launch:
    """What our own parser makes of an environment, which may hold more."""
    return load_runtime(ROOT / "runtime.yaml", environment).launch


def write_command(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def said_environment(line: list[str], folder: Path, **environment: str) -> dict[str, str]:
    """Runs something that ends in `SAYS`; returns the environment that this was given."""
    own = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **environment}
    done = subprocess.run(line, cwd=folder, env=own, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return dict(said.split("=", 1) for said in done.stdout.splitlines() if "=" in said)


# ------------------------------------------------------------------------------------- Kubernetes


@pytest.mark.parametrize("name", ["job.yaml", "sampler.yaml"])
def test_kubernetes_takes_the_files(name: str) -> None:
    definitions = schema_of("kubernetes")
    for kind, content in documents(name).items():
        schema = {**definitions, "$ref": f"#/$defs/{kind}"}
        assert wrong(schema, content) == []
        assert wrong(schema, {**content, "spec": {**content["spec"], "completionsMode": "x"}})


def pod(document: dict[str, Any]) -> dict[str, Any]:
    return document["spec"]["template"]["spec"]


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in container["env"]}


def test_the_pods_of_a_job_become_our_machines(tmp_path: Path) -> None:
    found = documents("job.yaml")
    job, (container,) = found["Job"]["spec"], pod(found["Job"])["containers"]
    write_command(tmp_path / "launch/on_machines", SAYS)
    line = [*container["command"], *container["args"]]
    for index in range(job["completions"]):
        given = variables(container) | {"JOB_COMPLETION_INDEX": str(index)}
        launch = launch_of(said_environment(line, tmp_path, **given))
        assert launch.machine_rank == index
        assert launch.machines == job["completions"] == job["parallelism"]
        assert launch.main_address == f"{found['Job']['metadata']['name']}-0.{pod(found['Job'])['subdomain']}"
    assert found["Service"]["metadata"]["name"] == pod(found["Job"])["subdomain"]
    assert found["Service"]["spec"]["selector"].items() <= job["template"]["metadata"]["labels"].items()
    claims = [one.get("persistentVolumeClaim", {}).get("claimName") for one in pod(found["Job"])["volumes"]]
    assert found["PersistentVolumeClaim"]["metadata"]["name"] in claims
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert container["workingDir"] in mounted


def test_the_pods_reach_the_server_and_nothing_else_does(capsys: pytest.CaptureFixture[str]) -> None:
    trainers, found = documents("job.yaml")["Job"], documents("sampler.yaml")
    (line,) = re.findall(
        r"# - (\{name: SCORE_LAUNCH_SAMPLER.*)", (ROOT / "launch/kubernetes/job.yaml").read_text()
    )
    address = launch_of({"SCORE_LAUNCH_SAMPLER": yaml.safe_load(line)["value"]}).sampler
    service, policy = found["Service"], found["NetworkPolicy"]["spec"]
    port = service["spec"]["ports"][0]["port"]
    assert address == f"http://{service['metadata']['name']}:{port}"
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == policy["podSelector"]["matchLabels"] == labels
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    (rule,) = policy["ingress"]
    allowed = [one["podSelector"]["matchLabels"] for one in rule["from"]]
    assert allowed == [trainers["spec"]["template"]["metadata"]["labels"]]
    assert rule["ports"] == [{"port": port}] == service["spec"]["ports"]
    (container,) = pod(found["Deployment"])["containers"]
    *_, module, host, _, option, listens = container["command"]
    assert (module, host, option, listens) == ("tasks.commands.sampler", "--host", "--port", str(port))
    # The command line is read before it is found that there is no such model.
    assert serve([host, "10.0.0.1", option, listens, "--model", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


# --------------------------------------------------------------------------------------- SkyPilot


def test_the_volume_of_skypilot_is_one_that_all_machines_can_mount() -> None:
    task, volume = (
        yaml.safe_load((ROOT / "launch" / name).read_text())
        for name in ("skypilot.yaml", "skypilot_volume.yaml")
    )
    assert task["volumes"] == {task["envs"]["CHECKOUT"]: volume["name"]}
    assert volume["config"]["access_mode"] == "ReadWriteMany"


def test_skypilot_takes_the_file() -> None:
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    schema = schema_of("skypilot")
    assert wrong(schema, task) == []
    assert wrong(schema, {**task, "node_count": 2})
    assert wrong(schema, {**task, "resources": {**task["resources"], "accelerator": "H100"}})


@pytest.mark.parametrize("addresses", [["10.0.0.1"], ["10.0.0.1", "10.0.0.2"]])
def test_the_nodes_of_a_task_become_our_machines(tmp_path: Path, addresses: list[str]) -> None:
    task = yaml.safe_load((ROOT / "launch/skypilot.yaml").read_text())
    write_command(tmp_path / "launch/on_machines", SAYS)
    for rank in range(len(addresses)):
        given = task["envs"] | {
            "CHECKOUT": str(tmp_path),
            "SKYPILOT_NUM_NODES": str(len(addresses)),
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join(addresses),
            "SKYPILOT_TASK_ID": "sky-1",
        }
        launch = launch_of(said_environment(["bash", "-c", task["run"]], tmp_path, **given))
        assert (launch.machines, launch.machine_rank) == (len(addresses), rank)
        assert launch.main_address == "10.0.0.1" and launch.strategy == "auto"


# ------------------------------------------------------------------------------------------ SLURM


@pytest.mark.parametrize("nodes", [["a", "b"], ["a", "b", "c"]])
def test_the_last_node_of_a_slurm_job_samples(tmp_path: Path, nodes: list[str]) -> None:
    write_command(tmp_path / "bin/scontrol", f"#!/bin/sh\nprintf '%s\\n' {' '.join(nodes)}\n")
    # The server is up after a moment, and ends when it is told to.
    write_command(
        tmp_path / "bin/srun", '#!/bin/sh\necho "srun $*"\nsleep 0.2\necho launch.sampler: x\nexec sleep 30\n'
    )
    write_command(tmp_path / "bin/dvc", '#!/bin/sh\necho "dvc $*"\n[ "$3" ] || env\n')
    environment = said_environment(
        ["bash", str(ROOT / "launch/slurm/score.sbatch")],
        tmp_path,
        SAMPLER="yes",
        SLURM_SUBMIT_DIR=str(tmp_path),
        SLURM_JOB_NUM_NODES=str(len(nodes)),
        SLURM_JOB_NODELIST="",
        SLURM_JOB_ID="4711",
    )
    server, launch = nodes[-1], launch_of(environment)
    assert launch.sampler == f"http://{server}:8000"
    assert launch.machines == len(nodes) - 1
    if launch.machines > 1:
        assert launch.main_address == "a"
        assert "--nodes=2 --nodelist=a,b launch/slurm/on_node" in str(launch.through)
    started = (tmp_path / "slurm-4711-sampler.out").read_text()
    assert f"--nodelist={server} python -m tasks.commands.sampler --host {server} --port 8000" in started


# --------------------------------------------------------- machines that cannot start one another

DVC = """#!/bin/sh
for stage in "first stage" "second stage"; do
    $SCORE_LAUNCH_THROUGH ./stage "$stage" || exit
done
"""
# Like a stage, it needs all machines, and saves when it is told to stop.
STAGE = """#!/bin/bash
rank=$SCORE_LAUNCH_MACHINE_RANK
trap 'touch "saved $rank"; exit 75' TERM
touch "$1 $rank"
until [ -e "$1 0" ] && [ -e "$1 1" ] && [ -e go ]; do sleep 0.05; done
"""


def wait_for(there: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_stages_start_on_all_machines_and_again_after_a_stop(tmp_path: Path) -> None:
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch/on_machines").symlink_to(MACHINES)
    write_command(tmp_path / "bin/dvc", DVC)
    write_command(tmp_path / "stage", STAGE)

    def start(rank: int) -> subprocess.Popen[bytes]:
        plain = {name: text for name, text in os.environ.items() if not name.startswith(LAUNCH_PREFIX)}
        own = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SCORE_LAUNCH_MACHINES": "2",
            "SCORE_LAUNCH_MACHINE_RANK": str(rank),
        }
        return subprocess.Popen(["launch/on_machines", "job", "dvc", "repro"], cwd=tmp_path, env=plain | own)

    first, other = start(0), start(1)
    try:
        wait_for(lambda: all((tmp_path / f"first stage {rank}").exists() for rank in (0, 1)))
        first.terminate()
        assert first.wait(30) != 0
        assert (tmp_path / "saved 0").exists(), "the stage was told, and waited for"
        assert other.poll() is None, "which waits for what comes next"
        for rank in (0, 1):
            (tmp_path / f"first stage {rank}").unlink()
        first = start(0)
        wait_for((tmp_path / "first stage 1").exists)
        assert (tmp_path / "saved 1").exists(), "what waits for the stage that is gone is ended first"
        (tmp_path / "go").touch()
        assert (first.wait(30), other.wait(30)) == (0, 0)
        assert all((tmp_path / f"second stage {rank}").exists() for rank in (0, 1))
    finally:
        for process in (first, other):
            process.kill()
