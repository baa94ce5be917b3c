"""Trials that are kept: found again by their settings, whatever they are called."""

from benchmarks import trials


def test_what_two_recipes_have_in_common_stands_under_both_names(tmp_path):
    results = tmp_path / "lines.jsonl"
    trials.append(results, {"variant": "one", "settings": "a", "psnr": 20.0})
    wanted = [
        {"variant": name, "settings": settings}
        for name, settings in [("one", "a"), ("other", "a"), ("new", "b")]
    ]
    found, missing = trials.measured(wanted, results)
    assert [(line["variant"], line["psnr"]) for line in found] == [
        ("one", 20.0),
        ("other", 20.0),
    ]
    assert missing == wanted[2:]


def test_a_digest_is_of_values_and_not_of_their_order():
    settings = {"steps": 600, "model": {"dim": 8}}
    assert trials.digest(settings) == trials.digest(dict(reversed(settings.items())))
    assert trials.digest(settings) != trials.digest(settings | {"steps": 601})
