#!/bin/bash
# days/day9-net/broken.sh: a container's network, made by hand, with one thing in
# it broken. Find it. For the lab's VM (make vm-shell), where it is in PATH.
#
#   broken.sh 3              make world 3 (1 to 8; in 0 nothing is broken; any: one of them, untold)
#   broken.sh check          which layers work?
#   broken.sh watch lab-out  the IPv4 packets that pass an interface, until Ctrl-C
#   broken.sh solution       the cause, the command that shows it, the cure
#   broken.sh fix            do the cure
#   broken.sh clean          remove everything
#
#   namespace box            the host                          namespace outside
#   eth0 ═══════════ lab0-2 ─ lab0 ─ NAT ─ lab-out ═══════════ eth0
#   10.66.0.2            10.66.0.1         192.0.2.1           192.0.2.2, web.example
set -euo pipefail
state=/run/broken-world

fail() {
    printf 'broken.sh: %s\n' "$@" >&2
    exit 1
}

# All steps of a healthy world, in order; each with the number of the world in
# which it is forgotten, or done wrongly.
build() { # NUMBER
    ip netns add outside
    ip link add lab-out type veth peer name eth0 netns outside
    ip address add 192.0.2.1/24 dev lab-out
    ip link set lab-out up
    ip -n outside link set lo up
    ip -n outside address add 192.0.2.2/24 dev eth0
    ip -n outside link set eth0 up
    serve

    ip link add lab0 address 02:74:0a:42:00:01 up type bridge
    ip address add 10.66.0.1/24 dev lab0

    ip netns add box
    [ "$1" = 1 ] || ip -n box link set lo up
    ip link add lab0-2 type veth peer name veth-box
    ip link set lab0-2 master lab0 up
    [ "$1" = 2 ] || ip link set veth-box netns box
    # On as a script goes on that does not look whether a step went well.
    {
        [ "$1" = 8 ] || ip -n box link set veth-box name eth0
        [ "$1" = 3 ] || ip -n box address add 10.66.0.2/24 dev eth0
        ip -n box link set eth0 up
        [ "$1" = 4 ] || ip -n box route add default via 10.66.0.1
    } 2>/dev/null || true

    sysctl -q -w "net.ipv4.ip_forward=$([ "$1" = 6 ] && echo 0 || echo 1)"
    nft 'add table ip lab; add chain ip lab postrouting { type nat hook postrouting priority srcnat; }'
    [ "$1" = 5 ] || nft 'add rule ip lab postrouting ip saddr 10.66.0.0/24 oifname != "lab0" masquerade'

    # `ip netns exec box` shows this file as /etc/resolv.conf. (ip-netns(8))
    mkdir -p /etc/netns/box
    printf 'nameserver %s\noptions timeout:1 attempts:1\n' \
        "$([ "$1" = 7 ] && echo 127.0.0.53 || echo 192.0.2.2)" >/etc/netns/box/resolv.conf
}

# The cause, the command that shows it, and the cure.
know() { # NUMBER
    local configure='ip -n box address add 10.66.0.2/24 dev eth0
ip -n box link set eth0 up
ip -n box route add default via 10.66.0.1'
    case $1 in
        0) cause='nothing is broken' shows=true cure=true ;;
        1) cause='the loopback device is down' shows='ip -n box link show lo' cure='ip -n box link set lo up' ;;
        2)
            cause="the cable's other end was never moved into the namespace: it is still here" shows='ip link show veth-box'
            cure="ip link set veth-box netns box
ip -n box link set veth-box name eth0
$configure"
            ;;
        3)
            cause='eth0 has no address, and so it got no route either' shows='ip -n box address show eth0'
            cure="$(grep -v ' up$' <<<"$configure")"
            ;;
        4) cause='there is no default route' shows='ip -n box route' cure='ip -n box route add default via 10.66.0.1' ;;
        5)
            cause='no NAT: the question arrives, but nobody out there knows where 10.66.0.2 is' shows='nft list table ip lab'
            cure="nft 'add rule ip lab postrouting ip saddr 10.66.0.0/24 oifname != \"lab0\" masquerade'"
            ;;
        6) cause='the host does not forward' shows='sysctl net.ipv4.ip_forward' cure='sysctl -q -w net.ipv4.ip_forward=1' ;;
        7)
            cause='the name server that it is told to ask, 127.0.0.53, is itself' shows='ip netns exec box cat /etc/resolv.conf'
            cure='sed -i s/127.0.0.53/192.0.2.2/ /etc/netns/box/resolv.conf'
            ;;
        8)
            cause='the interface has another name than eth0, so that nothing was done to it' shows='ip -n box link'
            cure="ip -n box link set veth-box name eth0
$configure"
            ;;
    esac
}

