"""The text of slurm.conf, gres.conf and slurmdbd.conf."""

from __future__ import annotations

from virtual_cluster.layout import Layout
from virtual_cluster.options import Options

DATABASE_USER = "slurm"


def slurm_conf(layout: Layout, options: Options) -> str:
    """The configuration that all daemons and commands of this cluster share."""
    return "\n".join(
        [
            _identity(options),
            _files(layout),
            _timings(layout),
            _scheduling(options),
            _accounting(layout, options),
            _nodes(options),
            "",
        ]
    )


def _identity(options: Options) -> str:
    return f"""\
ClusterName=virtual
SlurmctldHost={options.host}(127.0.0.1)
SlurmctldPort={options.ports.controller}
SlurmUser={options.user}
SlurmdUser={options.user}
AuthType=auth/munge
CredType=cred/munge
SlurmdParameters=config_overrides
GresTypes=gpu
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
"""


def _files(layout: Layout) -> str:
    return f"""\
StateSaveLocation={layout.state}
SlurmdSpoolDir={layout.spool}/%n
SlurmctldPidFile={layout.run}/slurmctld.own.pid
SlurmdPidFile={layout.run}/%n.own.pid
"""


def _timings(layout: Layout) -> str:
    return f"""\
# A requeued job waits for cred_expire (120 s by default) before it may start again; 5 s is the least.
AuthInfo=socket={layout.munge_socket},cred_expire=5
# SIGTERM, then SIGKILL after this many seconds, at the time limit and at preemption: the default.
KillWait=30
# Minutes a job may outrun its limit. slurmctld looks every 30 s, so 1 minute ends a job after 60 to 90 s.
OverTimeLimit=0
# Seconds until a finished job is forgotten (default 300); slurmctld sweeps once a minute.
MinJobAge=60
# Seconds until a silent node is DOWN; long enough for a busy machine.
SlurmdTimeout=30
SlurmctldTimeout=10
# A command asks a silent slurmctld for this many seconds before it gives up (default 10).
MessageTimeout=6
InactiveLimit=0
Waittime=0
# A node that was silent and comes back is used again; one that was set DOWN waits for `cluster resume-node`.
ReturnToService=1
"""


def _scheduling(options: Options) -> str:
    return f"""\
SchedulerType=sched/backfill
# Jobs start in the second they are submitted, and waiting ones are looked at every second.
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,bf_yield_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1024
MaxArraySize={options.max_array_size}
JobRequeue={int(options.requeue)}
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode={"REQUEUE" if options.requeue else "CANCEL"}
"""


def _accounting(layout: Layout, options: Options) -> str:
    if not options.accounting:
        return "AccountingStorageType=accounting_storage/none\n"
    return f"""\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={options.ports.slurmdbd}
AccountingStoragePass={layout.munge_socket}
AccountingStorageTRES=gres/gpu
"""


def _nodes(options: Options) -> str:
    gres = f"Gres=gpu:v100:{options.gpus} " if options.gpus else ""
    names = ",".join(options.node_names)
    size = f"CPUs={options.cpus} Boards=1 SocketsPerBoard=1 CoresPerSocket={options.cpus} ThreadsPerCore=1"
    lines = [
        f"NodeName={name} NodeHostname={options.host} NodeAddr=127.0.0.1 Port={port} {size} RealMemory=262144"
        f" {gres}State=UNKNOWN"
        for name, port in zip(options.node_names, options.ports.nodes, strict=True)
    ]
    lines += [
        f"PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE PriorityTier=1 State=UP",
        f"PartitionName=urgent Nodes={names} MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF State=UP",
    ]
    return "\n".join(lines)


def gres_conf(layout: Layout, options: Options) -> str:
    """The GPUs that are not there: links to /dev/null in the place of devices."""
    if not options.gpus:
        return ""
    files = f"{layout.devices}/gpu[0-{options.gpus - 1}]" if options.gpus > 1 else f"{layout.devices}/gpu0"
    return f"AutoDetect=off\nNodeName={','.join(options.node_names)} Name=gpu Type=v100 File={files}\n"


def slurmdbd_conf(layout: Layout, options: Options, password: str) -> str:
    """The accounting daemon's own configuration; holds the database's password."""
    return f"""\
AuthType=auth/munge
AuthInfo={layout.munge_socket}
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={options.ports.slurmdbd}
SlurmUser={options.user}
PidFile={layout.run}/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={options.ports.database}
StorageUser={DATABASE_USER}
StoragePass={password}
StorageLoc=slurm_acct
"""
