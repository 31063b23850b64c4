#!/bin/bash
# make kubelet-test: a real kubelet, with containerd and the runtime under it, starts a static pod
# in the guest (guest/kubelet). The kubelet is built of Debian's kubernetes source with Debian's Go:
# ten minutes and more the first time, then kept in target/real. Not a part of CI.
set -euo pipefail
# shellcheck source=vm/real/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"
# shellcheck source=vm/real/sources.sh
. "$real/sources.sh"

# GOPATH, and no modules: Kubernetes 1.20 brings all that it needs in vendor/, for Go as it was.
build_kubelet() {
    local root=$kept/kubernetes.root go=$kept/go
    echo "vm: building the kubelet" >&2
    mkdir -p "$go/src/k8s.io"
    ln -sfn "$kept/kubernetes" "$go/src/k8s.io/kubernetes"
    (
        cd "$go/src/k8s.io/kubernetes"
        export GOROOT=$root/usr/lib/go-1.19 GOPATH=$go GOCACHE=$go/cache GO111MODULE=off CGO_ENABLED=0
        quietly "vm: building" "$GOROOT/bin/go" build -v -tags "providerless dockerless" -ldflags '-s -w' -o "$kept/kubelet.new" ./cmd/kubelet
    )
    rm -rf "$go/cache"
    mv "$kept/kubelet.new" "$kept/kubelet"
}

real_payload kubelet
debian_source kubernetes golang-1.19-go,golang-1.19-src
[ -x "$kept/kubelet" ] || build_kubelet
install -m 755 "$kept/kubelet" "$stage/root/usr/local/bin/kubelet"
cp "$real/guest/containerd-up.sh" "$stage/root/payload/"
export VM_TIMEOUT=${VM_TIMEOUT:-1800}
real_run
