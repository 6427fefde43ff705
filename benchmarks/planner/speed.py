"""How long does a plan take? CPU-seconds of `plan_box` on a fixed set of boxes, models and loads.

python benchmarks/planner/speed.py
"""

import time

from atoll.plan.goal import Goal
from atoll.workflows.plan import plan_box

CASES = (
    ("H100-NVL-94GB", 4, "Qwen/Qwen2.5-32B-Instruct", 30),
    ("H100-SXM-80GB", 8, "meta-llama/Llama-3.3-70B-Instruct", 64),
    ("RTX-4090-24GB", 8, "Qwen/Qwen2.5-14B-Instruct-AWQ", 32),
    ("A100-SXM-80GB", 16, "Qwen/Qwen3-30B-A3B", 128),
)


def main() -> None:
    print(f"{'box':24}{'model':36}{'users':>6}{'layouts':>9}{'CPU-s':>8}")
    for gpu, gpus, model, users in CASES:
        goal = Goal(users=users, prompt=1024, output=512, longest=2048, slo_ttft_s=1.0, slo_tpot_s=0.05)
        start = time.process_time()
        plan = plan_box(model=model, goal=goal, gpu=gpu, gpus=gpus)
        spent = time.process_time() - start
        layouts = len(plan.search.choices)
        print(f"{f'{gpus} x {gpu}':24}{model.split('/')[-1]:36}{users:6}{layouts:9}{spent:8.2f}")


if __name__ == "__main__":
    main()
