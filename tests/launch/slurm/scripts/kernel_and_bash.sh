#!/bin/bash -l
#SBATCH --array=0-0
#SBATCH --job-name=digits
#SBATCH --output=/scratch/ada/digits/logs/job-%A_%a.log

trap '' USR1 USR2

aimlhpo_before=$(command -v python || command -v python3 || :)

aimlhpo_script=${BASH_SOURCE[0]-}
aimlhpo_failed() {
    [ "$3" = "$aimlhpo_script" ] || return 0
    aimlhpo_line=$(sed -n "$4p" "$aimlhpo_script" 2>/dev/null)
    aimlhpo_line="slurm: exit status $1 of the line: ${aimlhpo_line:-$2}"
    echo "aimlhpo: $aimlhpo_line (stop_on_error: false goes on)" >&2
    (umask 077; echo "$aimlhpo_line" >/scratch/ada/digits/.aimlhpo/jobs/"${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID-}}_${SLURM_ARRAY_TASK_ID-}".failed) || :
    exit "$1"
}
trap 'aimlhpo_failed $? "$BASH_COMMAND" "${BASH_SOURCE[0]-}" "$LINENO"' ERR

module load cuda
export NCCL_DEBUG=INFO

conda activate torch

trap - ERR

[ -r /scratch/ada/digits/.aimlhpo/config/hyperparameters.yml ] || {
    echo aimlhpo: /scratch/ada/digits does not hold the study on node "${SLURMD_NODENAME:-$HOSTNAME}". save_path must lead to the same directory on every node. >&2
    exit 2
}

aimlhpo_python=/opt/env/bin/python
aimlhpo_found=$(command -v python || command -v python3 || :)
if [ -z "$aimlhpo_found" ] || [ "$aimlhpo_found" = "$aimlhpo_before" ]; then
    :
elif aimlhpo_error=$("$aimlhpo_found" -P -c 'import aimlhpo.config, optuna, submitit' 2>&1); then
    aimlhpo_python=$aimlhpo_found
else
    echo "aimlhpo: $aimlhpo_found cannot run aimlhpo: ${aimlhpo_error##*$'\n'}"
fi
exec "$aimlhpo_python" -u -P -m aimlhpo agent /scratch/ada/digits
