"""Several models on one box behind one door: the files of a stack, for processes and for Compose."""

from collections.abc import Mapping
from typing import Any

from atoll.documents import write_yaml
from atoll.engines import find_engine, served_name
from atoll.errors import InputError
from atoll.layout.stack import Placed, Stack, give_stack_ports
from atoll.model.card import ModelCard
from atoll.render import compose, process
from atoll.render.bundle import Bundle, RenderSettings
from atoll.render.models import ServedModel, models_part
from atoll.render.nginx import NginxForm, process_form, render_door
from atoll.render.pool import Pool, UpstreamServer
from atoll.render.tls import refuse_tls

STACK_FILE = "stack.yaml"
MODELS_FOLDER = "models"  # of the layouts, one a model
Cards = Mapping[str, ModelCard]  # by the name that the layout has for its model


def render_stack(stack: Stack, cards: Cards, *, to: str, settings: RenderSettings | None = None) -> Bundle:
    """The files of a stack.

    Args:
        stack: replicas without a port get the next free one from 8000 on.
        cards: of every model.
        to: compose or process.
        settings: as for one layout.

    Raises:
        InputError: another form, engines of several kinds, or what render_bundle raises.
    """
    if to not in _FORMS:
        raise InputError(f"a stack cannot be rendered as {to!r}; there are {', '.join(_FORMS)}.")
    refuse_tls((settings or RenderSettings()).tls, "several models have none yet")
    if len({layout.engine for layout in stack.layouts}) > 1:
        raise InputError(f"{stack.name}: its layouts are for engines of several kinds; give all the same.")
    bundle = _FORMS[to](give_stack_ports(stack), cards, settings or RenderSettings())
    names = {layout.name: layout.to_yaml() for layout in give_stack_ports(stack).layouts}
    layouts = {layout_file(name): text for name, text in names.items()}
    return Bundle(name=bundle.name, files=bundle.files | layouts, modes=bundle.modes)


def layout_file(name: str) -> str:
    """Where a model's layout lies in the bundle."""
    return f"{MODELS_FOLDER}/{name}.yaml"


def _door(stack: Stack, cards: Cards, form: NginxForm, hosts: Mapping[int, str]) -> dict[str, str]:
    pools, models = [], []
    for place, layout in enumerate(stack.layouts):
        servers = [
            UpstreamServer(number=placed.number, host=hosts[placed.number], port=_port(placed))
            for placed in stack.replicas
            if placed.layout is layout
        ]
        keep_alive_s = find_engine(layout.engine).keep_alive_s(layout.engine_version)
        name, card = f"llm_{place}", cards[layout.model]
        pools.append(Pool(layout=layout, servers=servers, engine_keep_alive_s=keep_alive_s, name=name))
        longest = layout.flags.max_model_len or card.max_context
        models.append(ServedModel(name=served_name(card), pool=name, max_model_len=longest))
    return render_door(pools, form=form, parts=[models_part(models)])


def _port(placed: Placed) -> int:
    assert placed.replica.port is not None  # given by give_stack_ports
    return placed.replica.port


def _processes(stack: Stack, cards: Cards, settings: RenderSettings) -> Bundle:
    first = stack.layouts[0]
    plan = process.ProcessPlan(
        name=stack.name,
        engine=first.engine,
        model=_names(stack, cards),
        replicas=tuple(_process(placed, cards[placed.layout.model]) for placed in stack.replicas),
        router=process.plan_processes(first, cards[first.model], settings).router,
    )
    hosts = {replica.number: replica.host for replica in plan.replicas}
    files = {
        process.PROCESS_FILE: plan.to_yaml(),
        **_door(stack, cards, process_form(plan.router.host, plan.router.port, version=plan.router.nginx), hosts),
        STACK_FILE: stack.to_yaml(),
    }
    return Bundle(name=stack.name, files=files)


def _process(placed: Placed, card: ModelCard) -> process.ReplicaProcess:
    made = process.plan_processes(placed.layout, card).replicas[placed.own]
    own = layout_file(placed.layout.name)
    argv = tuple(own if word == "layout.yaml" else word for word in made.argv)
    return made.replace(number=placed.number, argv=argv)


def _names(stack: Stack, cards: Cards) -> str:
    return ", ".join(served_name(cards[layout.model]) for layout in stack.layouts)


def _compose(stack: Stack, cards: Cards, settings: RenderSettings) -> Bundle:
    hosts = {placed.number: compose.service_name(placed.layout, placed.number) for placed in stack.replicas}
    door = _door(stack, cards, compose.door_form(settings.nginx_image, tls=False), hosts)
    services: dict[str, Any] = {
        hosts[placed.number]: _service(placed, cards[placed.layout.model], settings) for placed in stack.replicas
    }
    first = stack.layouts[0]
    services["nginx"] = compose.nginx_service(first, settings, door)
    caches: dict[str, Any] = {
        f"cache-{placed.number}": {}
        for placed in stack.replicas
        if find_engine(placed.layout.engine).cache_folder is not None
    }
    document = {
        "name": compose.project_name(stack.name),
        "x-atoll": {"model": _names(stack, cards), "engine": first.engine},
        "services": services,
        "networks": {"door": {}, "replicas": {"internal": True}},
        **({"volumes": caches} if caches else {}),
    }
    head = (
        f"# {stack.name}: {_names(stack, cards)}, made by atoll from {STACK_FILE}.\n"
        "# Plan and render again rather than changing this file. Settings of this machine stand in .env.\n"
    )
    files = {
        compose.COMPOSE_FILE: head + write_yaml(document),
        **door,
        ".env": compose.env_file(first, settings),
        STACK_FILE: stack.to_yaml(),
    }
    if find_engine(first.engine).emulates and settings.engine_image is None:
        files |= compose.own_image(settings)
    return Bundle(name=stack.name, files=files, modes={".env": 0o600})


def _service(placed: Placed, card: ModelCard, settings: RenderSettings) -> dict[str, Any]:
    service = compose.replica_service(placed.layout, card, settings, placed.own)
    own = f"./{layout_file(placed.layout.name)}"
    volumes = [
        volume.replace("./layout.yaml", own).replace(f"cache-{placed.own}:", f"cache-{placed.number}:")
        for volume in service["volumes"]
    ]
    return {**service, "volumes": volumes}


_FORMS = {"compose": _compose, "process": _processes}
