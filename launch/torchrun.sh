#!/usr/bin/env bash
# One run by several processes, on one machine or on several. Everything after the script's name
# goes to `flowbrush train`.
#
#   launch/torchrun.sh coyo                          one machine, a process for each of its GPUs
#   PROCESSES=2 launch/torchrun.sh shapes --device cpu
#   NODES=4 HEAD=node-0 launch/torchrun.sh coyo      the same line on each of four machines
#
# NODES      machines
# HEAD       the one of them by which the others find each other, by a name that all can resolve
# PORT       on it, free and open to the others
# JOB        the same on all machines, another one for each run at the same time
# PROCESSES  of each machine; gpu = one for each GPU
# RESTARTS   how often a lost process is made up for, from the last checkpoint
# GRACE      seconds to save in, after SIGTERM
# PYTHON     of the environment that flowbrush is installed in
set -euo pipefail

nodes=${NODES:-1} processes=${PROCESSES:-gpu}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${GRACE:-300}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # what is read and decoded has threads of its own

meet=(--standalone)
if ((nodes > 1)); then
  : "${HEAD:?name the machine that the others meet at}"
  # With torch's shared store a machine that comes back is never told where the others are.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  meet=(--nnodes "$nodes" --rdzv-backend c10d --rdzv-endpoint "$HEAD:${PORT:-29400}"
    --rdzv-id "${JOB:-flowbrush}" --rdzv-conf join_timeout=1800)
fi

exec "${PYTHON:-python}" -m torch.distributed.run "${meet[@]}" \
  --nproc-per-node "$processes" --max-restarts "${RESTARTS:-3}" -m -- flowbrush train "$@"
