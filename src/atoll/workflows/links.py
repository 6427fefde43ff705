"""The all-reduce of every group of GPUs that a layout could use, measured on this box."""

from collections.abc import Callable, Sequence

from atoll.cost.links import TransferCurve
from atoll.cost.nccl_tests import parse_all_reduce
from atoll.cost.profile import MachineProfile, MeasuredReduce
from atoll.errors import CommandFailed, MissingProgram
from atoll.inventory.box import Box
from atoll.inventory.islands import best_split
from atoll.inventory.probe import probe_box
from atoll.outside.files import temporary_folder, write_whole
from atoll.outside.shell import RealShell, Shell
from atoll.workflows.boxes import named_box

SIZES = ("4K", "64M")  # from a decode step of one sequence to a prompt's 8192 tokens
PROGRAMS = ("all_reduce_perf", "/opt/nccl-tests/build/all_reduce_perf", "/usr/local/bin/all_reduce_perf")

# What torchrun starts where nccl-tests is not installed. It prints nccl-tests' table, so one parser reads both.
TORCH_SCRIPT = """\
import os, torch, torch.distributed as dist
dist.init_process_group("nccl")
rank = int(os.environ["LOCAL_RANK"])
torch.cuda.set_device(rank)
if rank == 0:
    print("#       size         count      type   redop    root     time")
size = 4096
while size <= 2**26:
    data = torch.zeros(size // 2, dtype=torch.bfloat16, device="cuda")
    for _ in range(5):
        dist.all_reduce(data)
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(20):
        dist.all_reduce(data)
    stop.record()
    torch.cuda.synchronize()
    if rank == 0:
        print(size, size // 2, "bfloat16", "sum", -1, f"{start.elapsed_time(stop) / 20 * 1000:.2f}", 0, 0, flush=True)
    size *= 2
dist.destroy_process_group()
"""


def _box_at_hand(shell: Shell) -> Box:
    try:
        return probe_box(shell)
    except MissingProgram:
        raise MissingProgram(
            "Links can only be measured on the box itself, and no NVIDIA driver answers here. Run this command there."
        ) from None


def measure_links(
    *,
    capture: str | None = None,
    gpu: str | None = None,
    start: MachineProfile,
    shell: Shell | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> MachineProfile:
    """The profile with a measured all-reduce curve for every group; earlier curves of other groups are kept.

    Args:
        capture: a topology capture; None asks this machine.
        gpu: the card's name, where the capture does not tell.
        start: the profile to put the curves into.
        shell: runs the programs.
        say: told which group is measured next.

    Raises:
        MissingProgram: neither nccl-tests nor torch with CUDA is here.
        CommandFailed, RunFailed: the program ended with an error, or printed no measurement.
    """
    shell = shell or RealShell()
    box = named_box(capture=capture, gpu=gpu) if capture is not None else _box_at_hand(shell)
    measured: list[MeasuredReduce] = []
    for group in groups_to_measure(box):
        say(f"all-reduce over GPUs {', '.join(map(str, group))}")
        curve = measure_group(group, shell)
        measured.append(MeasuredReduce(gpus=group, points=curve.points, source=curve.source))
    kept = [reduce for reduce in start.reduces if reduce.gpus not in {new.gpus for new in measured}]
    return start.replace(reduces=(*kept, *measured))


def groups_to_measure(box: Box) -> tuple[tuple[int, ...], ...]:
    """The best split into groups of 2, 4 and 8, and the whole box."""
    count = len(box.gpus)
    sizes = sorted({size for size in (2, 4, 8, count) if 1 < size <= count})
    groups: list[tuple[int, ...]] = []
    for size in sizes:
        for group in best_split(box, size) if count % size == 0 else ():
            if group not in groups:
                groups.append(group)
    return tuple(groups)


def measure_group(gpus: Sequence[int], shell: Shell) -> TransferCurve:
    """One group, with nccl-tests if it is installed, else with torch; raises MissingProgram without both."""
    env = {"CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    program = next((path for path in PROGRAMS if shell.which(path)), None)
    if program is not None:
        argv = nccl_command(program, len(gpus))
        return parse_all_reduce(shell.run(argv, env=env, timeout_s=120.0).check().stdout, origin="nccl-tests")
    return _with_torch(len(gpus), env, shell)


def nccl_command(program: str, ranks: int) -> list[str]:
    """One process with a thread a GPU, sizes doubling, bf16, as tensor parallelism reduces."""
    low, high = SIZES
    return [program, "-b", low, "-e", high, "-f", "2", "-g", str(ranks), "-d", "bfloat16", "-w", "5", "-n", "20"]


def _with_torch(ranks: int, env: dict[str, str], shell: Shell) -> TransferCurve:
    if shell.which("torchrun") is None:
        raise MissingProgram(
            "Neither `all_reduce_perf` (nccl-tests) nor `torchrun` (torch with CUDA) is on PATH; install one of them"
            " here, or run this inside the vLLM container, which has torch."
        )
    with temporary_folder() as folder:
        script = folder / "all_reduce.py"
        write_whole(script, TORCH_SCRIPT)
        argv = ["torchrun", "--standalone", f"--nproc-per-node={ranks}", str(script)]
        done = shell.run(argv, env=env, timeout_s=180.0)
    if done.exit_code:
        raise CommandFailed(f"`torchrun` ended with {done.exit_code}: {done.stderr.strip()[-300:]}")
    return parse_all_reduce(done.stdout, origin="torch.distributed")
