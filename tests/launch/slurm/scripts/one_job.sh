#!/bin/bash -l
#SBATCH --array=0-0
#SBATCH --job-name=digits
#SBATCH --output=/scratch/ada/digits/logs/job-%A_%a.log

trap '' USR1 USR2

[ -r /scratch/ada/digits/.aimlhpo/config/hyperparameters.yml ] || {
    echo aimlhpo: /scratch/ada/digits does not hold the study on node "${SLURMD_NODENAME:-$HOSTNAME}". save_path must lead to the same directory on every node. >&2
    exit 2
}

exec /opt/env/bin/python -u -P -m aimlhpo agent /scratch/ada/digits
