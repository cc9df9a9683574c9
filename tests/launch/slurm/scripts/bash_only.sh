#!/bin/bash -l
#SBATCH --array=0-0
#SBATCH --job-name=digits
#SBATCH --output=/scratch/ada/digits/logs/job-%A_%a.log

trap '' USR1 USR2

aimlhpo_before=$(command -v python || command -v python3 || :)

source /opt/site.sh

export SLURM_NTASKS=1 SLURM_NPROCS=1 SLURM_TASKS_PER_NODE=1
[ -z "${SLURM_CPUS_ON_NODE:-}" ] || export SLURM_CPUS_PER_TASK="$SLURM_CPUS_ON_NODE"
unset SLURM_NTASKS_PER_NODE SLURM_NTASKS_PER_SOCKET SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_GPU
unset SLURM_TRES_PER_TASK

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
