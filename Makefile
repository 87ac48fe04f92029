# Everything a developer or a user of this repository runs. Each target installs what it needs with apt, and
# only when something is missing; as root, or with sudo.
#
#   make quickstart   build, create an environment in ./env and start it
#   make test         the whole test suite
#   make lint         formatting, clippy without warnings, licences and sources of dependencies
#   make soak         the tests in full volume (hours)
#   make deb          a Debian package with service units, in target/debian
#   make bench        the benchmark suite; writes benches/REPORT.md

SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where `make quickstart` puts the environment, and from which port on it listens.
DIR ?= env
PORT_BASE ?= 17010
# `dev` builds in a fraction of the time and serves at a fraction of the speed.
PROFILE ?= release

PACKAGES := build-essential pkg-config libxslt1-dev python3-dev python3-venv curl git openssl wrk
# What the tests start themselves, as environments with more than one server do. Nothing of it need run on
# this host, and an environment of one server needs none of it.
TEST_PACKAGES := postgresql mariadb-server rabbitmq-server haproxy sqlite3 amqp-tools python3-pika gsoap libgsoap-dev libssl-dev zlib1g-dev python3-spyne python3-zeep php-cli php-soap nginx-light
# Fuzz targets of fuzz/, each run for FUZZ_SECONDS. A new target is one word here.
FUZZ_TARGETS := path_matcher control_frames request_decoders xml_messages credentials
FUZZ_SECONDS ?= 60

.PHONY: help
help:
	@sed -n 's/^#   //p' Makefile

.PHONY: packages
packages:
	@missing=""
	for package in $(PACKAGES); do
	  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=" $$package"
	done
	if [ -n "$$missing" ]; then
	  as_root=""
	  if [ "$$(id -u)" != 0 ]; then as_root=sudo; fi
	  $$as_root apt-get update -q
	  DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -q -y --no-install-recommends $$missing
	fi

# Debian starts the services of these packages when it installs them, and at every boot. A policy forbids the
# one, for as long as this installs and unless the host has a policy of its own; the other is switched off.
.PHONY: test-packages
test-packages: packages
	@missing=""
	for package in $(TEST_PACKAGES); do
	  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=" $$package"
	done
	if [ -z "$$missing" ]; then exit 0; fi
	as_root=""
	if [ "$$(id -u)" != 0 ]; then as_root=sudo; fi
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$$policy" ]; then
	  trap '$$as_root rm -f "$$policy"' EXIT
	  printf '#!/bin/sh\nexit 101\n' | $$as_root tee "$$policy" >/dev/null
	  $$as_root chmod 755 "$$policy"
	fi
	$$as_root apt-get update -q
	DEBIAN_FRONTEND=noninteractive $$as_root apt-get install -q -y --no-install-recommends $$missing
	for package in $$missing; do
	  case "$$package" in
	    mariadb-server) services="mariadb" ;;
	    rabbitmq-server) services="rabbitmq-server epmd.socket" ;;
	    nginx-light) services="nginx" ;;
	    *) services="$$package" ;;
	  esac
	  $$as_root systemctl --quiet disable $$services 2>/dev/null || true
	done

.PHONY: cargo
cargo:
	@if ! command -v cargo >/dev/null; then
	  echo "make: there is no cargo on the PATH: install Rust 1.95 or newer (https://rustup.rs)" >&2
	  exit 1
	fi

.PHONY: setup
setup: packages cargo

.PHONY: build
build: setup
	cargo build --locked --profile $(PROFILE) --bin crosstie

.PHONY: quickstart
quickstart: build
	@target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))/crosstie quickstart "$(DIR)" --port-base $(PORT_BASE)

# Fuzzing first: the summary lines of the tests are the last ones. The tests of the crates run beside those of the
# whole (tests/e2e), as both wait for other processes most of the time. They are told apart by the names of their
# targets, not of packages, so that everything is built once. There are no documentation tests.
.PHONY: test
test: setup test-packages fuzz
	cargo test --locked --workspace --no-run
	log=target/test-crates.log
	cargo test --locked --workspace --no-fail-fast --lib --bins --test '[!e]*' >"$$log" 2>&1 & crates=$$!
	trap 'kill "$$crates" 2>/dev/null || true' EXIT
	whole=0 parts=0
	cargo test --locked --workspace --no-fail-fast --test e2e || whole=$$?
	wait "$$crates" || parts=$$?
	if [ "$$parts" = 0 ]; then grep -E '^test result' "$$log"; else cat "$$log"; fi
	[ "$$whole$$parts" = 00 ] || { echo "make: tests failed (e2e: $$whole, crates: $$parts)" >&2; exit 1; }

# Built with coverage feedback, which is for the target alone: hence the triple (fuzz/.cargo/config.toml). The
# targets run side by side, one line of summary each; a crash shows libFuzzer's report.
.PHONY: fuzz
fuzz: setup
	@host=$$(rustc -vV | sed -n 's/^host: //p')
	(cd fuzz && cargo build --locked --release --target "$$host")
	run() {
	  mkdir -p "fuzz/corpus/$$1" fuzz/artifacts
	  if ! "fuzz/target/$$host/release/$$1" -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -verbosity=1 \
	    -artifact_prefix=fuzz/artifacts/ "fuzz/corpus/$$1" >"fuzz/target/$$1.log" 2>&1; then
	    tail -n 60 "fuzz/target/$$1.log"
	    echo "fuzz: $$1 failed; the input is in fuzz/artifacts"
	    return 1
	  fi
	  echo "fuzz: $$1: $$(tail -n 1 "fuzz/target/$$1.log")"
	}
	pids=()
	for target in $(FUZZ_TARGETS); do run "$$target" & pids+=($$!); done
	for pid in "$${pids[@]}"; do wait "$$pid"; done

.PHONY: soak
soak: setup test-packages
	CROSSTIE_SOAK=1 cargo test --locked --release --package crosstie --test e2e -- --nocapture --test-threads 1
	cargo build --locked --release --package crosstie --package crosstie-bench
	target/release/crosstie-bench run --only redeploys --redeploys 10000 --report target/soak-redeploys.md

.PHONY: bench
bench: setup test-packages
	cargo build --locked --release --package crosstie --package crosstie-bench
	target/release/crosstie-bench run

.PHONY: deb
deb: build
	@cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb
	cargo deb --locked --no-build --package crosstie

.PHONY: lint
lint: setup
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- --deny warnings
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check bans licenses sources
