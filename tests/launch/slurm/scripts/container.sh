#!/bin/bash -l
#SBATCH --array=0-0
#SBATCH --job-name=digits
#SBATCH --output=/scratch/ada/digits/logs/job-%A_%a.log

trap '' USR1 USR2

[ -r /scratch/ada/digits/.aimlhpo/config/hyperparameters.yml ] || {
    echo aimlhpo: /scratch/ada/digits does not hold the study on node "${SLURMD_NODENAME:-$HOSTNAME}". save_path must lead to the same directory on every node. >&2
    exit 2
}

exec apptainer exec --nv 'my image.sif' python -u -P -c 'import runpy, sys; sys.path.insert(0, "/home/ada/aimlhpo"); import aimlhpo; sys.path.append(sys.path.pop(0)); runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)' aimlhpo agent /scratch/ada/digits
