#!/usr/bin/env bash
# Trains on a TPU pod: creates it if it is missing, ships this repository, sets every
# worker up, runs the command on all of them, and does so again after a preemption.
#
#   launch/tpu.sh run --name NAME --zone ZONE --type TYPE --version VERSION -- COMMAND
#   launch/tpu.sh logs   --name NAME --zone ZONE   follows what worker 0 printed
#   launch/tpu.sh stop   --name NAME --zone ZONE   SIGTERM: the command saves and ends
#   launch/tpu.sh delete --name NAME --zone ZONE   gives the TPUs back
#
#   --name NAME        of the queued resource and of its node
#   --zone ZONE        a zone that has such TPUs, in the bucket's region
#   --type TYPE        accelerator: v5litepod-16, v6e-32, ...
#   --version VERSION  software of the workers: v2-alpha-tpuv5-lite, v2-alpha-tpuv6e, ...
#   --project PROJECT  if not gcloud's own setting
#   --spot             for less money, with preemptions
#   --retries N        new starts after crashes and preemptions (100)
#   --pause SECONDS    between two looks at the queue, and before a new start (60)
#   --dry-run          prints every command, runs none
#
# COMMAND is the same on every worker, run in the repository's root. Workers share no
# disk, so its --workdir lies in a bucket. It outlives this terminal; the same call again
# follows it. Ends with 0 when it has finished, 2 when a worker refused (what it said is
# above; nothing is retried), 143 after `stop`, 1 when there are no retries left.
set -euo pipefail

main() {
  parse "$@"
  case $verb in
    run) train ;;
    logs) call gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 \
      --command 'cd taming_jax && launch/worker.sh logs' ;;
    stop) workers 'cd taming_jax && launch/worker.sh stop' ;;
    delete) delete ;;
    *) refuse "'$verb' is none of run, logs, stop, delete" ;;
  esac
}

train() {
  needs --type "$type"
  needs --version "$version"
  ((${#command[@]})) || refuse 'no command: -- python train_vqgan.py --config ...'
  [[ " ${command[*]} " =~ \ --workdir[=\ ](gs://|/) ]] ||
    refuse 'workers share no disk: give the command --workdir gs://BUCKET/...'
  [[ $dry ]] || pack
  local attempt
  for ((attempt = 0; attempt <= retries; attempt++)); do
    ((attempt == 0)) || nap
    obtain
    if [[ $state != ACTIVE ]]; then # preempted, or never granted: a new request
      delete
    elif follow; then
      conclude
    fi
    echo "$name: start $((attempt + 1)) ended ($state); $((retries - attempt)) left" >&2
  done
  exit 1
}

# The files that git tracks or would track, as they are now; every start has the same.
pack() {
  cd "$root"
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do [[ ! -e $file ]] || printf '%s\0' "$file"; done |
    tar --null -T - -czf "$scratch/code.tar.gz"
}

# Waits until the request is granted or given up, and makes it where there is none.
obtain() {
  while look && [[ ! $state =~ ^(ACTIVE|SUSPENDED|FAILED)$ ]]; do
    if [[ $state == MISSING ]]; then
      call gcloud compute tpus queued-resources create "$name" "${where[@]}" \
        --node-id "$name" --accelerator-type "$type" --runtime-version "$version" \
        ${spot:+--spot}
    fi
    echo "$name: $state" >&2
    nap
  done
}

# Sets `state`: of the request, or MISSING.
look() {
  local said=(gcloud compute tpus queued-resources describe "$name" "${where[@]}"
    --format 'value(state.state)')
  if [[ $dry ]]; then
    call "${said[@]}"
    state=$([[ ${state:-} ]] && echo ACTIVE || echo MISSING)
  elif ! state=$("${said[@]}" 2>"$scratch/stderr"); then
    grep -q NOT_FOUND "$scratch/stderr" || { cat "$scratch/stderr" >&2 && exit 1; }
    state=MISSING
  fi
}

# Follows the command on all workers to its end. One that runs is only watched: ssh may
# have broken off, or gcloud have tried a second time. Where some workers have lost it
# the others end, and all begin together.
follow() {
  { workers 'cd taming_jax && launch/worker.sh running' && [[ ! $dry ]]; } ||
    prepare || return
  workers "cd taming_jax && launch/worker.sh run$(printf ' %q' "${command[@]}")" || true
  codes=$(workers 'cd taming_jax && launch/worker.sh code' | tr '\n' ' ')
}

prepare() {
  call gcloud compute tpus tpu-vm scp "$scratch/code.tar.gz" "$name:" "${where[@]}" \
    --worker=all &&
    workers 'mkdir -p taming_jax && cd taming_jax && tar xzf ../code.tar.gz &&
      launch/worker.sh stop && launch/worker.sh setup'
}

# Ends where nothing is left to do; else says why and returns.
conclude() {
  [[ ! $dry ]] || exit 0
  case " $codes" in
    *' 2 '*) exit 2 ;;
    *' stopped '*) exit 143 ;;
  esac
  [[ ! $codes =~ ^(0 )+$ ]] || exit 0
  state="codes of the workers: $codes"
}

delete() {
  call gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet
}

# Runs a shell command on every worker at once; ends with the first code that is not 0.
workers() {
  call gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all \
    --command "$1" -- -o ServerAliveInterval=30
}

call() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [[ $dry ]] || "$@"
}

nap() { [[ $dry ]] || sleep "$pause"; }

parse() {
  verb=${1:---help} name='' zone='' type='' version='' spot='' dry='' retries=100 pause=60
  where=() command=()
  root=$(cd "$(dirname "$0")/.." && pwd)
  (($# == 0)) || shift
  while (($#)); do
    case $1 in
      --name) name=${2?} && shift ;;
      --zone) zone=${2?} && where+=(--zone "$2") && shift ;;
      --type) type=${2?} && shift ;;
      --version) version=${2?} && shift ;;
      --project) where+=(--project "${2?}") && shift ;;
      --retries) retries=${2?} && shift ;;
      --pause) pause=${2?} && shift ;;
      --spot) spot=yes ;;
      --dry-run) dry=yes ;;
      --help) verb=--help ;;
      --) shift && command=("$@") && break ;;
      *) refuse "'$1' is no option: see $0 --help" ;;
    esac
    shift
  done
  if [[ $verb == --help ]]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
    exit
  fi
  needs --name "$name"
  needs --zone "$zone"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
}

needs() { [[ $2 ]] || refuse "$1 is missing: see $0 --help"; }

refuse() { echo "error: $1" >&2 && exit 2; }

main "$@"
