TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
ENVIRONMENT ?= sandbox
STACK ?= $(ENVIRONMENT)-ecom-settings-exporter
FUNCTION := $(ENVIRONMENT)-ecom-settings-exporter
ARCH ?= arm64
EVENT ?= events/stream-insert.json
PORT ?= 9000
SINCE ?= 10m
APPLY ?= false
QUERY_CONFIGS ?= false

# Cargo's and cargo-lambda's names for Lambda's architectures.
TRIPLE_arm64 := aarch64-unknown-linux-gnu
TRIPLE_x86_64 := x86_64-unknown-linux-gnu
TRIPLE := $(or $(TRIPLE_$(ARCH)),$(error ARCH is arm64 or x86_64, not $(ARCH)))
LAMBDA_FLAG_arm64 := --arm64
LAMBDA_FLAG_x86_64 := --x86-64

# $(call needs,PROGRAM,HOW TO GET IT)
needs = @command -v $(1) >/dev/null || { echo "make $@ needs $(1): $(2)" >&2; exit 1; }
# $(call invoke,PAYLOAD FILE): one try, and no time-out in the client, because a second request would
# run beside the first. Fails if the function answers with an error.
define invoke
	$(call needs,aws,install version 2 of the AWS CLI)
	@mkdir -p $(TARGET_DIR)
	@echo "$(FUNCTION):" >&2
	@AWS_MAX_ATTEMPTS=1 aws lambda invoke --function-name $(FUNCTION) --cli-read-timeout 0 \
	    --payload fileb://$(1) $(TARGET_DIR)/answer.json >$(TARGET_DIR)/invocation.json
	@cat $(TARGET_DIR)/answer.json; echo
	@! grep '"FunctionError"' $(TARGET_DIR)/invocation.json
endef

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^## / { print "\n" substr($$0, 4) ":" } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

## On a laptop, with only Rust and make

# One build makes both binaries. `cargo run -p` would pick other features for the crates that they
# share, and build those again.
.PHONY: binaries
binaries:
	cargo build --locked --workspace --bins

.PHONY: demo
demo: binaries ## Carry items through the local stack, and show what KV holds after each step
	$(TARGET_DIR)/debug/testbed demo

.PHONY: local
local: binaries ## Run the local stack, and show each export as it happens
	$(TARGET_DIR)/debug/testbed up

.PHONY: test
test: ## Check the formatting, lints, tests and documentation
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo test --locked --workspace
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

.PHONY: bench
bench: ## Measure the pure modules, a reconcile of a whole fleet and the release binary (LARGE=large for runs of minutes, ONLY="warm memory")
	cargo bench --locked --bench rooms
	cargo bench --locked --bench fleet -- $(LARGE)
	cargo build --locked --release --bin bootstrap
	cargo bench --locked --package testbed --bench function -- $(LARGE) $(ONLY)

## On a laptop, with cargo-lambda

.PHONY: local-services
local-services: binaries ## Run the local stack for the function of `make watch` (PORT=9000)
	$(TARGET_DIR)/debug/testbed up --no-function --function-url http://127.0.0.1:$(PORT)/2015-03-31/functions/bootstrap/invocations

.PHONY: watch
watch: binaries ## Run the function with `make local-services`, and rebuild it after each change (PORT=9000)
	$(call needs,cargo-lambda,pip install cargo-lambda)
	@environment=$$($(TARGET_DIR)/debug/testbed env) && eval "$$environment" && \
	    exec cargo lambda watch --invoke-port $(PORT)

.PHONY: invoke
invoke: ## Send an event to the function of `make watch` (EVENT=events/x.json)
	$(call needs,cargo-lambda,pip install cargo-lambda)
	@cargo lambda invoke bootstrap --invoke-port $(PORT) --data-file $(EVENT)

## The deployed artifacts

.PHONY: build
build: ## Build the zip that is deployed (ARCH=arm64 or x86_64)
	$(call needs,cargo-lambda,pip install cargo-lambda)
	cargo lambda build --locked --release $(LAMBDA_FLAG_$(ARCH)) --package ecom-settings-exporter --bin bootstrap --output-format zip

.PHONY: lint-template
lint-template: ## Check template.yaml
	$(call needs,cfn-lint,pip install cfn-lint)
	cfn-lint template.yaml
	@if command -v sam >/dev/null; then sam validate --lint --region us-east-1; else echo "sam validate: skipped, because the SAM CLI is not installed"; fi

.PHONY: deny
deny: ## Check the dependencies: advisories, bans, licences, sources
	$(call needs,cargo-deny,cargo install --locked cargo-deny)
	cargo deny --locked check --hide-inclusion-graph

