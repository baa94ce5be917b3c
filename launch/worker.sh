#!/usr/bin/env bash
# One worker of a TPU pod: what launch/tpu.sh does on all of them at once.
#
#   launch/worker.sh setup        Python and the packages in .venv, if anything changed
#   launch/worker.sh run COMMAND  starts it unless it runs, follows it, ends with its code
#   launch/worker.sh running      does it run? (the exit code says)
#   launch/worker.sh code         its exit code; "stopped", "running" or "lost"
#   launch/worker.sh stop         SIGTERM, and waits until it has saved
#   launch/worker.sh logs         follows what it printed
#
# One command at a time. It is no child of the connection that started it.
set -euo pipefail

readonly run=$HOME/taming_jax_run  # its log, pid and code, and the lock that it holds
mkdir -p "$run"

# Where parameters are split over devices they are gathered layer by layer; with these
# flags that happens while the layer before is computed. docs/scaling.md has the reasons.
export LIBTPU_INIT_ARGS="${LIBTPU_INIT_ARGS:-\
 --xla_tpu_enable_async_collective_fusion=true\
 --xla_tpu_enable_async_collective_fusion_fuse_all_gather=true\
 --xla_tpu_enable_async_collective_fusion_multiple_steps=true\
 --xla_tpu_overlap_compute_collective_tc=true\
 --xla_enable_async_all_gather=true}"

setup() {
  cmp -s requirements.txt .venv/requirements.txt && return
  python3 -m pip install --quiet --user uv # the image's own Python is too old
  python3 -m uv venv --clear --python 3.12 .venv
  python3 -m uv pip install --python .venv/bin/python 'jax[tpu]' -r requirements.txt \
    google-cloud-storage # without which Orbax does not save into a bucket
  cp requirements.txt .venv/
}

run() {
  exec 9>"$run/lock"
  if flock --nonblock 9; then
    rm -f "$run/code" "$run/stopped"
    # shellcheck disable=SC2016
    PATH=$PWD/.venv/bin:$PATH setsid bash -c '
      trap : TERM  # is for the command; this shell waits for its code
      "$@"
      echo $? >"$0/code"' "$run" "$@" >>"$run/log" 2>&1 </dev/null &
    echo $! >"$run/pid"
  fi
  exec 9>&-
  tail -n 20 -F --pid="$(pid)" --sleep-interval=0.2 "$run/log"
  exit "$(cat "$run/code")"
}

running() { ! flock --nonblock "$run/lock" true; }

code() {
  if running; then echo running
  elif [[ -e $run/stopped ]]; then echo stopped
  else cat "$run/code" 2>/dev/null || echo lost; fi
}

stop() {
  running || return 0
  touch "$run/stopped"
  pkill -TERM -P "$(pid)" || return 0 # it has just ended
  timeout 300 tail --pid="$(pid)" --sleep-interval=0.2 -f /dev/null || pkill -KILL -P "$(pid)"
}

logs() { tail -n 100 -F "$run/log"; }

pid() { cat "$run/pid"; }

case ${1:-} in
  setup | run | running | code | stop | logs) "$@" ;;
  *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" ;;
esac
