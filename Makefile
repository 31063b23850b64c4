# tiny-docker-rs: what a person types. `make` alone shows this list.
.DEFAULT_GOAL := help
.PHONY: help demo vm-test vm-shell test rootfs start check watch hint solution reset progress prove book book-serve install bundle bench lint podman-test containerd-test crun-test kubelet-test

# Where `make install` puts things. Only the copying is done as root, and only where
# the place is root's.
PREFIX ?= /usr/local
TO = $(DESTDIR)$(PREFIX)
SUDO = $(shell mkdir -p $(TO) 2>/dev/null && [ -w $(TO) ] || echo sudo)

# A red test is no fault of make, and on a terminal it need not add its `*** [check] Error 1`
# to what the learner reads. A script gets the exit code.
RED = [ -t 1 ]

help: ## This list
	@echo "tiny-docker-rs: build a small Docker in Rust, one Linux mechanism a day"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## Set up everything, and run a container with all of it, in the VM
	@vm/demo.sh

vm-test: ## Set up everything, and run the tests of every day, in the VM (LONG=1: the long ones too, and each day's on its own runtime; ALL=1: on every later day's; UPDATE=1 rewrites the golden files)
	@ALL=$(ALL) LONG=$(LONG) TINY_DOCKER_UPDATE=$(UPDATE) vm/test.sh

vm-shell: ## The classroom: a root shell in the VM (DAY=2: with that day's runtime; LAB=1: with yours)
	@vm/classroom.sh "$(DAY)" "$(LAB)"

test: ## The tests that need no root, on this machine
	@vm/setup.sh
	cargo test --features day18

rootfs: ## Make rootfs/busybox, a root file system for containers on this machine
	@vm/rootfs.sh && echo "rootfs/busybox is there"

start: ## Start the exercises at a day: make start DAY=1
	@days/start.sh "$(DAY)"

check: ## Check a day: its tests on lab/, then those before it (TASK=2: that task's alone)
	@days/check.sh "$(DAY)" "$(TASK)" || $(RED)

watch: ## Check again on every save of a file in lab/, without the long tests; q ends it (TASK=2: that task alone)
	@days/watch.sh "$(DAY)" "$(TASK)"

hint: ## One hint more: make hint DAY=1 TASK=2
	@days/hint.sh "$(DAY)" "$(TASK)"

solution: ## Show the answer of a day, as a difference
	@days/solution.sh "$(DAY)"

reset: ## Begin a day again; what is there now is kept in a branch
	@YES=$(YES) days/reset.sh "$(DAY)"

progress: ## Every day of yours at a glance
	@days/progress.sh

prove: ## Prove the exercises: starters are red for their reason, wrong solutions are caught (DAYS="3 9": of these days)
	@days/lab-test.sh
	@days/watch-test.sh
	@days/prove.sh $(DAYS)

book: ## Build the book: book/book/index.html
	@book/build.sh

book-serve: ## Read the book while writing it
	@book/build.sh serve

install: ## Install tiny-docker and tiny-runc, man pages and completions (PREFIX=/usr/local)
	cargo build --quiet --release --features day18 --target-dir target
	cargo run --quiet --features day18 --example manual -- target/manual
	$(SUDO) install -D -m 755 -t $(TO)/bin target/*/release/tiny-docker target/*/release/tiny-runc
	$(SUDO) install -D -m 644 -t $(TO)/share/man/man1 target/manual/*.1
	$(SUDO) install -D -m 644 target/manual/tiny-docker.bash $(TO)/share/bash-completion/completions/tiny-docker
	$(SUDO) install -D -m 644 -t $(TO)/share/zsh/site-functions target/manual/_tiny-docker
	$(SUDO) install -D -m 644 -t $(TO)/share/fish/vendor_completions.d target/manual/tiny-docker.fish

bundle: ## One file with all that a room without a network needs
	@vm/bundle.sh

bench: ## Start to exit against the kernel's floor, crun and runc; exec, ps, run -d, logs, images (as root)
	@if [ "$$(id -u)" = 0 ]; then \
		vm/setup.sh && vm/rootfs.sh && \
		cargo bench --quiet --features day3 --bench start_to_exit && \
		cargo bench --quiet --features day6 --bench lifecycle && \
		BENCH_JSON=target/bench-here.jsonl BENCH_HERE_SVG=target/bench-here.svg \
			cargo bench --quiet --features day18 --bench here && \
		cargo bench --quiet --features day18 --bench image && \
		cargo bench --quiet --features day18 --bench pull; \
	else echo "bench: not root, so on this machine nothing is measured"; fi
	@vm/bench.sh
	@vm/bench.sh exec

podman-test: ## podman drives our OCI runtime, in a guest of its own (RUNTIME=crun: another; CGROUPS=systemd)
	@RUNTIME="$(RUNTIME)" CGROUPS="$(CGROUPS)" UPDATE="$(UPDATE)" vm/real/podman.sh

containerd-test: ## containerd drives it: ctr, and the CRI, which a kubelet speaks (RUNTIME=, CGROUPS=)
	@RUNTIME="$(RUNTIME)" CGROUPS="$(CGROUPS)" vm/real/containerd.sh

crun-test: ## crun's own tests on it; what passes is compared with tests/real (RUNTIME=, CGROUPS=, UPDATE=1)
	@RUNTIME="$(RUNTIME)" CGROUPS="$(CGROUPS)" UPDATE="$(UPDATE)" vm/real/crun.sh

kubelet-test: ## A real kubelet starts a pod with it (RUNTIME=, CGROUPS=; builds the kubelet once: ten minutes and more)
	@RUNTIME="$(RUNTIME)" CGROUPS="$(CGROUPS)" vm/real/kubelet.sh

lint: ## Formatting, clippy on every day, shellcheck, the book's links
	@.ci/lint
