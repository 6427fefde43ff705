"""README.md of a Compose bundle: what to type, and where its doors are."""

from atoll.engines import served_name
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.render.app import BACKEND_PORT, OwnBackend, published_port
from atoll.render.bundle import RenderSettings
from atoll.render.monitoring import GRAFANA_PORT, MONITORING, PROMETHEUS_PORT
from atoll.render.waiting import start_period_s


def bundle_readme(layout: Layout, card: ModelCard) -> str:
    minutes = start_period_s(card) // 60
    return f"""# {layout.name} with Docker Compose

    docker compose up -d --wait     # up to {minutes} minutes while the weights load
    docker compose ps
    docker compose down

The same with atoll, which also says why a replica does not come up: `atoll up .`, `atoll status .`, `atoll down .`

The door is http://127.0.0.1:{layout.router.port}/v1, the model `{served_name(card)}`; beside it no replica is
reachable.
`.env` holds what belongs to this machine: the folder of the models, the address and port of the door, the API key.
"""


def stack_readme(layout: Layout, settings: RenderSettings) -> str:
    watched = _monitoring_readme() if MONITORING in settings.extras else ""
    if settings.stack != "app":
        return watched
    return (_app_readme() if settings.backend is None else _backend_readme(layout, settings.backend)) + watched


def _monitoring_readme() -> str:
    return f"""
Grafana is http://127.0.0.1:{GRAFANA_PORT} (user `admin`, `GRAFANA_PASSWORD` of `.env`), Prometheus
http://127.0.0.1:{PROMETHEUS_PORT}, both for this machine alone. `{MONITORING}/alerts.yml` says when somebody should be
told, and where each threshold comes from; who is told is Alertmanager's or Grafana's to say.
"""


def _backend_readme(layout: Layout, own: OwnBackend) -> str:
    where = "is built from the folder ATOLL_BACKEND of `.env`" if own.context is not None else f"is {own.image}"
    notes = "".join(f"- {note}\n" for note in own.notes)
    return f"""
The backend {where} and listens at http://127.0.0.1:{published_port(own, layout.router.port)} (`ATOLL_BACKEND_PORT`
and `ATOLL_BACKEND_BIND` in `.env`). It asks the model through nginx, and MongoDB with the password of `.env`.

{notes}"""


def _app_readme() -> str:
    return f"""
The control plane is http://127.0.0.1:{BACKEND_PORT} (`ATOLL_BACKEND_PORT` in `.env`), for this machine alone: the door
does not lead to it. From elsewhere: `ssh -L {BACKEND_PORT}:127.0.0.1:{BACKEND_PORT} BOX`. The link that lets you in
carries `ATOLL_TOKEN` of `.env`; programs send it as a Bearer key:

    . ./.env && echo "http://127.0.0.1:{BACKEND_PORT}/?token=$ATOLL_TOKEN"
    . ./.env && curl -H "Authorization: Bearer $ATOLL_TOKEN" http://127.0.0.1:{BACKEND_PORT}/api/runs

Under a name other than 127.0.0.1 or localhost it answers 421, unless `ATOLL_HOSTS` in `.env` has it.
"""
