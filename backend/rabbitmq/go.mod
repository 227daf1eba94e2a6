module github.com/backstay-go/backstay/backend/rabbitmq

go 1.26.0

require (
	github.com/backstay-go/backstay v0.0.0
	github.com/rabbitmq/amqp091-go v1.16.0
	github.com/stretchr/testify v1.12.1
	go.uber.org/goleak v1.3.0
	golang.org/x/sync v0.24.0
)

require go.yaml.in/yaml/v3 v3.0.5 // indirect

replace github.com/backstay-go/backstay => ../..
