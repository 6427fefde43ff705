"""How a device request is written."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found, remove_setting
from atoll.doctor.edits import add_key, remove_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, SAFE, rule


@rule("TP015", ERROR, risk=SAFE)
def unquoted_ids(facts: Facts) -> Iterable[Finding]:
    for service in facts.services:
        nodes = service.gpus.id_nodes if service.gpus is not None else ()
        wrong = [node for node in nodes if node.tag in {"int", "float"}]
        if wrong and facts.project_of(service).origin == "compose":
            edits = tuple(edit for node in wrong for edit in replace_value(node, f'"{node.text}"'))
            yield found(wrong[0], f"the GPU ids of {service.name} are numbers; Compose wants strings", edits=edits)


@rule("TP016", ERROR, risk="The container gets GPUs that it did not get so far.")
def incomplete_request(facts: Facts) -> Iterable[Finding]:
    for service in facts.services:
        devices = service.get("deploy", "resources", "reservations", "devices")
        for device in devices.items if devices is not None else ():
            if not device.is_map:
                continue
            if device.get("capabilities") is None:
                yield found(
                    device,
                    f"the device request of {service.name} has no capabilities",
                    edits=add_key(device, ("capabilities: [gpu]",)),
                )
            if device.get("count") is not None and device.get("device_ids") is not None:
                yield found(
                    device,
                    f"the device request of {service.name} has both count and device_ids",
                    edits=remove_key(device, "count"),
                )


@rule("TP017", ERROR, risk="CUDA sees the GPUs that are named.")
def words_for_gpus(facts: Facts) -> Iterable[Finding]:
    for service in facts.services:
        setting = service.environment.get("CUDA_VISIBLE_DEVICES")
        value = (setting.value or "").strip() if setting is not None and setting.known else ""
        span = re.fullmatch(r"(\d{1,3})\s*[-:]\s*(\d{1,3})", value)
        if setting is not None and value.lower() in {"all", "auto"}:
            edits = remove_setting(service, setting)
            yield found(setting.node, f"CUDA_VISIBLE_DEVICES={value} names no GPU", edits=edits)
        elif setting is not None and span is not None and int(span[1]) < int(span[2]):
            listed = ",".join(str(number) for number in range(int(span[1]), int(span[2]) + 1))
            pair = (setting.node.raw or "").startswith("CUDA_VISIBLE_DEVICES=")
            text = f'"CUDA_VISIBLE_DEVICES={listed}"' if pair else f'"{listed}"'
            what = f"CUDA_VISIBLE_DEVICES={value} is GPU {span[1]} alone: a range is no list"
            yield found(setting.node, what, fix=f"Write {listed}.", edits=replace_value(setting.node, text))
        request = service.requested_gpus
        for node in request.id_nodes if request is not None else ():
            text = node.text or ""
            if re.fullmatch(r"\{\w+(:?[-?+][^{}]*)?\}", text):
                edits = replace_value(node, f'"${text}"')
                yield found(node, f"{text} lacks its $: Docker looks for a GPU of that name", edits=edits)
