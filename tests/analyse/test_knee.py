"""Where more load stops helping."""

import pytest

from atoll.analyse.knee import LoadPoint, find_crossover, find_knee, most_load_within


def points(*rows):
    return [LoadPoint(load=load, throughput=throughput, latency_s=wait) for load, throughput, wait in rows]


def test_the_knee_is_where_throughput_per_wait_is_highest():
    assert find_knee(points((1, 100, 0.1), (8, 700, 0.2), (32, 900, 2.0))).load == 8
    assert find_knee([]) is None


def test_the_most_load_within_a_promise_ends_at_the_first_break():
    sweep = points((1, 1, 0.1), (16, 1, 0.9), (8, 1, 0.4), (32, 1, 0.8))
    assert most_load_within(sweep, longest_s=0.5).load == 8
    assert most_load_within(sweep, longest_s=0.05) is None


def test_curves_cross_where_straight_lines_between_the_points_do():
    assert find_crossover([(1, 1.0), (2, 2.0), (3, 3.0)], [(1, 2.0), (2, 2.5), (3, 2.5)]) == pytest.approx(2.5)
    assert find_crossover([(1, 1.0), (2, 2.0)], [(1, 2.0), (2, 3.0)]) is None
