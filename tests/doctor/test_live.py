"""What a machine tells of itself, from a scripted shell."""

import json

from atoll.doctor.live import CONTAINERS, ask_machine
from atoll.workflows.diagnose import ask, diagnose

INSPECT = json.dumps(
    [
        {
            "Name": "/vllm",
            "Config": {
                "Image": "vllm/vllm-openai:v0.32.0",
                "Cmd": ["org/m", "-tp", "2"],
                "Entrypoint": ["vllm", "serve"],
            },
            "HostConfig": {"ShmSize": 67108864, "IpcMode": "private", "RestartPolicy": {"Name": "always"}},
        }
    ],
    indent=1,
)
SCRIPT = {
    "docker network ls --format '{{.Name}}'": "bridge\nhost\n",
    "docker info --format '{{json .Runtimes}}'": '{"runc": {}, "io.containerd.runc.v2": {}}',
    "docker ps -q": "abc\n",
    "docker inspect abc": INSPECT,
    "nginx -v": (0, "", "nginx version: nginx/1.22.1\n"),
    "lspci -vvv": "0000:00:01.0 PCI bridge\n\tACSCtl: SrcValid+ ReqRedir+\n0000:00:02.0 PCI bridge\n\tACSCtl: ReqRedir-\n",
    "nvidia-smi topo -m": "        GPU0 GPU1\nGPU0 X PHB\nGPU1 PHB X\n",
    "nvidia-smi": (1, "", "no"),
}


def fake_shell(**changes):
    import importlib.util
    from pathlib import Path

    path = Path(__file__).parents[1] / "stand_ins" / "shell.py"
    spec = importlib.util.spec_from_file_location("stand_in_shell", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FakeShell({**SCRIPT, **changes})


def test_a_machine_tells_its_networks_runtimes_bridges_and_containers():
    machine = ask_machine(fake_shell())
    assert machine.host.networks == {"bridge", "host"}
    assert machine.host.runtimes == {"runc", "io.containerd.runc.v2"}
    assert machine.host.nginx_version == "1.22.1"
    assert machine.host.acs_redirect == ("0000:00:01.0",)
    assert machine.containers == INSPECT


def test_programs_that_fail_or_are_missing_leave_their_facts_unknown():
    broken = dict.fromkeys(SCRIPT, (1, "", "cannot connect"))
    machine = ask_machine(fake_shell(**broken))
    assert (machine.host.networks, machine.host.runtimes, machine.containers) == (None, None, None)


def test_running_containers_are_examined():
    findings = diagnose(ask([], shell=fake_shell())).findings
    found = [finding for finding in findings if finding.rule == "DC004"]
    assert [(finding.file, finding.what) for finding in found] == [
        (CONTAINERS, "vllm has 2 workers and 64 MiB of shared memory")
    ]
    assert {"TP004", "DC004"} <= {finding.rule for finding in findings}
    assert all(not finding.edits for finding in findings)


def test_a_host_without_the_toolkit_is_told(tmp_path):
    (tmp_path / "compose.yaml").write_text(
        "services:\n  v: {image: 'vllm/vllm-openai:v0.32.0', command: m, gpus: all}\n"
    )
    found = diagnose(ask([str(tmp_path)], shell=fake_shell(), select=["DC015"])).findings
    assert [finding.rule for finding in found] == ["DC015"]
