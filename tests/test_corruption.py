"""Fifty of the mutated clips of `python -m bench.soak.corruption`: each ends whole, or refused in one sentence."""

from bench.soak.corruption import MEMORY_LIMIT, judged, run_copies


def test_mutated_clips_end_whole_or_refused_in_one_sentence():
    outcomes = dict(run_copies(50, seed=0))
    wrong = {index: outcome for index, outcome in outcomes.items() if outcome.verdict not in ("whole", "refused")}
    assert wrong == {}
    assert max(outcome.peak for outcome in outcomes.values()) < MEMORY_LIMIT
    # The mutations are neither all harmless nor all fatal, or this would show nothing.
    verdicts = [outcome.verdict for outcome in outcomes.values()]
    assert 5 < verdicts.count("whole") < 45


def test_what_a_run_must_not_do_is_told_apart():
    whole = ["c.json", "c_depth.mp4", "c_input.mp4", "c_vis.mp4"]
    assert judged(0, "", "", whole, "c")[0] == "whole"
    assert judged(1, "It is no video.", "", [], "c")[0] == "refused"
    assert judged(1, "It is no video.", "", whole[:2], "c")[0] == "partial result"
    assert judged(1, "", "", [], "c")[0] == "not one sentence"
    assert judged(2, "", "Traceback (most recent call last): ...", [], "c")[0] == "traceback"
