# Stops the pod where its cards are not joined as the layout planned: the scheduler counts GPUs, it knows no NVLink.
import re
import subprocess
import sys

wanted, joined = int(sys.argv[1]), sys.argv[2] == "nvlink"
told = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True).stdout
text = re.sub(r"\x1b\[[0-9;]*m", "", told)
rows = [line.split() for line in text.splitlines() if re.match(r"GPU\d+\s", line)]
if len(rows) != wanted:
    sys.exit(f"This pod has {len(rows)} GPUs; the layout wants {wanted}.")
apart = [
    f"{row[0]}-GPU{column}: {row[1 + column]}"
    for number, row in enumerate(rows)
    for column in range(len(rows))
    if column > number and not row[1 + column].startswith("NV")
]
if joined and apart:
    sys.exit(f"The layout was planned for cards that NVLink joins; not so here: {', '.join(apart)}. See README.md.")
print(f"{wanted} GPUs as planned.")
