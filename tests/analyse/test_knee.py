"""Where more load stops helping."""

from atoll.analyse.knee import LoadPoint, find_knee


def points(*rows):
    return [LoadPoint(load=load, throughput=throughput, latency_s=wait) for load, throughput, wait in rows]


def test_the_knee_is_where_throughput_per_wait_is_highest():
    assert find_knee(points((1, 100, 0.1), (8, 700, 0.2), (32, 900, 2.0))).load == 8
    assert find_knee([]) is None


def test_the_highest_load_is_no_knee_while_more_load_still_helps():
    assert find_knee(points((1, 100, 0.1), (8, 900, 0.12), (16, 1900, 0.13))) is None
    assert find_knee(points((8, 900, 0.12))) is None
