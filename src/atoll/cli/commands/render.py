"""`atoll render`: a layout becomes the files that deploy it."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from atoll.cli.options import Force, Json, OutPath
from atoll.cli.show import out, progress, show_json
from atoll.outside.files import refuse_to_overwrite
from atoll.workflows.render import Rendered


def register(app: typer.Typer) -> None:
    app.command()(render)


def render(
    layout: Annotated[
        Path, typer.Argument(metavar="LAYOUT", help="A layout or a stack, as `atoll plan -o` writes it.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="compose, process or kubernetes.")] = "compose",
    folder: OutPath = None,
    engine: Annotated[str | None, typer.Option("--engine", metavar="E", help="vllm or emulated.")] = None,
    version: Annotated[str | None, typer.Option("--engine-version", metavar="V", help="vLLM's: 0.8.5 to 0.33.")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="REF", help="The engine's container image.")] = None,
    nginx_image: Annotated[str | None, typer.Option("--nginx-image", metavar="REF", help="nginx >= 1.27.3.")] = None,
    models: Annotated[
        str | None, typer.Option("--models", metavar="DIR", help="Folder of the models, mounted read-only.")
    ] = None,
    bind: Annotated[
        str | None, typer.Option("--bind", metavar="ADDRESS", help="Where the door is published; 127.0.0.1.")
    ] = None,
    stack: Annotated[
        str | None, typer.Option("--stack", metavar="NAME", help="app: with the backend and MongoDB.")
    ] = None,
    extras: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="WHAT", help="monitoring: Prometheus with alerts, Grafana. May be given again."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", metavar="DIR|IMAGE", help="Your own service in the app stack, in place of atoll's."),
    ] = None,
    tls: Annotated[
        str | None,
        typer.Option("--tls", metavar="CERT,KEY", help="The door speaks https; `self-signed` makes a pair."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the files, write nothing.")] = False,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write the files that deploy a layout (Compose, processes, Kubernetes), with nginx before the replicas.

    A folder that holds something is overwritten with --force only; what its .env says stays. With --stack app and
    --backend your own service stands beside MongoDB: an image, or the folder of a Dockerfile. The Compose file that
    builds it is read for its port, networks and variables; what could not work in the stack is put right, and said.

    Example: atoll render layout.yaml --to compose -o bundle
    """
    from atoll.workflows.engine_options import check_version
    from atoll.workflows.render import make_tls, read_layout, render_layout, render_settings
    from atoll.workflows.stack import is_stack, read_changed_stack, render_stack_files

    if version is not None:
        check_version(version, engine=engine)
    if is_stack(layout):
        stack_settings = render_settings(
            engine_image=image,
            nginx_image=nginx_image,
            models=models,
            bind=bind,
            tls=make_tls(tls, folder=folder, bind=bind),
        )
        made = read_changed_stack(layout, engine=engine, engine_version=version)
        target = None if dry_run else folder or Path(f"{made.name}-{to}")
        if target is not None:
            refuse_to_overwrite(target, force=force)
        bundle = render_stack_files(made, to=to, folder=target, settings=stack_settings)
        _tell(Rendered(bundle=bundle, folder=target), to=to, dry_run=dry_run, json=json)
        return
    wanted = read_layout(layout)
    changes = {key: value for key, value in {"engine": engine, "engine_version": version}.items() if value}
    wanted = wanted.replace(**changes)
    target = None if dry_run else folder or Path(f"{wanted.name}-{to}")
    settings = render_settings(
        stack=stack,
        backend=backend,
        extras=tuple(extras or ()),
        engine_image=image,
        nginx_image=nginx_image,
        models=models,
        bind=bind,
        tls=make_tls(tls, folder=target, bind=bind),
    )
    for note in settings.backend.notes if settings.backend is not None else ():
        progress.print(f"backend: {note}", markup=False, soft_wrap=True)
    if target is not None:
        refuse_to_overwrite(target, force=force)
    _tell(render_layout(wanted, to=to, folder=target, settings=settings), to=to, dry_run=dry_run, json=json)


def _tell(rendered: Rendered, *, to: str, dry_run: bool, json: bool) -> None:
    """What was made, and what the doctor says of it."""
    from atoll.cli.warn import show_warnings
    from atoll.workflows.diagnose import diagnose_bundle

    findings = diagnose_bundle(rendered.bundle)
    show_warnings(findings, folder=None if rendered.folder is None else str(rendered.folder))
    if json:
        show_json(_plain(rendered, to) | {"findings": [finding.to_plain() for finding in findings]})
    elif dry_run:
        _show_files(rendered)
    else:
        _show_folder(rendered)


def _plain(rendered: Rendered, to: str) -> dict[str, object]:
    bundle = rendered.bundle
    open_files = {path: text for path, text in bundle.files.items() if path not in bundle.modes}
    return {
        "name": bundle.name,
        "to": to,
        "folder": None if rendered.folder is None else str(rendered.folder),
        "digest": bundle.digest,
        "paths": sorted(bundle.files),
        "files": open_files,  # without .env, which may hold secrets
    }


def _show_files(rendered: Rendered) -> None:
    for path, text in rendered.bundle.files.items():
        out.rule(path, align="left")
        out.print(text, markup=False, soft_wrap=True, end="")


def _show_folder(rendered: Rendered) -> None:
    out.print(f"{rendered.folder}: {', '.join(rendered.bundle.files)}", markup=False, soft_wrap=True)
    folder = quote(str(rendered.folder))
    starts = f"kubectl apply -k {folder}" if "kustomization.yaml" in rendered.bundle.files else f"atoll up {folder}"
    out.print(f"Next: {starts}", markup=False, soft_wrap=True)
