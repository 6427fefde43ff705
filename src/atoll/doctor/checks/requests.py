"""How a device request is written."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.edits import add_key, remove_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, SAFE, rule


@rule("TP015", ERROR, risk=SAFE)
def unquoted_ids(facts: Facts) -> Iterable[Finding]:
    """device_ids are written as numbers.

    Consequence: Compose refuses the file: device_ids.0 must be a string.

    Evidence: docker compose 2.40.3.

    Fix: Quote them.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: [0]}]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: ["0"]}]}
    ```
    """
    for service in facts.services:
        nodes = service.gpus.id_nodes if service.gpus is not None else ()
        wrong = [node for node in nodes if node.tag in {"int", "float"}]
        if wrong and facts.project_of(service).origin == "compose":
            edits = tuple(edit for node in wrong for edit in replace_value(node, f'"{node.text}"'))
            yield found(wrong[0], f"the GPU ids of {service.name} are numbers; Compose wants strings", edits=edits)


@rule("TP016", ERROR, risk="The container gets GPUs that it did not get so far.")
def incomplete_request(facts: Facts) -> Iterable[Finding]:
    """A device entry without capabilities, or with both count and device_ids.

    Consequence: Compose refuses the file.

    Evidence: docker compose 2.40.3.

    Fix: capabilities: [gpu]; one of the two.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        deploy:
          resources:
            reservations:
              devices:
                - driver: nvidia
                  device_ids: ["0"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        deploy:
          resources:
            reservations:
              devices:
                - driver: nvidia
                  device_ids: ["0"]
                  capabilities: [gpu]
    ```
    """
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
