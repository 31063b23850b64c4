# shellcheck shell=bash
# The shell of `make vm-shell`.
PS1='\[\e[1m\]vm\[\e[0m\]:\w# '
alias ls='ls --color=auto' ll='ls -l'

# What this day's runtime can do, by its flags.
help=$(tiny-docker run --help 2>/dev/null)
since() { # FLAG LINE
    [[ $help != *"$1"* ]] || echo "    $2"
}
cat <<'WELCOME'

  The classroom: a Linux of your own, as root. Nothing you do here can break
  your machine, and nothing outlives this shell.

    tiny-docker --explain run true                      a command, and how it is run
WELCOME
since --rootfs 'tiny-docker run --rootfs rootfs/busybox /bin/sh     a container'
since --detach 'tiny-docker run -d …, ps -a, logs -f                one in the background'
since --memory 'tiny-docker run --memory 128m …, stats, stop        with limits'
since --ip 'tiny-docker run …; ip addr, nft list ruleset        on the bridge td0'
cat <<'WELCOME'
    unshare  nsenter  chroot  pivot_root  mount  ps  ip  nft  strace  python3
                                                        the same by hand
WELCOME
since --ip 'broken.sh 1                                         a broken network to repair (1 to 8)'
cat <<'WELCOME'
    rootfs/busybox  rootfs/debian (with python3)        root file systems

  Two things that you will see here and did not make: the cgroup init.scope, into
  which this VM's init put your shell (systemd does the same), and the network
  interface dummy0, which comes with its kernel module and leads nowhere.

  To leave: exit, or Ctrl-D.

WELCOME
unset help
unset -f since
