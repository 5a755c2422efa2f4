#!/usr/bin/env bash
# A single-node Slurm on localhost, without systemd: everything lies in the folder $SLURM_SANDBOX, nothing in /etc is touched.
set -eu
folder=${SLURM_SANDBOX:?set SLURM_SANDBOX to an empty folder}
mkdir -p "$folder"/{ctld,d,log,munge}
chmod 700 "$folder/munge"

# munged refuses folders that others may write to, such as /tmp: --force.
head -c 1024 /dev/urandom > "$folder/munge/key"
chmod 600 "$folder/munge/key"
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/sock" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

cpus=$(nproc)
memory=$(($(awk '/MemTotal/{print $2}' /proc/meminfo) / 1024 - 512))
host=$(hostname -s)
cat > "$folder/slurm.conf" <<END
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/sock
CredType=cred/munge
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$folder/ctld.pid
SlurmdPidFile=$folder/d.pid
StateSaveLocation=$folder/ctld
SlurmdSpoolDir=$folder/d
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0
MinJobAge=3600
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus Boards=1 SocketsPerBoard=1 CoresPerSocket=$cpus ThreadsPerCore=1 RealMemory=$memory State=UNKNOWN
PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
END
export SLURM_CONF="$folder/slurm.conf"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF"
for _ in $(seq 60); do
    if sinfo -h -o '%T' 2> /dev/null | grep -q idle; then
        exit 0
    fi
    sleep 0.5
done
echo "no node became idle" >&2
exit 1
