#!/usr/bin/env bash
# Trains on Kubernetes: one JobSet, whose pods are processes of the same run.
#
#   launch/kubernetes.sh gpu --name NAME --image IMAGE --nodes 2 --gpus 8 -- COMMAND
#   launch/kubernetes.sh tpu --name NAME --image IMAGE --accelerator tpu-v5-lite-podslice \
#       --topology 4x4 --chips 4 -- COMMAND
#   launch/kubernetes.sh logs   --name NAME   follows what process 0 prints
#   launch/kubernetes.sh delete --name NAME   SIGTERM: the command saves and ends
#
#   --image IMAGE        made with launch/Dockerfile; it holds the code
#   --nodes N --gpus G   machines, and GPUs in each; one process drives them
#   --accelerator A --topology T --chips C   of the TPU slice, and chips of a machine
#   --namespace N        if not kubectl's own setting
#   --dry-run            prints the manifest and every command, runs none
#
# The JobSet restarts all pods when one crashed or was taken away, and ends when the
# command has finished (0) or refused (2). The workdir lies in a bucket or on a volume.
set -euo pipefail

main() {
  parse "$@"
  case $verb in
    gpu | tpu) submit ;;
    logs) call "${kubectl[@]}" logs --follow --selector \
      "jobset.sigs.k8s.io/jobset-name=$NAME,batch.kubernetes.io/job-completion-index=0" ;;
    delete) call "${kubectl[@]}" delete jobset "$NAME" ;;
    *) refuse "'$verb' is none of gpu, tpu, logs, delete" ;;
  esac
}

submit() {
  needs --image "$IMAGE"
  ((${#command[@]})) || refuse 'no command: -- python train_vqgan.py --config ...'
  if [[ $verb == gpu ]]; then
    needs --nodes "$NODES"
    needs --gpus "$GPUS"
  else
    needs --accelerator "$ACCELERATOR"
    needs --topology "$TOPOLOGY"
    needs --chips "$CHIPS"
    NODES=$((${TOPOLOGY//x/*} / CHIPS)) # 4x4 chips, 4 in a machine: 4 machines
  fi
  if [[ $dry ]]; then manifest; else manifest >"$scratch/$NAME.yaml"; fi
  call "${kubectl[@]}" apply --filename "$scratch/$NAME.yaml"
}

# The JobSet, its ${...} replaced; JSON is YAML, however the command is quoted.
manifest() {
  export NAME IMAGE NODES GPUS ACCELERATOR TOPOLOGY CHIPS
  python3 - "$(dirname "$0")/jobset-$verb.yaml" "${command[@]}" <<'PYTHON'
import json, os, string, sys

file, *command = sys.argv[1:]
with open(file) as lines:
    template = string.Template(lines.read())
print(template.safe_substitute(os.environ, COMMAND=json.dumps(command)), end="")
PYTHON
}

call() {
  { printf '+' && printf ' %q' "$@" && echo; } >&2
  [[ $dry ]] || "$@"
}

parse() {
  verb=${1:---help} NAME='' IMAGE='' NODES='' GPUS='' ACCELERATOR='' TOPOLOGY='' CHIPS=''
  kubectl=(kubectl) dry='' command=()
  (($# == 0)) || shift
  while (($#)); do
    case $1 in
      --name) NAME=${2?} && shift ;;
      --image) IMAGE=${2?} && shift ;;
      --nodes) NODES=${2?} && shift ;;
      --gpus) GPUS=${2?} && shift ;;
      --accelerator) ACCELERATOR=${2?} && shift ;;
      --topology) TOPOLOGY=${2?} && shift ;;
      --chips) CHIPS=${2?} && shift ;;
      --namespace) kubectl+=(--namespace "${2?}") && shift ;;
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
  needs --name "$NAME"
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
}

needs() { [[ $2 ]] || refuse "$1 is missing: see $0 --help"; }

refuse() { echo "error: $1" >&2 && exit 2; }

main "$@"