# The outside: a web server, and a name server that knows one name.
serve() {
    mkdir "$state/www"
    echo 'hello from outside' >"$state/www/index.html"
    ip netns exec outside busybox httpd -p 80 -h "$state/www"
    ip netns exec outside python3 - <<'PYTHON'
import os, socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
# It can be asked from here on: go on in the background.
if os.fork():
    os._exit(0)
for stream in (0, 1, 2):
    os.dup2(os.open("/dev/null", os.O_RDWR), stream)
while True:
    query, whom = server.recvfrom(512)
    question = query[12:query.index(b"\0", 12) + 5]
    known = question.startswith(b"\x03web\x07example\0")
    # Of type 1, an IPv4 address, there is one; of others none.
    answers = [b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([192, 0, 2, 2])] if known and question[-4:-2] == b"\0\1" else []
    head = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + bytes([0, len(answers)]) + b"\0" * 4
    try:
        server.sendto(head + question + b"".join(answers), whom)
    except OSError:
        pass  # Who asks may be somebody to whom no route leads: world 5.
PYTHON
}

# One layer: does COMMAND, in the box, succeed?
layer() { # WHAT COMMAND...
    local what=$1 answer=yes
    shift
    timeout 5 ip netns exec box "$@" >/dev/null 2>&1 || answer=no
    printf '%-58s %s\n' "$what" "$answer"
    [ $answer = yes ] || works=false
}

check() {
    works=true
    layer 'itself               ping 127.0.0.1' ping -c 1 -W 1 127.0.0.1
    layer 'the host             ping 10.66.0.1' ping -c 1 -W 1 10.66.0.1
    layer 'its other address    ping 192.0.2.1' ping -c 1 -W 1 192.0.2.1
    layer 'the outside          ping 192.0.2.2' ping -c 1 -W 1 192.0.2.2
    layer 'its web server       wget -O- http://192.0.2.2/' busybox wget -qO- http://192.0.2.2/
    layer 'the same by name     ping web.example' ping -c 1 -W 1 web.example
    $works
}

watch() { # INTERFACE [NAMESPACE]
    local where=()
    [ -n "${1:-}" ] || fail "watch: no interface is named; expected one, and the namespace it is in:" \
        "  broken.sh watch lab0          the bridge, on the host" \
        "  broken.sh watch lab-out       the way out, on the host" \
        "  broken.sh watch eth0 outside  the machine outside (or: box)"
    if [ -n "${2:-}" ]; then
        [ -e "/run/netns/$2" ] || fail "watch: there is no namespace $2; expected box or outside, once a world is made: broken.sh 1"
        where=(ip netns exec "$2")
    fi
    "${where[@]}" ip link show dev "$1" >/dev/null 2>&1 ||
        fail "watch: there is no interface $1 ${2:+in $2}; see: ${2:+ip netns exec $2 }ip -br link"
    exec "${where[@]}" python3 -u -c '
import socket, sys
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))   # ETH_P_ALL: both directions
tap.bind((sys.argv[1], 3))
print("watching", sys.argv[1])
names = {1: "icmp", 6: "tcp", 17: "udp"}
while True:
    packet, (_, protocol, *_) = tap.recvfrom(65535)
    if protocol == 0x0800:
        source, destination = (socket.inet_ntoa(packet[at:at + 4]) for at in (12, 16))
        print(names.get(packet[9], packet[9]), source, "->", destination)' "$1"
}

clean() {
    local name pids link
    for name in box outside; do
        [ -e "/run/netns/$name" ] || continue
        pids=$(ip netns pids "$name")
        # shellcheck disable=SC2086  # a list
        [ -z "$pids" ] || kill -9 $pids
        ip netns delete "$name"
    done
    # With its last name gone, ip's own mount is of no use any more.
    [ -n "$(ls /run/netns 2>/dev/null)" ] || umount /run/netns 2>/dev/null || true
    # With a namespace one end of a cable goes, and with it the other, a moment later.
    for link in lab0 lab0-2 lab-out; do ip link delete "$link" 2>/dev/null || true; done
    nft delete table ip lab 2>/dev/null || true
    rm -rf /etc/netns/box
    rmdir --ignore-fail-on-non-empty /etc/netns 2>/dev/null || true
    [ ! -e $state/ip_forward ] || cat $state/ip_forward >/proc/sys/net/ipv4/ip_forward
    rm -rf $state
}

is_made() { [ -e $state/number ] || fail "no world is made; make one first: broken.sh 1"; }

[ "$(id -u)" = 0 ] || fail "only root can make a network; in the VM (make vm-shell) you are root"
case ${1:-} in
    [0-8] | any)
        clean
        number=$1
        [ "$number" != any ] || number=$((RANDOM % 8 + 1))
        mkdir $state
        cat /proc/sys/net/ipv4/ip_forward >$state/ip_forward
        echo "$number" >$state/number
        build "$number"
        echo "World $1 is made. In the box:  ip netns exec box ping 192.0.2.2"
        ;;
    check)
        is_made
        check
        ;;
    watch) watch "${2:-}" "${3:-}" ;;
    solution)
        is_made
        know "$(cat $state/number)"
        printf '%s\n' "cause:  $cause" "see:    $shows" "cure:   ${cure//$'\n'/$'\n'        }"
        ;;
    fix)
        is_made
        know "$(cat $state/number)"
        bash -ec "$cure"
        ;;
    clean) clean ;;
    [0-9]*) fail "there is no world $1; expected 1 to 8, 0 for one that works, or any" ;;
    '' | -h | --help | help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" ;;
    *) fail "$1 is none of its words; expected 1 to 8, any, check, watch, solution, fix or clean; broken.sh alone explains them" ;;
esac
