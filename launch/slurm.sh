#!/usr/bin/env bash
# Trains on a SLURM cluster: a job that is started again until the command has finished.
#
#   sbatch --nodes 2 --gpus-per-node 8 launch/slurm.sh -- COMMAND
#
# One process per node drives all GPUs of it; --ntasks-per-node 8 makes it one per GPU.
# Options of sbatch go before the script (--partition, --time, --cpus-per-task, ...), and
# the environment that is active where sbatch is typed is the job's. Options of the
# script go before the --:
#
#   --retries N  new starts after crashes and time limits (100)
#   --dry-run    prints every command, runs none: bash launch/slurm.sh --dry-run -- ...
#
# Two minutes before the time limit the processes get SIGTERM, save, and the job goes
# back into the queue, as it does after a crash or a preemption. It does not after
# code 2, with which any process may refuse, or scancel.
#SBATCH --job-name=taming_jax
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

main() {
  parse "$@"
  share_devices
  # SIGTERM ends all processes together; the first to end must not take the others along
  # while these still write.
  local code=0
  call srun --kill-on-bad-exit=0 --wait=120 \
    ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    bash -c "$witnessed" "$refused" "${command[@]}" || code=$?
  [[ $dry || $code != 0 ]] || exit 0
  [[ ! -e $refused ]] || { rm "$refused" && exit 2; }
  ((${SLURM_RESTART_COUNT:-0} < retries)) || exit "$code"
  local state
  state=$(call squeue --noheader --jobs "$job" --format %T)
  # Neither after scancel, nor where SLURM itself has put the job back.
  [[ ! $dry && $state != RUNNING ]] || call scontrol requeue "$job"
  exit "$code"
}

# srun ends with the highest code of all, which hides a 2: whoever refuses leaves a file.
# SIGTERM is for the command, whose code this shell waits for.
# shellcheck disable=SC2016
readonly witnessed='trap : TERM
"$@" || { code=$?; ((code != 2)) || touch "$0"; exit $code; }'

# jax gives each process of SLURM one device, the one with its number on the node.
share_devices() {
  if ((${SLURM_NTASKS_PER_NODE:-1} == 1 && ${SLURM_GPUS_ON_NODE:-0} > 1)); then
    JAX_LOCAL_DEVICE_IDS=$(seq -s , 0 $((SLURM_GPUS_ON_NODE - 1)))
    export JAX_LOCAL_DEVICE_IDS
  fi
  # Collectives run while others compute. docs/scaling.md
  export XLA_FLAGS="--xla_gpu_enable_latency_hiding_scheduler=true ${XLA_FLAGS:-}"
}

call() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [[ $dry ]] || "$@"
}

parse() {
  retries=100 dry='' command=()
  while (($#)); do
    case $1 in
      --retries) retries=${2?} && shift ;;
      --dry-run) dry=yes ;;
      --help) sed -n '2,/^#SBATCH/s/^#\( \|$\)//p' "$0" && exit ;;
      --) shift && command=("$@") && break ;;
      *) refuse "'$1' is no option: see $0 --help" ;;
    esac
    shift
  done
  ((${#command[@]})) || refuse 'no command: -- python train_vqgan.py --config ...'
  job=${SLURM_JOB_ID:-JOB}
  [[ $dry || ${SLURM_JOB_ID:-} ]] || refuse "submit it: sbatch $0 -- ..."
  refused=$PWD/refused-$job
}

refuse() { echo "error: $1" >&2 && exit 2; }

main "$@"
