#!/bin/bash
# Run once inside the Vagrant or Lima machine, as its ordinary user: installs
# the Rust toolchain and what the lab's tests and by-hand parts use.
set -euo pipefail
sudo apt-get update -qq
sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    build-essential ca-certificates curl git busybox-static iproute2 iputils-ping nftables procps strace util-linux mmdebstrap \
    docker-registry skopeo umoci podman uidmap slirp4netns
command -v cargo >/dev/null || [ -x "$HOME/.cargo/bin/cargo" ] ||
    curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs | sh -s -- -y --profile minimal

# Day 7 needs cgroup v2, which is what this Debian boots with. Say so if not.
[ -e /sys/fs/cgroup/cgroup.controllers ] ||
    echo "provision: this machine has no cgroup v2; day 7 will not work here" >&2
