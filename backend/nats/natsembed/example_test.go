package natsembed_test

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
)

// A broker for one process: nobody outside can connect.
func Example() {
	dir, err := os.MkdirTemp("", "natsembed")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	srv, err := natsembed.Start(natsembed.Config{Dir: dir})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = srv.Close() }()
	conn, err := srv.Connect()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()

	js, err := jetstream.New(conn)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "orders", Subjects: []string{"orders.>"}}); err != nil {
		fmt.Println(err)
		return
	}
	ack, err := js.Publish(ctx, "orders.placed", []byte("o-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("stored as", ack.Sequence)
	// Output: stored as 1
}

// Other processes of the machine reach the server over loopback TCP.
func ExampleServer_URL() {
	dir, err := os.MkdirTemp("", "natsembed")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	srv, err := natsembed.Start(natsembed.Config{Dir: dir, Listen: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = srv.Close() }()
	conn, err := nats.Connect(srv.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	fmt.Println(conn.IsConnected())
	// Output: true
}

// Since there is no authentication, a server for the whole network is refused.
func ExampleConfig_Validate() {
	fmt.Println(natsembed.Config{Listen: "0.0.0.0:4222"}.Validate())
	// Output:
	// natsembed: Config.Dir is "": it must be a directory
	// natsembed: Config.Listen is "0.0.0.0:4222": the host must be localhost or a loopback address
}
