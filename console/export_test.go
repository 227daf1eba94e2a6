package console

import "context"

// Look samples now.
func Look(c *Console) { c.look(context.Background(), 0) }
