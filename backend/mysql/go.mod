module github.com/backstay-go/backstay/backend/mysql

go 1.26.0

require (
	github.com/backstay-go/backstay v0.0.0
	github.com/go-sql-driver/mysql v1.10.1
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
)

require (
	filippo.io/edwards25519 v1.2.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
)

replace github.com/backstay-go/backstay => ../..
