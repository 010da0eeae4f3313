#!/usr/bin/env bash
# One node of a Ray cluster for Foundry, in the foreground; Ctrl-C takes it out of the cluster.
#
#   deploy/node.sh head IP                 the first node, at an address that the others reach
#   deploy/node.sh join HEAD_IP IP         any further one
#
# Read from deploy/cluster.env, which every node has a copy of (mode 600), or from the environment:
#   RAY_AUTH_TOKEN     without it Ray lets anybody who reaches its ports run anything; `openssl rand -hex 32` makes one
#   FOUNDRY_DATABASE   the PostgreSQL database that the nodes share; no job carries it, since jobs can be looked at
#   ANTHROPIC_API_KEY, OPENAI_API_KEY, …   where a profile needs them
#   NODE_CPUS, NODE_GPUS, NODE_MEMORY_GIB  what this node offers; by default what Ray finds
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
[ "$#" -ge 2 ] || { sed -n '2,12s/^# \{0,1\}//p' "$0" >&2; exit 2; }
settings="${FOUNDRY_CLUSTER_ENV:-$here/deploy/cluster.env}"
if [ -f "$settings" ]; then
  case $(stat -c %a "$settings") in
    600 | 400) ;;
    *) echo "error: $settings holds secrets and others may read it; mend: chmod 600 $settings" >&2; exit 1 ;;
  esac
  set -a; . "$settings"; set +a
fi
[ -n "${RAY_AUTH_TOKEN:-}" ] || { echo "error: RAY_AUTH_TOKEN is not set; mend: openssl rand -hex 32, into $settings" >&2; exit 1; }
export PATH="$here/.venv/bin:$PATH"
command -v ray >/dev/null || { echo "error: Ray is not installed; mend: pip install -c constraints.txt -e '.[ray,postgres]'" >&2; exit 1; }
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

offers=(--disable-usage-stats --block)
[ -z "${NODE_CPUS:-}" ] || offers+=(--num-cpus "$NODE_CPUS")
[ -z "${NODE_GPUS:-}" ] || offers+=(--num-gpus "$NODE_GPUS")
[ -z "${NODE_MEMORY_GIB:-}" ] || offers+=(--memory "$((NODE_MEMORY_GIB * 1024 * 1024 * 1024))")
# Ray keeps objects of its own in shared memory, of which Foundry makes none.
offers+=(--object-store-memory "$((80 * 1024 * 1024))")
# Ray itself reads RAY_TMPDIR, and takes an empty one for a folder.
[ -n "${RAY_TMPDIR:-}" ] || unset RAY_TMPDIR

case $1 in
  head)
    # The job server at the same address: runs that land on another node send their scripts there.
    exec ray start --head --node-ip-address "$2" --port "${RAY_PORT:-6379}" \
      --dashboard-host "$2" --dashboard-port "${RAY_DASHBOARD_PORT:-8265}" "${offers[@]}" ;;
  join)
    [ "$#" -ge 3 ] || { echo "usage: deploy/node.sh join HEAD_IP IP" >&2; exit 2; }
    exec ray start --address "$2:${RAY_PORT:-6379}" --node-ip-address "$3" "${offers[@]}" ;;
  *) echo "usage: deploy/node.sh head IP | join HEAD_IP IP" >&2; exit 2 ;;
esac
