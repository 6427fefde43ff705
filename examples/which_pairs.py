"""Which cards belong together? A capture in, the best split into pairs out."""

from pathlib import Path

from atoll.inventory.islands import best_split, islands, slowest_hop
from atoll.inventory.parse import parse_box

topo = Path(__file__).parent / "four-h100-nvl" / "topo.txt"
box = parse_box(topo.read_text(), origin=topo.name)
print("islands:", *islands(box))
for pair in best_split(box, 2):
    hop = slowest_hop(box, pair)
    print(f"pair {pair}: {hop.nvlinks} NVLinks")
print("all four:", slowest_hop(box, box.indices).kind)
