package sqlitejournal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite/sqlitejournal"
	"github.com/backstay-go/backstay/cache"
)

// A process ends while its source is down. The next one finds the write in the journal.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "journal")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()

	source := map[string]string{}
	up := false
	run := func(patience time.Duration, use func(*cache.WriteBehind[string, string])) {
		journal, err := sqlitejournal.Open[string, string](filepath.Join(dir, "names.journal"))
		if err != nil {
			fmt.Println(err)
			return
		}
		defer journal.Close()
		names, err := cache.OpenWriteBehind(context.Background(), journal,
			func(_ context.Context, key string) (string, error) { return source[key], nil },
			func(_ context.Context, writes []cache.Write[string, string]) error {
				if !up {
					return errors.New("the source is down")
				}
				for _, w := range writes {
					source[w.Key] = w.Value
				}
				return nil
			}, cache.Config{Name: "names"}, cache.WriteBehindConfig{})
		if err != nil {
			fmt.Println(err)
			return
		}
		use(names)
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		fmt.Println("everything written:", !errors.Is(names.Close(ctx), cache.ErrUnwritten))
	}
	run(200*time.Millisecond, func(names *cache.WriteBehind[string, string]) {
		fmt.Println("accepted:", names.Set(context.Background(), "1", "Ann") == nil)
	})
	up = true
	run(time.Minute, func(names *cache.WriteBehind[string, string]) {
		name, _ := names.Get(context.Background(), "1")
		fmt.Println("taken over:", name)
	})
	fmt.Println("the source:", source["1"])
	// Output:
	// accepted: true
	// everything written: false
	// taken over: Ann
	// everything written: true
	// the source: Ann
}
