"""The command line itself: quick, and one line where something is wrong."""

import subprocess
import sys

import pytest

from taming_jax import cli


def test_help_names_every_verb(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    assert all(verb in listed for verb in cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verbs_help_is_its_modules_docstring(verb, capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main([verb, "--help"])
    assert cli.VERBS[verb].__doc__.strip().splitlines()[-1] in capsys.readouterr().out


def test_help_loads_neither_jax_nor_tensorflow():
    program = """
import sys
sys.modules["jax"] = sys.modules["tensorflow"] = None  # importing them fails
sys.argv[1:] = ["evaluate", "--help"]
import runpy
runpy.run_module("taming_jax", run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


def test_an_error_is_one_line_and_code_2(tmp_path):
    flags = ["--stage", "vqgan", "--workdir", tmp_path / "nowhere"]
    ended = subprocess.run(
        [sys.executable, "-m", "taming_jax", "evaluate", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no model at")
    assert len(ended.stderr.splitlines()) == 1


def fail_with(error):
    def run(args):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\nlines"), "error: two lines"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (
            ModuleNotFoundError("No module named 'skimage'", name="skimage"),
            "needs skimage, which is not installed: pip install 'taming_jax[train]'",
        ),
    ],
)
def test_what_users_can_mend_is_said_in_one_line(monkeypatch, capsys, error, line):
    monkeypatch.setattr(cli.VERBS["evaluate"], "run", fail_with(error))
    assert cli.main(["evaluate", "--stage", "vqgan", "--workdir", "W"]) == 2
    assert line in capsys.readouterr().err


def test_what_users_cannot_mend_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli.VERBS["evaluate"], "run", fail_with(TypeError("a bug")))
    with pytest.raises(TypeError):
        cli.main(["evaluate", "--stage", "vqgan", "--workdir", "W"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "one of the arguments --workdir --model is required"),
        (["--workdir", "W", "--model", "M"], "not allowed with"),
        (["--workdir", "W", "--batch_size", "0"], "'0' is not a whole number above 0"),
        (["--workdir", "W", "--samples", "ten"], "'ten' is not a whole number above 0"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["evaluate", "--stage", "vqgan", *flags])
    assert message in capsys.readouterr().err
