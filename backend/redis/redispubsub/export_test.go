package redispubsub

import "time"

// BeatSeldom has members with long leases rely on being told of what happens.
func BeatSeldom() { beatMost = time.Hour }