.PHONY: sbom
sbom: ## Write the bill of materials of the deployed binary (ARCH=arm64 or x86_64)
	$(call needs,cargo-cyclonedx,cargo install --locked cargo-cyclonedx)
	@mkdir -p $(TARGET_DIR)
	cargo cyclonedx --format json --spec-version 1.5 --target $(TRIPLE) --no-build-deps --override-filename sbom.cdx
	@rm -f testbed/sbom.cdx.json
	@mv sbom.cdx.json $(TARGET_DIR)/sbom-$(ARCH).cdx.json
	@echo $(TARGET_DIR)/sbom-$(ARCH).cdx.json

## In AWS (ENVIRONMENT=sandbox, with the credentials of the AWS CLI)

.PHONY: deploy
deploy: ## Deploy what `make build` built (PARAMETERS="Name=value ...", others keep their values)
	$(call needs,sam,pip install aws-sam-cli)
	sam deploy --template-file template.yaml --stack-name $(STACK) --resolve-s3 --capabilities CAPABILITY_IAM \
	    --tags commit=$(shell git describe --always --dirty) \
	    --no-fail-on-empty-changeset --parameter-overrides Environment=$(ENVIRONMENT) Architecture=$(ARCH) $(PARAMETERS)

# CloudFormation wants all parameters of the stack: those that are not given keep their values.
.PHONY: configure
configure: ## Change parameters of the deployed stack, and nothing else (PARAMETERS="Name=value ...")
	$(call needs,aws,install version 2 of the AWS CLI)
	@set -e; keys=$$(aws cloudformation describe-stacks --stack-name $(STACK) \
	    --query 'Stacks[0].Parameters[].ParameterKey' --output text); \
	for given in $(PARAMETERS); do \
	    case " $$(echo $$keys) " in *" $${given%%=*} "*) ;; *) echo "$(STACK) has no parameter $${given%%=*}" >&2; exit 1;; esac; \
	done; \
	list=; for key in $$keys; do \
	    one="\"UsePreviousValue\":true"; \
	    for given in $(PARAMETERS); do \
	        case $$given in "$$key="*) one="\"ParameterValue\":\"$${given#*=}\"";; esac; \
	    done; \
	    list="$$list$${list:+,}{\"ParameterKey\":\"$$key\",$$one}"; \
	done; \
	aws cloudformation update-stack --stack-name $(STACK) --use-previous-template --parameters "[$$list]" \
	    --capabilities CAPABILITY_IAM CAPABILITY_AUTO_EXPAND; \
	aws cloudformation wait stack-update-complete --stack-name $(STACK)

.PHONY: invoke-remote
invoke-remote: ## Send an event to the deployed function (EVENT=events/x.json)
	$(call invoke,$(EVENT))

.PHONY: re-export
re-export: ## Export one index from the table (ACCOUNT=a INDEX=i, QUERY_CONFIGS=true for its query configs too)
	@test -n "$(ACCOUNT)" && test -n "$(INDEX)" || { echo "make re-export needs ACCOUNT and INDEX" >&2; exit 1; }
	@mkdir -p $(TARGET_DIR)
	@printf '{"system_account_id":"%s","index_name":"%s","include_query_configs":%s}' \
	    '$(ACCOUNT)' '$(INDEX)' '$(QUERY_CONFIGS)' >$(TARGET_DIR)/payload.json
	$(call invoke,$(TARGET_DIR)/payload.json)

.PHONY: reconcile
reconcile: ## Compare KV with the table (APPLY=true to repair, ACCOUNT=a, DELETE_UP_TO=n and REWRITE_UP_TO=n to raise the brakes)
	@mkdir -p $(TARGET_DIR)
	@printf '{"reconcile":{"apply":%s%s%s%s}}' '$(APPLY)' \
	    '$(if $(ACCOUNT),$(comma)"system_account_id":"$(ACCOUNT)")' \
	    '$(if $(DELETE_UP_TO),$(comma)"delete_up_to":$(DELETE_UP_TO))' \
	    '$(if $(REWRITE_UP_TO),$(comma)"rewrite_up_to":$(REWRITE_UP_TO))' >$(TARGET_DIR)/payload.json
	$(call invoke,$(TARGET_DIR)/payload.json)

.PHONY: tail
tail: ## Follow the log of the deployed function (SINCE=10m)
	$(call needs,aws,install version 2 of the AWS CLI)
	aws logs tail /aws/lambda/$(FUNCTION) --follow --format short --since $(SINCE)

comma := ,
