package natsembed

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config says where the server keeps its data and who can reach it. It is plain data; only Dir is required. Its JSON
// form has snake_case names and durations such as "30s", and unknown fields are refused. Nothing in it can be changed
// while the server runs.
type Config struct {
	// Name is the server's name in logs, metrics and errors. Default "backstay".
	Name string `json:"name"`
	// Dir is the directory of the stored messages; it is created when missing. A server started on the directory of an
	// earlier one goes on where that one stopped. Required.
	Dir string `json:"dir"`
	// Listen is the host:port for connections over TCP. The host must be a loopback address, since such a server asks
	// nobody for credentials; port 0 takes a free one, see Server.URL. Default: no TCP, only Server.Connect.
	Listen string `json:"listen"`
	// SyncAlways makes the server fsync every message before it acknowledges it. Default false: a kill of the process
	// loses nothing that was acknowledged, a loss of power up to the last two minutes.
	SyncAlways bool `json:"sync_always"`
	// StartTimeout bounds Start, which has to read what is in Dir. Default 30s; negative is refused.
	StartTimeout time.Duration `json:"start_timeout"`
}

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Dir == "" {
		faults = append(faults, errors.New(`natsembed: Config.Dir is "": it must be a directory`))
	}
	if _, _, err := c.address(); err != nil {
		faults = append(faults, fmt.Errorf("natsembed: Config.Listen is %q: %w", c.Listen, err))
	}
	if c.StartTimeout < 0 {
		faults = append(faults, fmt.Errorf("natsembed: Config.StartTimeout is %s: it must be positive, or zero for 30s",
			c.StartTimeout))
	}
	return errors.Join(faults...)
}

// address splits Listen, of which an empty one is fine.
func (c Config) address() (host string, port int, err error) {
	if c.Listen == "" {
		return "", 0, nil
	}
	host, portText, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", 0, errors.New("it must be host:port")
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", 0, errors.New("the host must be localhost or a loopback address")
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, errors.New("the port must be 0 to 65535")
	}
	return host, port, nil
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "backstay"
	}
	if c.StartTimeout == 0 {
		c.StartTimeout = 30 * time.Second
	}
	return c
}

// Option gives a Server behaviour that is not data.
type Option func(*Server) error

// WithLogger makes the server log to l: its notices as Info, its traces as Debug. Default: silence. Nil is refused.
func WithLogger(l *slog.Logger) Option {
	return func(s *Server) error {
		if l == nil {
			return errors.New("natsembed: WithLogger: the logger is nil")
		}
		s.log.out = l
		return nil
	}
}
