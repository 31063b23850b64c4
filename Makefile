# tiny-docker-rs: what a person types. `make` alone shows this list.
.DEFAULT_GOAL := help
.PHONY: help demo vm-test vm-shell test rootfs start check prove book book-serve bench lint

help: ## This list
	@echo "tiny-docker-rs: build a small Docker in Rust, one Linux mechanism a day"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

demo: ## Set up everything, and run a container with all of it, in the VM
	@vm/demo.sh

vm-test: ## Set up everything, and run every test of every day, in the VM (UPDATE=1 rewrites the golden files)
	@TINY_DOCKER_UPDATE=$(UPDATE) vm/test.sh

vm-shell: ## The classroom: a root shell in the VM
	@vm/classroom.sh

test: ## The tests that need no root, on this machine
	@vm/setup.sh
	cargo test --features day6

rootfs: ## Make rootfs/busybox, a root file system for containers on this machine
	@vm/rootfs.sh && echo "rootfs/busybox is there"

start: ## Start the exercise of a day: make start DAY=1
	@days/start.sh "$(DAY)" && echo "lab/ is yours. The exercise: days/day$(DAY)-*/README.md. Then: make check DAY=$(DAY)"

check: ## Check it: that day's tests, and those before, on lab/
	@days/check.sh "$(DAY)"

prove: ## Prove the exercises: starters are red for their reason, wrong solutions are caught
	@days/prove.sh

book: ## Build the book: book/book/index.html
	@book/build.sh

book-serve: ## Read the book while writing it
	@book/build.sh serve

bench: ## Start-to-exit against the kernel's floor and crun; ps, run -d, logs (as root)
	@vm/setup.sh && vm/rootfs.sh && cargo bench --quiet --features day3 --bench start_to_exit
	@cargo bench --quiet --features day6 --bench lifecycle

lint: ## Formatting, clippy on every day, shellcheck, the book's links
	@.ci/lint
