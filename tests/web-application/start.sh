#!/bin/sh
# A web application of three containers. Only the front has a port of the host's, and only the
# application reaches the database, which reaches nothing else.
#
#   the world ── 8080 ── front ══ (front) ══ server ══ (back, internal) ══ db ── volume data
set -eu
programs=$(cd "$(dirname "$0")" && pwd)

tiny-docker network create front
tiny-docker network create --internal back
tiny-docker volume create data

start() { # NAME FLAGS…: the program of that name
    name=$1
    shift
    tiny-docker run -d --name "$name" --rootfs "$ROOTFS" --restart always --memory 128m --pids-limit 32 \
        -v "$programs/$name.py:/program.py:ro" "$@" python3 -u /program.py
}
start database --net back --network-alias db -v data:/data
start server --net front --net back --network-alias api
start front --net front -p 8080:80
