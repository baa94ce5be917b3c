#!/usr/bin/env bash
# Trains on all GPUs of this machine: one process drives them all.
#
#   launch/gpus.sh -- COMMAND
#
#   --retries N  new starts after crashes (10)
#   --dry-run    prints the command instead of running it
#
# CUDA_VISIBLE_DEVICES=0,1 in front of it leaves the others alone. Ctrl-C and SIGTERM
# reach the command, which saves; the same call goes on from there. Ends with its code:
# 0 finished, 2 refused, 130 or 143 stopped; after any other it is started again.
set -euo pipefail

main() {
  parse "$@"
  # Collectives run while others compute. docs/scaling.md
  export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
  echo "+ XLA_FLAGS=$XLA_FLAGS$(printf ' %q' "${command[@]}")" >&2
  [[ ! $dry ]] || exit 0
  local attempt
  for ((attempt = 0; attempt <= retries; attempt++)); do
    follow
    [[ $code != @(0|2|130|143) ]] || exit "$code"
    echo "ended with code $code; $((retries - attempt)) new starts left" >&2
  done
  exit "$code"
}

# Runs the command, hands signals on to it, and sets `code`.
follow() {
  set -m # or the shell would make it deaf to Ctrl-C
  "${command[@]}" &
  trap 'kill -TERM $!' TERM
  trap 'kill -INT $!' INT
  while true; do
    wait $! && code=0 || code=$?
    kill -0 $! 2>/dev/null || return 0
  done
}

parse() {
  retries=10 dry='' command=()
  while (($#)); do
    case $1 in
      --retries) retries=${2?} && shift ;;
      --dry-run) dry=yes ;;
      --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit ;;
      --) shift && command=("$@") && break ;;
      *) refuse "'$1' is no option: see $0 --help" ;;
    esac
    shift
  done
  ((${#command[@]})) || refuse 'no command: -- python train_vqgan.py --config ...'
}

refuse() { echo "error: $1" >&2 && exit 2; }

main "$@"
