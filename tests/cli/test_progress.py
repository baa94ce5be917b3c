"""The line that says how far it is."""

import io
import sys
import types

import pytest

from taming_jax.cli import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = types.SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now.seconds)
    return now


def said(clock, monkeypatch, stdout, parts, every):
    """Ten pictures at a time, `every` so many seconds."""
    monkeypatch.setattr(sys, "stdout", stdout)
    note = progress.Progress(10 * parts)
    for _ in range(parts):
        clock.seconds += every
        note(10)
    return stdout.getvalue()


def test_in_a_file_there_is_a_line_every_ten_seconds(clock, monkeypatch):
    lines = said(clock, monkeypatch, io.StringIO(), parts=13, every=2).splitlines()
    assert lines == [
        "60/130 pictures  5.0/s  0:14 to go",
        "110/130 pictures  5.0/s  0:04 to go",
        "130/130 pictures  5.0/s  0:00 to go",
    ]


def test_people_see_one_line_that_renews_itself(clock, monkeypatch):
    text = said(clock, monkeypatch, Terminal(), parts=4, every=2)
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert [line.strip() for line in text.split("\r")[1:]] == [
        "20/40 pictures  5.0/s  0:04 to go",
        "30/40 pictures  5.0/s  0:02 to go",
        "40/40 pictures  5.0/s  0:00 to go",
    ]


def test_the_first_part_which_compiles_is_not_measured(clock, monkeypatch):
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    note = progress.Progress(20)
    clock.seconds = 600
    note(10)
    clock.seconds = 601
    note(10)
    assert out.getvalue() == "20/20 pictures  10.0/s  0:00 to go\n"


def test_what_is_done_at_once_needs_no_line(clock, monkeypatch):
    assert said(clock, monkeypatch, io.StringIO(), parts=1, every=2) == ""
