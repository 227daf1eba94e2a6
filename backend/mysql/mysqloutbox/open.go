package mysqloutbox

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/backstay-go/backstay/configdata"
)

// scheme begins a data source name in the form of a URL.
const scheme = "mysql://"

// Config says how a database is opened. It is plain comparable data; changing it means opening the database again.
type Config struct {
	// MaxConns bounds the open connections. Zero means 16; a negative number is refused. One connection is refused too: code
	// that queries the database while it holds a transaction would wait for itself.
	MaxConns int `json:"max_conns"`
	// ConnLifetime is how long a connection is used before another takes its place, in time for what closes old ones: the
	// server's wait_timeout, a proxy, a firewall. Zero means 3 minutes; negative means for ever.
	ConnLifetime time.Duration `json:"conn_lifetime"`
}

// Validate reports every fault of c, naming field and value.
func (c Config) Validate() error {
	f := configdata.Check("mysqloutbox", "")
	f.Require(c.MaxConns == 0 || c.MaxConns >= 2, "MaxConns", c.MaxConns, "0 (16) or at least 2")
	return f.Err()
}

// MarshalJSON writes snake_case, with durations as text and "off" for a negative number.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Open opens the database that dsn names and checks server and session. dsn is a URL, mysql://user:password@host:port/database, in
// which parts with special characters are percent-encoded and the query holds parameters of the driver, or the driver's own form,
// user:password@tcp(host:port)/database?param=value. Both must name a database. Open sets what the package documentation lists
// and refuses a dsn that says otherwise. The result is safe for concurrent use and the caller closes it. Errors never contain the
// password.
func Open(ctx context.Context, dsn string, cfg Config) (*sql.DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	parsed, err := parse(dsn)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(parsed)
	if err != nil {
		return nil, fmt.Errorf("mysqloutbox: %w", err)
	}
	db := sql.OpenDB(connector)
	limit := configdata.Default(cfg.MaxConns, 16)
	db.SetMaxOpenConns(limit)
	db.SetMaxIdleConns(limit)
	db.SetConnMaxLifetime(max(configdata.Default(cfg.ConnLifetime, 3*time.Minute), 0))
	if err := check(ctx, db); err != nil {
		return nil, errors.Join(fmt.Errorf("mysqloutbox: open %s on %s: %w", parsed.DBName, parsed.Addr, err), db.Close())
	}
	return db, nil
}

// parse reads a data source name of either form and sets what the store needs.
func parse(dsn string) (*mysql.Config, error) {
	if strings.HasPrefix(dsn, scheme) {
		var err error
		if dsn, err = fromURL(dsn); err != nil {
			return nil, err
		}
	}
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, fmt.Errorf("mysqloutbox: the data source name: %w", err)
	}
	var faults []error
	refuse := func(fault bool, text string) {
		if fault {
			faults = append(faults, errors.New("mysqloutbox: the data source name "+text))
		}
	}
	refuse(cfg.DBName == "", "names no database: end it with /NAME")
	refuse(cfg.MultiStatements, "has multiStatements=true: several statements in one text are an attacker's way in, and nothing here needs them")
	refuse(cfg.AllowAllFiles, "has allowAllFiles=true: nothing here needs it")
	refuse(cfg.Params["time_zone"] != "" && cfg.Params["time_zone"] != utc, "sets time_zone: it is UTC here")
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.InterpolateParams = true // one round trip for a statement instead of two; the driver refuses character sets where it is unsafe
	cfg.MaxAllowedPacket = 0     // as the server says
	cfg.CheckConnLiveness = true
	cfg.Logger = &mysql.NopLogger{} // what it has to say is in the errors
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params["time_zone"] = utc
	return cfg, nil
}

const utc = "'+00:00'"

// fromURL turns a URL into the driver's form.
func fromURL(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		if part, ok := errors.AsType[*url.Error](err); ok {
			err = part.Err // without the text, which may hold a password
		}
		return "", fmt.Errorf("mysqloutbox: the URL: %w", err)
	}
	cfg := mysql.NewConfig()
	cfg.User = u.User.Username()
	cfg.Passwd, _ = u.User.Password()
	cfg.Net, cfg.Addr = "tcp", u.Host
	if u.Port() == "" {
		cfg.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	cfg.DBName = strings.TrimPrefix(u.Path, "/")
	dsn := cfg.FormatDSN()
	if u.RawQuery == "" {
		return dsn, nil
	}
	if strings.Contains(dsn, "?") {
		return dsn + "&" + u.RawQuery, nil
	}
	return dsn + "?" + u.RawQuery, nil
}
