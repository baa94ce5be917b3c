"""TPU pods: the real scripts, on workers that are directories of this machine.

The stand-in for gcloud keeps the state of the request in a file, and runs what is sent
to the workers here, each with a home of its own.
"""

import itertools
import os
import shlex
import signal
import subprocess
import time

import pytest

WORKERS = 2
PLACE = ["--name", "pod", "--zone", "z"]
FLAGS = [*PLACE, "--type", "v5litepod-8", "--version", "v2", "--pause", "0"]
CREATE = (
    "gcloud compute tpus queued-resources create pod --zone z --node-id pod"
    " --accelerator-type v5litepod-8 --runtime-version v2"
)
DELETE = "gcloud compute tpus queued-resources delete pod --zone z --force --quiet"

GCLOUD = """
workers() { for ((i = 0; i < WORKERS; i++)); do echo "$CLOUD/worker$i"; done; }
case "$*" in
  *'queued-resources describe'*)
    cat "$CLOUD/state" 2>/dev/null || { echo "${TROUBLE:-NOT_FOUND}" >&2; exit 1; } ;;
  *'queued-resources create'*)
    echo ACTIVE >"$CLOUD/state"; mkdir -p $(workers) ;;
  *'queued-resources delete'*)
    rm -rf "$CLOUD/state" $(workers) ;;
  *'tpu-vm scp'*)
    for home in $(workers); do cp "$5" "$home/"; done ;;
  *'tpu-vm ssh'*)
    while [[ $1 != --command ]]; do
      [[ $1 != --worker=0 ]] || single=1
      shift
    done
    ids=()
    for home in $(workers); do
      (cd "$home" && HOME=$home bash -c "$2") & ids+=($!)
      [[ ! ${single-} ]] || break
    done
    code=0
    for id in "${ids[@]}"; do wait "$id" || code=${code/#0/$?}; done
    [[ $(cat "$CLOUD/state") == ACTIVE ]] || exit 255  # taken away meanwhile
    exit "$code" ;;
esac
"""

# The image's Python, of which the set-up wants uv.
PYTHON = 'case "$*" in *"uv venv"*) mkdir -p .venv ;; esac'


@pytest.fixture
def pod(stage):
    """The stage with gcloud, and a repository of which git knows."""
    stage.environment |= {"CLOUD": str(stage.folder), "WORKERS": str(WORKERS)}
    stage.offers("gcloud", GCLOUD)
    stage.offers("python3", PYTHON)
    (stage.repository / "requirements.txt").write_text("jax\n")
    (stage.repository / ".gitignore").write_text("runs/\n")
    (stage.repository / "runs").mkdir()
    (stage.repository / "runs/large").write_text("stays here")
    subprocess.run(["git", "init", "-q", stage.repository], check=True)
    gone = stage.repository / "gone.py"
    gone.touch()
    subprocess.run(["git", "-C", stage.repository, "add", gone], check=True)
    gone.unlink()
    return stage


def run(pod, program, *more, **variables):
    return pod.run("tpu.sh", "run", *FLAGS, *more, "--", *command(program), **variables)


def command(program):
    """A training command that does what the shell text says."""
    return ["bash", "-c", program, "train", "--workdir", "gs://bucket/run"]


def starts(pod):
    return sum("worker.sh\\ run\\ " in call for call in pod.calls)


def test_what_is_missing_is_created(pod):
    run(pod, "true")
    assert [call for call in pod.calls if "create" in call] == [CREATE]


def test_what_is_there_is_not_created_again(pod):
    run(pod, "true")
    run(pod, "true")
    assert sum("create" in call for call in pod.calls) == 1


def test_spot_and_project_reach_gcloud(pod):
    run(pod, "true", "--spot", "--project", "p")
    (created,) = [call for call in pod.calls if "create" in call]
    assert created == CREATE.replace("--zone z", "--zone z --project p") + " --spot"


def test_every_worker_runs_the_same_command_in_the_shipped_code(pod):
    (pod.repository / "card of mine.py").write_text("not yet in git")
    ended = run(pod, 'ls >"$HOME/files"; printf "%s|" "$@" "$PWD" "it\'s" >"$HOME/saw"')
    for i in range(WORKERS):
        home = pod.folder / f"worker{i}"
        saw = f"--workdir|gs://bucket/run|{home}/taming_jax|it's|"
        assert (home / "saw").read_text() == saw
        files = ["card of mine.py", "launch", "requirements.txt"]
        assert (home / "files").read_text().split("\n")[:3] == files
    assert ended.returncode == 0, ended.stderr


def test_set_up_is_done_once_for_the_same_requirements(pod):
    def installed():
        return sum("uv pip install" in call for call in pod.calls)

    counts = []
    for requirements in ("jax\n", "jax\n", "jax\nflax\n"):
        (pod.repository / "requirements.txt").write_text(requirements)
        run(pod, "true")
        counts.append(installed())
    assert counts == [WORKERS, WORKERS, 2 * WORKERS]


