package rediscache

import "github.com/redis/rueidis"

// RueidisConn is the Conn that New makes.
func RueidisConn(client rueidis.Client) Conn { return rueidisConn{client} }
