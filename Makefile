# SPDX-License-Identifier: Apache-2.0
# A thin front door: `make help` says what there is. The logic is in tools/*.sh, the build in meson.build.

# check and check-slow: sanitizers to build and test with, for example SAN=asan,ubsan or SAN=tsan
SAN ?=
# fuzz: seconds for each fuzz target
FUZZ_SECONDS ?= 60
# run: what is added to `hanok run`, for example ARGS="--cpus 2 --stats"
ARGS ?=
# run: debian, or tiny (a kernel and a shell, no disk)
GUEST ?= debian

export SAN FUZZ_SECONDS GUEST

all:
	@tools/build.sh

run:
	@tools/run.sh $(ARGS)

check:
	@tools/check.sh

check-slow:
	@tools/check.sh --slow

fuzz:
	@tools/fuzz.sh

bench:
	@tools/bench.sh

format:
	@tools/format.sh --write

format-check:
	@tools/format.sh --check

clean:
	rm -rf build build-*

help:
	@tools/help.sh

.PHONY: all run check check-slow fuzz bench format format-check clean help
