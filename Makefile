MODULES := . backend/grpc backend/kafka backend/mysql backend/nats backend/otel backend/postgres backend/rabbitmq backend/redis backend/sqlite bench cmd examples test

.PHONY: test race lint bench ci tidy vulncheck

test: ## all tests of all modules
	go test work

race: ## the same under the race detector, in random order
	go test -race -shuffle=on work

lint: ## golangci-lint in each module
	@for m in $(MODULES); do (cd $$m && golangci-lint run ./...) || exit 1; done

bench: ## the report: ours, peers and floors in one run
	go run ./bench/report

ci: ## what must pass before a change lands
	bash .ci/run

tidy: ## go mod tidy in each module
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy) || exit 1; done

vulncheck: ## known vulnerabilities; needs the network for its database
	@for m in $(MODULES); do (cd $$m && GOWORK=off go run golang.org/x/vuln/cmd/govulncheck@latest ./...) || exit 1; done
