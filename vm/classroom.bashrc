# shellcheck shell=bash
# The shell of `make vm-shell`.
PS1='\[\e[1m\]vm\[\e[0m\]:\w# '
alias ls='ls --color=auto' ll='ls -l'
cat <<'WELCOME'

  The classroom: a Linux of your own, as root. Nothing you do here can break
  your machine, and nothing outlives this shell.

    tiny-docker run --rootfs rootfs/busybox /bin/sh     a container
    tiny-docker --explain run --rootfs rootfs/busybox /bin/true
    tiny-docker run -d …, ps -a, logs -f, stop, rm      one in the background
    tiny-docker run --memory 128m …, stats              with limits
    tiny-docker run …; ip addr, nft list ruleset        on the bridge td0
    unshare  nsenter  chroot  pivot_root  mount  ps  ip  nft  strace  python3
                                                        the same by hand
    broken.sh 1                                         a broken network to repair (1 to 8)
    rootfs/busybox  rootfs/debian (with python3)        root file systems

  To leave: exit, or Ctrl-D.

WELCOME