def test_after_a_preemption_it_goes_on_with_new_tpus(pod):
    preempted_once = """
      [[ ! -e $CLOUD/before ]] || exit 0
      sleep 0.3  # until the other worker is here, too
      echo SUSPENDED >"$CLOUD/state"; touch "$CLOUD/before"; exit 143"""
    ended = run(pod, preempted_once)
    made = [call for call in pod.calls if call in (CREATE, DELETE)]
    assert (ended.returncode, made) == (0, [CREATE, DELETE, CREATE]), ended.stderr


@pytest.mark.parametrize("code", [75, 143])
def test_what_crashed_or_stalled_is_started_again(pod, code):
    once = f'[[ -e $HOME/before ]] || {{ touch "$HOME/before"; exit {code}; }}'
    ended = run(pod, once)
    assert (ended.returncode, starts(pod)) == (0, 2), ended.stderr


def test_a_refusal_of_any_worker_ends_all(pod):
    """Though another's code comes first, and hides it from gcloud."""
    ended = run(pod, "[[ $HOME == *worker1 ]] && exit 2; exit 1")
    assert (ended.returncode, starts(pod)) == (2, 1), ended.stderr


def test_retries_have_an_end(pod):
    ended = run(pod, "exit 1", "--retries", "1")
    assert (ended.returncode, starts(pod)) == (1, 2)


def test_the_run_outlives_its_terminal_and_is_followed_again(pod):
    program = """
      echo x >>"$HOME/starts"; echo begun
      until [[ -e $CLOUD/go ]]; do sleep 0.1; done"""
    arguments = ["run", *FLAGS, "--", *command(program)]
    first = pod.begin("tpu.sh", *arguments)
    wait_for(pod.folder / "worker0/starts", pod.folder / "worker1/starts")
    close(first)
    second = pod.begin("tpu.sh", *arguments)
    said = (line for line in second.stdout if "begun" in line)
    assert len(list(itertools.islice(said, WORKERS))) == WORKERS  # it follows them all
    (pod.folder / "go").touch()
    assert second.wait(30) == 0
    begun = [(pod.folder / f"worker{i}/starts").read_text() for i in range(WORKERS)]
    assert begun == ["x\n"] * WORKERS


def test_stop_lets_the_command_save_and_is_not_undone(pod):
    program = """
      trap 'sleep 0.3; touch "$HOME/saved"; exit 143' TERM
      touch "$HOME/begun"; while true; do sleep 0.1; done"""
    running = pod.begin("tpu.sh", "run", *FLAGS, "--", *command(program))
    wait_for(*(pod.folder / f"worker{i}/begun" for i in range(WORKERS)))
    pod.run("tpu.sh", "stop", *PLACE)
    saved = [(pod.folder / f"worker{i}/saved").exists() for i in range(WORKERS)]
    assert (running.wait(30), saved, starts(pod)) == (143, [True] * WORKERS, 1)


def test_logs_are_worker_0s(pod):
    run(pod, 'echo "printed by $HOME"')
    logs = pod.begin("tpu.sh", "logs", *PLACE)
    line = next(line for line in logs.stdout if "printed by" in line)
    close(logs)
    assert line == f"printed by {pod.folder}/worker0\n"


def test_delete_gives_request_and_tpus_back(pod):
    pod.run("tpu.sh", "delete", *PLACE)
    assert pod.calls == [DELETE]


def test_dry_run_prints_everything_and_does_nothing(pod):
    printed = run(pod, "true", "--dry-run").stderr
    steps = ["describe", "create", "scp", "worker.sh setup", "worker.sh\\ run\\ "]
    places = [printed.find(step) for step in steps]
    assert -1 not in places
    assert (places, pod.calls) == (sorted(places), [])


def test_what_gcloud_refuses_is_passed_on(pod):
    ended = run(pod, "true", TROUBLE="PERMISSION_DENIED: no such project")
    assert (ended.returncode, ended.stderr) == (
        1,
        "PERMISSION_DENIED: no such project\n",
    )


def test_workers_without_a_common_disk_are_refused(pod):
    local = shlex.split("-- python train_vqgan.py --workdir runs/mine")
    ended = pod.run("tpu.sh", "run", *FLAGS, *local)
    assert (ended.returncode, pod.calls) == (2, [])
    assert "give the command --workdir gs://" in ended.stderr


@pytest.mark.parametrize("missing", ["--name", "--zone", "--type", "--version"])
def test_what_cannot_be_guessed_is_asked_for(pod, missing):
    at = FLAGS.index(missing)
    flags = FLAGS[:at] + FLAGS[at + 2 :]
    ended = pod.run("tpu.sh", "run", *flags, "--", *command("true"))
    assert ended.stderr.startswith(f"error: {missing} is missing")


def close(process):
    """Ends it with all that hangs on its terminal."""
    os.killpg(process.pid, signal.SIGKILL)


def wait_for(*paths):
    end = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < end, f"none of {paths}"
        time.sleep(0.05)
