#!/bin/bash -l
#SBATCH --array=0-0
#SBATCH --job-name=digits
#SBATCH --output=/scratch/ada/digits/logs/job-%A_%a.log

trap '' USR1 USR2

aimlhpo_before=$(command -v python || command -v python3 || :)

module load cuda
export NCCL_DEBUG=INFO

conda activate torch

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
