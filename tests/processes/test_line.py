"""The line between processes: who is missing, twice, odd or gone, in one line."""

import re
import socket
import subprocess
import sys
import time

import pytest
import several

# Joins as the flags say; then what the test wants. No device is touched.
PROGRAM = """
import os, sys, time
sys.path[:0] = [{root!r}]
from taming_jax import processes
from taming_jax.processes.line import Line
from taming_jax.processes.place import find_place
process = int(sys.argv[3])
{before}
try:
    place = find_place(sys.argv[1], int(sys.argv[2]), process, 1)
    processes._Here.line = line = Line(*place[:3], timeout=float(sys.argv[4]))
    {then}
except ValueError as error:
    processes.end(2, str(error))
"""


def roll_call(*processes, then="pass", timeout=20.0, port=None, before=""):
    """(exit code, last line) of each process, given as (number, of how many)."""
    program = PROGRAM.format(root=str(several.ROOT), before=before, then=then)
    address = f"localhost:{port or several.free_port()}"
    started = []
    for number, count in processes:
        arguments = [address, str(count), str(number), str(timeout)]
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    ended = []
    for process in started:
        said, _ = process.communicate(timeout=several.SECONDS)
        ended.append((process.returncode, said.strip().splitlines()[-1:]))
    return ended


def everyones(ended):
    """What all of them have ended with: the same code and the same line."""
    assert ended == ended[:1] * len(ended)
    code, (line,) = ended[0]
    return code, line


def test_a_process_that_does_not_come_is_named():
    code, line = everyones(roll_call((0, 3), (2, 3), timeout=3))
    assert code == 75
    assert re.search(
        r"^error: waited 3 s at the start for process 1 \(not seen\)", line
    )


def test_two_processes_with_the_same_number_are_both_named():
    code, line = everyones(roll_call((0, 3), (1, 3), (1, 3)))
    assert code == 2
    assert re.search(
        r"two processes say that they are process 1: \(.*pid (\d+)\) and \(.*(?!\1)",
        line,
    )


def test_another_number_of_processes_is_refused():
    code, line = everyones(roll_call((0, 2), (1, 3)))
    assert code == 2
    assert "was started as one of 3, process 0 as one of 2: start all" in line


def test_who_speaks_into_a_broken_line_hears_why_it_is_broken():
    """Late to listen, and to find out that it has been hung up on."""
    code, line = everyones(roll_call((0, 2), (1, 3), before=LATE))
    assert code == 2
    assert "was started as one of 3" in line


LATE = """
if process:
    listen, gather = Line._listen, Line.gather
    Line._listen = lambda line: time.sleep(3) or listen(line)

    def late(line, *about):
        time.sleep(1)
        try:
            while True:
                line._socket.sendall(b" ")
        except OSError:
            return gather(line, *about)

    Line.gather = late
"""


def test_a_coordinator_that_does_not_answer_is_said():
    ((code, (line,)),) = roll_call((1, 2), timeout=1)
    assert code == 75
    assert re.search(r"process 0 does not answer at localhost:\d+ within 1 s", line)


def test_a_port_that_is_taken_is_said():
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        ((code, (line,)),) = roll_call((0, 2), port=port)
    assert code == 2
    assert f"cannot listen for the others at port {port}" in line


ODD = "processes.same_everywhere('configuration', {'vqgan': {'steps': 6 + %s}})"


def test_of_three_the_odd_one_is_named_with_what_differs():
    odd = ODD % "(process == 1)"
    code, line = everyones(roll_call((0, 3), (1, 3), (2, 3), then=odd))
    assert code == 2
    assert re.search(r"configuration: process 1 \(.*\): vqgan.steps: 6, 7", line)


def test_two_that_differ_are_both_named():
    odd = ODD % "process"
    code, line = everyones(roll_call((0, 2), (1, 2), then=odd))
    assert code == 2
    assert re.search(r"process 0 \(.*\) and process 1 \(.*\) differ: .*: 6, 7", line)


def test_an_error_in_one_process_ends_all_with_its_line():
    then = "process == 1 and processes.end(2, 'no such thing'); time.sleep(60)"
    assert everyones(roll_call((0, 2), (1, 2), then=then)) == (
        2,
        "error: process 1: no such thing",
    )


@pytest.mark.parametrize("dead", [0, 1])
def test_a_process_that_is_killed_is_missed_at_once(dead):
    then = f"process == {dead} and os.kill(os.getpid(), 9); time.sleep(60)"
    began = time.monotonic()
    ended = roll_call((0, 2), (1, 2), then=then)
    assert time.monotonic() - began < 30
    code, (line,) = ended[1 - dead]
    assert (code, ended[dead][0]) == (1, -9)
    assert re.search(rf"process {dead} \(.*\) is gone", line)


def test_all_stop_at_the_same_place():
    """Process 0 is slower; process 1 wants to stop at its twentieth point."""
    then = (
        "points = iter(range(10**6)); "
        "stop = lambda n: (time.sleep(0.01 * (process == 0)), "
        "line.stop_point(15 * (process == 1 and n > 20)))[1]; "
        "print(next((n, s) for n in points if (s := stop(n)))); line.leave()"
    )
    (first, (place,)), other = roll_call((0, 2), (1, 2), then=then)
    assert (first, [place]) == other
    assert re.fullmatch(r"\(\d+, 15\)", place)
