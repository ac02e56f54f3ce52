"""The nearest name is offered only where it is near."""

from bench.hints import did_you_mean, not_allowed


def test_a_typo_gets_the_name_that_was_meant():
    assert did_you_mean("tokns", ["tokens", "layers"]) == ", did you mean tokens?"


def test_a_name_that_was_found_is_no_hint():
    assert did_you_mean("zipf", ["zipf", "hotspot"]) == ""
    assert did_you_mean("Zipf", ["zipf", "hotspot"]) == ", did you mean zipf?"


def test_another_word_gets_no_guess():
    assert not_allowed("threads", ["serial", "streams"]) == "found threads, allowed: serial, streams"
