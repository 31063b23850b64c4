#!/bin/bash
# vm/demo.sh: sets up everything, and runs a container with all of it, in the VM.
set -euo pipefail
# shellcheck source=vm/payload.sh
. "$(dirname "$(readlink -f "$0")")/payload.sh"

new_payload "$(newest_day)" "$repo"
cat >"$stage/root/payload/run" <<'RUN'
#!/bin/bash
set -e
# Each command as it would be typed, then what it says.
type_it() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}
type_it tiny-docker --explain run --rootfs rootfs/busybox --hostname demo /bin/true
type_it tiny-docker run --rootfs rootfs/busybox --hostname demo /bin/sh -c '
echo "I am PID $$ on $(hostname), and these are all the processes there are:"
ps -o pid,user,comm
echo "My root file system: $(echo /*)"
echo "It says it is: $(. /etc/os-release; echo $PRETTY_NAME)"'
type_it tiny-docker run --rm --memory 128m --rootfs rootfs/debian python3 -c "a = 'x' * 200 * 1024 * 1024" || [ $? = 137 ]
type_it tiny-docker run -d --name site --ip 10.10.0.80 -p 8080:80 --rootfs rootfs/busybox httpd -f -p 80 -h /etc
type_it tiny-docker run --rm --rootfs rootfs/busybox wget -qO- http://10.10.0.80/os-release
type_it tiny-docker port site
type_it wget -qO- http://127.0.0.1:8080/os-release
type_it tiny-docker run -d --init --memory 64m --pids-limit 32 --name web --rootfs rootfs/busybox /bin/sh -c '
echo "I go on when you have left"; exec sleep 1000'
type_it tiny-docker ps
type_it tiny-docker exec -u app -e WHO=you web sh -c 'echo "$WHO are $(id -un), beside:"; ps -o pid,user,args'
type_it tiny-docker stats --no-stream
type_it tiny-docker logs -t web
type_it tiny-docker stop -t 1 web site
type_it tiny-docker ps -a
type_it tiny-docker run -d --name steady --restart always --rootfs rootfs/busybox sleep 1000
type_it sh -c "kill -KILL \$(tiny-docker inspect steady | sed -n 's/.*\"pid\": \([0-9]*\),/\1/p')"
until tiny-docker inspect steady | grep -q '"restart_count": 1' && tiny-docker exec steady true 2>/dev/null; do sleep 0.1; done
type_it tiny-docker ps
type_it tiny-docker stop -t 1 steady
type_it tiny-docker rm steady
type_it tiny-docker network create back
type_it tiny-docker run -d --name db --net back --network-alias database --rootfs rootfs/busybox sleep 1000
type_it tiny-docker run --rm --net back --rootfs rootfs/busybox ping -c 1 database
type_it tiny-docker rm -f db
type_it tiny-docker network rm back
type_it tiny-docker run --rm --rootfs rootfs/busybox sh -c 'id -un; date -s 2030-01-01' || true
type_it tiny-docker run --rm --cap-drop ALL --cap-add CHOWN --rootfs rootfs/busybox grep Cap /proc/self/status
type_it tiny-docker run --rm --rootfs rootfs/busybox sh -c 'mknod /dev/disk b 254 0 && cat /dev/disk' || true
type_it tiny-docker run --rm --rootfs rootfs/debian unshare --user id || true
type_it sh -c 'tiny-docker seccomp show | head -n 8'
type_it tiny-docker run -d --name nobody --userns auto --layer rootfs/busybox sleep 1000
type_it tiny-docker exec nobody sh -c 'id -u; cat /proc/self/uid_map'
type_it sh -c "grep ^Uid /proc/\$(tiny-docker inspect nobody | sed -n 's/.*\"pid\": \([0-9]*\),/\1/p')/status"
type_it tiny-docker rm -f nobody
type_it mkdir -p layer/srv
type_it tiny-docker run --name layered --layer layer --layer rootfs/busybox sh -c '
echo "written into a layer of my own" >/srv/mine; rm /etc/os-release; ls /srv'
type_it tiny-docker diff layered
type_it tiny-docker cp layered:/srv/mine copied
type_it cat copied
type_it ls layer/srv
type_it tiny-docker run --rm -v data:/data --layer rootfs/busybox sh -c 'echo "kept in a volume" >/data/file'
type_it tiny-docker run --rm -v data:/data:ro --layer rootfs/busybox cat /data/file
type_it tiny-docker volume ls
type_it tiny-docker rm layered web site
type_it tiny-docker volume rm data

# A registry, as everywhere in the world, and an image that somebody else has put there.
cat >registry.yml <<'YAML'
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: "127.0.0.1:5000", secret: demo}
YAML
docker-registry serve registry.yml >/dev/null 2>&1 &
umoci init --layout packed
umoci new --image packed:v1
umoci insert --image packed:v1 rootfs/busybox / >/dev/null
umoci config --image packed:v1 --config.entrypoint echo --config.cmd "packed by somebody else" --config.user app
until (: >/dev/tcp/127.0.0.1/5000) 2>/dev/null; do sleep 0.1; kill -0 $!; done
skopeo copy --quiet --dest-tls-verify=false oci:packed:v1 docker://127.0.0.1:5000/lab/hello:v1
type_it tiny-docker pull 127.0.0.1:5000/lab/hello:v1
type_it tiny-docker images
type_it tiny-docker run --rm --image 127.0.0.1:5000/lab/hello:v1
type_it tiny-docker run --name mine --entrypoint sh --user root --image 127.0.0.1:5000/lab/hello:v1 -- -c 'echo "packed by me" >/srv/mine'
type_it tiny-docker ps -a
type_it tiny-docker commit mine 127.0.0.1:5000/lab/mine:v1
type_it tiny-docker push 127.0.0.1:5000/lab/mine:v1
type_it tiny-docker rm mine
type_it tiny-docker rmi 127.0.0.1:5000/lab/mine:v1 127.0.0.1:5000/lab/hello:v1
type_it tiny-docker run --rm --entrypoint cat --image 127.0.0.1:5000/lab/mine:v1 /srv/mine

# The same by somebody who is not root, and has ids of their own.
echo app:500000:65536 | tee /etc/subuid >/etc/subgid
install -d -o app -g app /home/app
cat >as-app <<'SH'
#!/bin/sh
cd /home/app
exec setpriv --reuid=app --regid=app --clear-groups env HOME=/home/app "$@"
SH
chmod 755 as-app
type_it ./as-app tiny-docker pull 127.0.0.1:5000/lab/mine:v1
type_it ./as-app tiny-docker run -d --name web -p 8081:80 --user root --entrypoint sh --image 127.0.0.1:5000/lab/mine:v1 -- -c 'exec httpd -f -p 80 -h /srv'
type_it ./as-app tiny-docker exec web sh -c 'id -u; cat /proc/self/uid_map'
for _ in $(seq 100); do wget -qO- http://127.0.0.1:8081/mine >/dev/null 2>&1 && break; sleep 0.1; done
type_it wget -qO- http://127.0.0.1:8081/mine
type_it ./as-app tiny-docker rm -f web
kill $!
RUN
chmod 755 "$stage/root/payload/run"
pack_payload
"$vm/run.sh" "$stage/payload.tar"
