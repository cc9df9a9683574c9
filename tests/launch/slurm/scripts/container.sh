#!/bin/bash -l
#SBATCH --array=0-0
#SBATCH --job-name=digits
#SBATCH --output=/scratch/ada/digits/logs/job-%A_%a.log

trap '' USR1 USR2

export SLURM_NTASKS=1 SLURM_NPROCS=1 SLURM_TASKS_PER_NODE=1
[ -z "${SLURM_CPUS_ON_NODE:-}" ] || export SLURM_CPUS_PER_TASK="$SLURM_CPUS_ON_NODE"
unset SLURM_NTASKS_PER_NODE SLURM_NTASKS_PER_SOCKET SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_GPU
unset SLURM_TRES_PER_TASK

[ -r /scratch/ada/digits/.aimlhpo/config/hyperparameters.yml ] || {
    echo aimlhpo: /scratch/ada/digits does not hold the study on node "${SLURMD_NODENAME:-$HOSTNAME}". save_path must lead to the same directory on every node. >&2
    exit 2
}

exec apptainer exec --nv 'my image.sif' python -u -P -c 'import runpy, sys; sys.path.insert(0, "/home/ada/aimlhpo"); import aimlhpo; sys.path.append(sys.path.pop(0)); runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)' aimlhpo agent /scratch/ada/digits
