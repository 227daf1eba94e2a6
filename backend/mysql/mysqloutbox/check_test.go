package mysqloutbox

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// good is a session with nothing to say against it.
var good = session{version: "8.4.2", mode: "STRICT_TRANS_TABLES", charset: "utf8mb4", binlog: "ROW", isolation: "REPEATABLE-READ", logs: true, autocommit: true}

func TestVersions(t *testing.T) {
	for version, old := range map[string]bool{
		"8.4.2": false, "8.0.13": false, "8.0.13-debug": false, "9.1.0-commercial": false, "8.0.12": true, "5.7.44-log": true,
		"10.11.19-MariaDB-0+deb12u1": false, "5.5.5-10.6.1-MariaDB": false, "10.6.0-MariaDB": false, "11.4.2-MariaDB": false,
		"10.5.29-MariaDB": true, "5.5.68-MariaDB": true, "unheard of": false, "": false, "8": false,
	} {
		s := good
		s.version = version
		if err := s.faults(); old {
			require.ErrorContains(t, err, "is the least", version)
		} else {
			require.NoError(t, err, version)
		}
	}
}

// Statement-based logging is a fault only where there is a log.
func TestBinaryLog(t *testing.T) {
	s := good
	s.binlog = "STATEMENT"
	require.ErrorContains(t, s.faults(), "binlog_format")
	s.logs = false
	require.NoError(t, s.faults())
}
