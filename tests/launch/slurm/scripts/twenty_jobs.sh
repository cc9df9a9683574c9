#!/bin/bash -l
#SBATCH --array=0-19
#SBATCH --job-name=echo
#SBATCH --gres=gpu:v100:1
#SBATCH --ntasks=8
#SBATCH --time=12:00:00
#SBATCH --mail-type=END
#SBATCH --mail-type=FAIL
#SBATCH --exclusive
#SBATCH --comment="two \"quoted\" words"
#SBATCH --nodes=1
#SBATCH --signal=B:USR1@120
#SBATCH --output=echo_%a.out
#SBATCH --requeue

trap '' USR1 USR2

[ -r /scratch/ada/digits/.aimlhpo/config/hyperparameters.yml ] || {
    echo aimlhpo: /scratch/ada/digits does not hold the study on node "${SLURMD_NODENAME:-$HOSTNAME}". save_path must lead to the same directory on every node. >&2
    exit 2
}

exec /opt/env/bin/python -u -P -m aimlhpo agent /scratch/ada/digits
