"""Write src/atoll/data/requirements.txt: what the backend's image installs, exact, with the hash of every wheel.

    python tools/make_lock.py            # the versions that are installed here, which the tests have run with
    python tools/make_lock.py --newest   # the newest that pyproject.toml allows

It asks the package index what each wheel for the image (Python 3.12 on Linux, x86-64 and ARM) is called and hashes to, and
downloads none of them. Needs the network; `make lock` runs it.
"""

import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "src" / "atoll" / "data" / "requirements.txt"
PYTHON = "3.12"  # of the image; render/app.py
MACHINES = ("x86_64", "aarch64")
GLIBC = ("_2_28", "_2_24", "_2_17", "2014")
HEAD = """# What the image with atoll installs, made by `make lock`: versions that the tests have run with, and the hashes of their
# wheels for Python 3.12 on Linux (x86-64 and ARM). pip takes nothing else from it (--require-hashes).
"""


def ask_index(machine: str, constraints: Path) -> dict[str, tuple[str, str]]:
    """Package -> version and sha256 of the wheel for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        platforms = [word for glibc in GLIBC for word in ("--platform", f"manylinux{glibc}_{machine}")]
        argv = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        argv += ["--only-binary=:all:", "--implementation", "cp", "--python-version", PYTHON, *platforms]
        argv += ["--target", folder, "-c", str(constraints), "--report", str(report), f"{ROOT}[web]"]
        subprocess.run(argv, check=True)
        items = json.loads(report.read_text())["install"]
    found = {}
    for item in items:
        name = item["metadata"]["name"].lower().replace("_", "-")
        if name != "atoll":
            found[name] = (item["metadata"]["version"], item["download_info"]["archive_info"]["hashes"]["sha256"])
    return found


def main() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        if "--newest" not in sys.argv[1:]:
            here = sorted(f"{one.metadata['Name']}=={one.version}" for one in distributions())
            constraints.write("".join(f"{line}\n" for line in here if not line.startswith("atoll==")))
            constraints.flush()
        tables = [ask_index(machine, Path(constraints.name)) for machine in MACHINES]
    lines = []
    for name in sorted(set().union(*tables)):
        versions = {table[name][0] for table in tables if name in table}
        assert len(versions) == 1, f"{name} differs between machines: {versions}"
        hashes = sorted({table[name][1] for table in tables if name in table})
        lines.append(" \\\n".join([f"{name}=={versions.pop()}", *(f"    --hash=sha256:{one}" for one in hashes)]))
    LOCK.write_text(HEAD + "".join(f"{line}\n" for line in lines))
    print(f"{LOCK.relative_to(ROOT)}: {len(lines)} packages")


if __name__ == "__main__":
    main()
