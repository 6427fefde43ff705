"""Several models behind one door: the files, and what a real nginx does with them."""

import json
import subprocess

import pytest

from atoll.documents import parse_yaml
from atoll.errors import InputError
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.layout.stack import Stack
from atoll.model.read import read_model
from atoll.render.process import ProcessPlan
from atoll.render.stack import render_stack
from render.test_nginx import NGINX, Answers, free_port, listens, needs_nginx, post, server
from stand_ins.patience import PATIENCE_S, wait_until

CHAT, CODE, RANK = "Qwen/Qwen2.5-32B-Instruct", "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-Reranker-0.6B"


def layout_of(name, model, groups, *, policy=Policy.LEAST_CONN, engine="emulated", ports=None, door=8080, **flags):
    replicas = tuple(
        Replica(gpus=gpus, tensor_parallel=len(gpus), port=ports[place] if ports else None)
        for place, gpus in enumerate(groups)
    )
    router = Router(policy=policy, port=door)
    box = make_box("H100-SXM-80GB", 4)
    return Layout(
        name=name, model=model, box=box, replicas=replicas, router=router, flags=EngineFlags(**flags), engine=engine
    )


def stack_of(*layouts):
    return Stack(name="office", layouts=layouts)


def files_of(stack, to):
    return render_stack(stack, {layout.model: read_model(layout.model) for layout in stack.layouts}, to=to).files


OFFICE = stack_of(
    layout_of("chat", CHAT, [(0, 1)]),
    layout_of("code", CODE, [(2,), (3,)], policy=Policy.SESSION_AFFINITY, gpu_memory_utilization=0.6),
    layout_of("rank", RANK, [(3,)], gpu_memory_utilization=0.2),
)


def test_every_replica_has_a_number_and_a_port_of_its_own_and_its_models_layout():
    files = files_of(OFFICE, "process")
    plan = ProcessPlan.parse(files["process.yaml"], origin="process.yaml")
    told = [(r.number, r.port, r.argv[5:9]) for r in plan.replicas]
    assert told == [
        (0, 8000, ("models/chat.yaml", "--replica", "0", "--host")),
        (1, 8001, ("models/code.yaml", "--replica", "0", "--host")),
        (2, 8002, ("models/code.yaml", "--replica", "1", "--host")),
        (3, 8003, ("models/rank.yaml", "--replica", "0", "--host")),
    ]
    assert Stack.parse(files["stack.yaml"], origin="stack.yaml").layouts[1].router.policy is Policy.SESSION_AFFINITY


def test_two_containers_may_have_one_card_each_with_its_part_of_the_memory():
    stack = stack_of(*(layout.replace(engine="vllm") for layout in OFFICE.layouts))
    services = parse_yaml(files_of(stack, "compose")["compose.yaml"], origin="compose.yaml")["services"]
    cards = {
        name: service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]
        for name, service in services.items()
        if name != "nginx"
    }
    assert cards == {"vllm-0": ["0", "1"], "vllm-1": ["2"], "vllm-2": ["3"], "vllm-3": ["3"]}
    share = services["vllm-3"]["command"].index("--gpu-memory-utilization") + 1
    assert services["vllm-3"]["command"][share] == "0.2"
    assert "./door.js:/etc/nginx/door.js:ro" in services["nginx"]["volumes"]


def test_what_a_stack_cannot_be_is_refused():
    with pytest.raises(InputError, match="cannot be rendered as 'ray'"):
        files_of(OFFICE, "ray")
    mixed = stack_of(OFFICE.layouts[0], OFFICE.layouts[1].replace(engine="vllm"))
    with pytest.raises(InputError, match="engines of several kinds"):
        files_of(mixed, "process")


@needs_nginx
def test_the_door_goes_by_the_bodys_model(tmp_path):
    chat, code = Answers(chunks=1), Answers(chunks=1)
    with server(chat) as a, server(code) as b:
        door = free_port()
        stack = stack_of(
            layout_of("chat", CHAT, [(0,)], ports=[a], door=door), layout_of("code", CODE, [(1,)], ports=[b], door=door)
        )
        for name, text in files_of(stack, "process").items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        argv = [NGINX, "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr", "-g", "user root;"]
        process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: listens(door))
            long = "x" * 300_000
            bodies = {
                f'{{"model":"{CHAT}"}}': (200, "0"),
                f'{{"messages":[{{"content":"{{\\"model\\":\\"{CHAT}\\"}}"}}],"model":"{CODE}"}}': (200, "1"),
                f'{{"prompt":"{long} \\"model\\": \\"x\\"","model": "{CODE}"}}': (200, "1"),
                f'--b\r\nname="model"\r\n\r\n{CHAT}\r\n--b--': (200, "0"),
                '{"model":"toString"}': (404, ""),
                '{"model":7}': (404, ""),
                "{": (404, ""),
            }
            told = {body: post(door, body=body.encode()) for body in bodies}
            assert {body: (status, replica or "") for body, (status, replica, _) in told.items()} == bodies
            error = json.loads(told['{"model":"toString"}'][2])["error"]
            assert (error["type"], error["code"], error["param"]) == ("NotFoundError", 404, "model")
            assert error["message"] == f"The model `toString` does not exist. Valid aliases: {CHAT}, {CODE}."
            listed = json.loads(post(door, "/v1/models", b"")[2])
            assert [(one["id"], one["max_model_len"]) for one in listed["data"]] == [(CHAT, 32768), (CODE, 32768)]
            assert post(door, "/v1/load_lora_adapter")[0] == 404
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
