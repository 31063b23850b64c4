# Sourced in the guest: containerd, with $RUNTIME under it, and /tmp/box.tar, an image to import.
# shellcheck shell=bash

mkdir -p /etc/containerd /etc/cni/net.d
systemd=false
export CGROUP_PARENT=/kubepods-pod1
[ "$CGROUPS" = cgroupfs ] || { systemd=true CGROUP_PARENT=kubepods-pod1.slice; }
cat >/etc/containerd/config.toml <<CONF
# ANCHOR: config
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/box:latest"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "$RUNTIME"
      SystemdCgroup = $systemd
# ANCHOR_END: config
CONF
cat >/etc/cni/net.d/10-bridge.conflist <<'CONF'
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "loopback"}]}
CONF
containerd >/tmp/containerd.log 2>&1 &
until ctr version >/dev/null 2>&1; do sleep 0.5; kill -0 $! || { cat /tmp/containerd.log; exit 1; }; done
ctr version | sed -n 's/^  Version: */containerd /p' | tail -n 1

# An image of the root that is here: it is the pod's sandbox too, so its command must stay.
cat >/tmp/make-image <<'MAKE'
import hashlib, io, json, subprocess, tarfile
layer = subprocess.run(["tar", "-C", "/rootfs/busybox", "-c", "."], check=True, capture_output=True).stdout
image = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sleep", "100000"], "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]}}
manifest = [{"Config": "config.json", "RepoTags": ["localhost/box:latest"], "Layers": ["layer.tar"]}]
with tarfile.open("/tmp/box.tar", "w") as archive:
    for name, data in [("layer.tar", layer), ("config.json", json.dumps(image).encode()), ("manifest.json", json.dumps(manifest).encode())]:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
MAKE
python3 /tmp/make-image && rm /tmp/make-image
