#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# help.sh: what the Makefile can do.
cat <<'TEXT'
Hanok, a house for guests: a hosted hypervisor for Linux on x86-64.

  make                       build build/hanok
  make run                   run a Debian of your own on this terminal, made the first time
  make run GUEST=tiny        a kernel with a shell and no disk instead: there in seconds
  make run ARGS="--cpus 2"   ... with more options for `hanok run`
  make check                 every check and test; what CI runs
  make check-slow            the same with the long tests too
  make check SAN=asan,ubsan  the same under sanitizers, built in build-asan-ubsan (or SAN=tsan)
  make fuzz                  fuzz each parser for FUZZ_SECONDS (60)
  make bench                 measure
  make format                lay out the C files as .clang-format says
  make clean                 remove the build directories

Each installs the Debian packages it needs (as root, or with a sudo that asks for no password) and says
what is missing where it cannot. Guests are kept in ~/.cache/hanok (HANOK_CACHE moves that).

  build/hanok --help         the program's own help
  docs/HACKING.md            building, testing, debugging, where things go
  docs/ARCHITECTURE.md       how the house is laid out
TEXT
