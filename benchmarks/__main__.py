"""`python -m benchmarks`: the short ones, one after the other. Each is a script of its own; see its --help."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# balancing/study.py takes many minutes
SHORT = ("planner/speed.py", "simulator/speed.py", "doctor/speed.py", "loadgen/run.py")

for name in SHORT:
    print(f"--- benchmarks/{name}", flush=True)
    subprocess.run([sys.executable, HERE / name], check=True)
