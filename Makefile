# On a fresh Debian machine Rust, make and git are enough: `services` installs the rest.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-orders test bench bench-rivals torture lint deny sbom licences services services-down needs
MAKEFLAGS += --no-print-directory

services := tests/services/services.sh
# Where the servers are, for the commands of the same line.
environment := servers=$$($(services) env); eval "$$servers"
tools := target/tools
supply_chain := target/supply-chain
tooled := PATH="$$PWD/$(tools)/bin:$$PATH"
# A Cargo tool of a version, built here unless it is there: $(call tool,NAME,VERSION)
tool = grep --quiet --fixed-strings '"$(1) $(2) ' $(tools)/.crates.toml 2>/dev/null \
	|| cargo install --locked --root $(tools) $(1)@$(2)
# Of `make torture`: torture, torture_by_stops, torture_by_nothing or soak; through which broker.
STORM := torture
SINK := kafka rabbitmq

help: ## this list
	@echo 'usage: make TARGET'
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) \
		| while IFS=$$'\t' read -r target does; do printf '  %-14s %s\n' "$$target" "$$does"; done

demo: services ## orders from PostgreSQL to Kafka and to RabbitMQ: what was promised and what arrived
	@cargo build --release --bin outboxd --example demo
	@$(environment); cargo run --quiet --release --example demo

demo-orders: services ## HTTP orders and their payments, each exactly once under random kills: examples/orders
	@cargo build --release --bin outboxd --example orders
	@$(environment); cargo run --quiet --release --example orders -- storm

test: services ## all tests, against real servers, which are left running for the next time
	@# Tests run this example, and an example with tests of its own is not built by `cargo test`.
	@cargo build --example orders
	@$(environment); log=$$(mktemp); trap 'rm -f "$$log"' EXIT; status=0; \
		cargo test --no-fail-fast | tee "$$log" || status=$$?; \
		cargo test --features defects --test torture defects:: -- --test-threads 4 \
			| tee --append "$$log" || status=$$?; \
		cargo build --quiet || status=$$?; \
		awk '/^test result:/ { passed += $$4; failed += $$6; ignored += $$8 } \
			END { printf "\nall in all: %d passed, %d failed, %d ignored\n", passed, failed, ignored }' "$$log"; \
		exit $$status

torture: services ## a storm of faults: STORM=torture SINK=kafka ROWS=1000000 KILLS=200 FAULTS=60 SEED=…
	@$(environment); for sink in $(SINK); do TORTURE_SINK=$$sink \
		$(if $(ROWS),TORTURE_ROWS=$(ROWS)) $(if $(KILLS),TORTURE_KILLS=$(KILLS)) \
		$(if $(FAULTS),TORTURE_FAULTS=$(FAULTS)) $(if $(SEED),TORTURE_SEED=$(SEED)) \
		$(if $(MINUTES),TORTURE_MINUTES=$(MINUTES)) \
		cargo test --release --test torture $(STORM) -- --exact --ignored --nocapture; done

bench: services ## speed against the limit: CELLS='drain kafka' ROWS=1000000 REPEAT=3 MORE='--list' or '--help'
	@$(environment); cargo bench --bench relay -- $(CELLS) \
		$(if $(ROWS),--rows $(ROWS)) $(if $(REPEAT),--repeat $(REPEAT)) $(MORE)

bench-rivals: services ## outboxd beside Debezium Server (Java 21 or later) and a poller: CELLS='debezium' ROWS=500000 REPEAT=3
	@$(environment); cargo bench --bench rivals -- $(CELLS) \
		$(if $(ROWS),--rows $(ROWS)) $(if $(REPEAT),--repeat $(REPEAT))

lint: needs ## formatting and clippy; a warning fails
	cargo fmt --check
	cargo clippy --all-targets -- --deny warnings
	cargo clippy --features defects --test torture -- --deny warnings

deny: ## licences, sources and advisories of the dependencies, by cargo-deny
	@$(call tool,cargo-deny,0.20.2)
	$(tooled) cargo deny check

sbom: ## what outboxd is made of, as CycloneDX: target/supply-chain/outboxd.cdx.json
	@$(call tool,cargo-cyclonedx,0.5.9)
	@mkdir -p $(supply_chain)
	$(tooled) cargo cyclonedx --format json --all --override-filename outboxd.cdx
	@mv outboxd.cdx.json $(supply_chain)/

licences: ## the licences of the dependencies and who has them: target/supply-chain/licences.txt
	@$(call tool,cargo-deny,0.20.2)
	@mkdir -p $(supply_chain)
	$(tooled) cargo deny --exclude-dev list --layout license >$(supply_chain)/licences.txt

services: ## installs what is missing, starts PostgreSQL, Kafka, RabbitMQ, PgBouncer and Redis
	@$(services) up

services-down: ## stops what that started; data and packages stay
	@$(services) down

# What C code among the dependencies is built with is installed along with the servers.
needs:
	@{ command -v cc && pkg-config --exists openssl zlib; } >/dev/null 2>&1 || $(services) up
