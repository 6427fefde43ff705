"""How long does a plan take? CPU-seconds of `plan_box` on a fixed set of boxes, models and loads.

python benchmarks/planner/speed.py
"""

import time

from atoll.plan.goal import Goal
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.plan import plan_box

CASES = (
    ("H100-NVL-94GB", 4, "Qwen/Qwen2.5-32B-Instruct", {"users": 30}),
    ("H100-SXM-80GB", 8, "meta-llama/Llama-3.3-70B-Instruct", {"users": 64}),
    ("RTX-4090-24GB", 8, "Qwen/Qwen2.5-14B-Instruct-AWQ", {"users": 32}),
    ("A100-SXM-80GB", 16, "Qwen/Qwen3-30B-A3B", {"users": 128}),
    ("H100-SXM-80GB", 8, "meta-llama/Llama-3.3-70B-Instruct", {"users": 600}),
    ("H100-SXM-80GB", 8, "meta-llama/Llama-3.3-70B-Instruct", {"users": 4000}),
    ("H100-SXM-80GB", 8, "meta-llama/Llama-3.3-70B-Instruct", {"users": 10_000}),
    ("H100-SXM-80GB", 8, "meta-llama/Llama-3.3-70B-Instruct", {"rate": 4.0}),
    ("RTX-4090-24GB", 8, "Qwen/Qwen2.5-14B-Instruct-AWQ", {"rate": 4.0}),
)


def main() -> None:
    print(f"{'box':20}{'model':27}{'load':>16}{'layouts':>9}{'simulated':>11}{'CPU-s':>8}")
    for gpu, gpus, model, load in CASES:
        goal = Goal(workload=Workload(**load), slo=SLO(ttft_s=1.0, tpot_s=0.05))
        start = time.process_time()
        plan = plan_box(model=model, goal=goal, gpu=gpu, gpus=gpus)
        spent = time.process_time() - start
        choices = plan.search.choices
        simulated = sum(choice.predicted.simulated for choice in choices)
        box, name = f"{gpus} x {gpu}", model.split("/")[-1]
        print(f"{box:20}{name:27}{goal.load:>16}{len(choices):9}{simulated:11}{spent:8.2f}")


if __name__ == "__main__":
    main()
