#!/usr/bin/env bash
# For .ci/run: a container engine that answers. `start` leaves one alone that does, else starts dockerd by hand and
# prints its pid; `stop PID` ends it, and nobody else's.
set -euo pipefail
folder=build/engine

start() {
    if docker version >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" -ne 0 ] || ! command -v dockerd >/dev/null 2>&1; then
        echo "no container engine answers, and only root can start one here (dockerd)" >&2
        exit 1
    fi
    mkdir -p "$folder"
    local how
    # Where the kernel has no overlay filesystem on top of this one, plain copies serve.
    for how in "" "--storage-driver=vfs"; do
        # shellcheck disable=SC2086
        setsid dockerd $how >"$folder/dockerd.log" 2>&1 </dev/null &
        local pid=$!
        for _ in $(seq 100); do
            if docker version >/dev/null 2>&1; then echo "$pid"; return; fi
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.2
        done
        stop "$pid"
    done
    tail -n 20 "$folder/dockerd.log" >&2
    exit 1
}

stop() {
    kill "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.2
    done
    kill -9 "$1" 2>/dev/null || true
}

case ${1:-} in
start) start ;;
stop) stop "${2:?which pid}" ;;
*) echo "usage: engine.sh start|stop PID" >&2; exit 2 ;;
esac
